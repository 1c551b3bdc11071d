//! A generated month of three people, as the payloads their phones would upload.
//!
//! The same plan gives the same payloads, ids included. Beside them the generator keeps its own
//! account of every local day, in whole thousandths, without a detour through the wire format;
//! rollups can therefore be checked for equality, not for likeness.

mod day;

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate, NaiveDateTime, TimeDelta};
use serde_json::{Value, json};
use uuid::Uuid;

use super::random::Random;
use crate::client::wire::{Batch, MAX_BATCH, Sample, ValueKind, wire_time};

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Another seed gives other numbers and ids.
    pub seed: u64,
    /// The first local day.
    pub first_day: NaiveDate,
    /// How many days; 30 give about 34,000 samples.
    pub days: u32,
}

/// The producer's name in generated samples.
pub const SOURCE_ID: &str = "apple_healthkit";

/// One person and everything their phone has to upload.
#[derive(Clone, Debug)]
pub struct Person {
    /// A first name, also the subject of the development token.
    pub name: &'static str,
    /// In order of generation: day by day.
    pub samples: Vec<Sample>,
    /// In order of time.
    pub sessions: Vec<Session>,
    /// The person's days by metric and local date.
    pub expected: BTreeMap<(&'static str, NaiveDate), Tally>,
}

/// What the samples of one metric and local day come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many samples.
    pub count: u64,
    /// Their sum in thousandths of the canonical unit.
    pub sum_milli: i64,
    /// The least in thousandths.
    pub min_milli: i64,
    /// The greatest in thousandths.
    pub max_milli: i64,
}

impl Tally {
    /// The sum in the canonical unit.
    pub fn sum(&self) -> f64 {
        self.sum_milli as f64 / 1000.0
    }
}

/// A session with what was consumed in it.
#[derive(Clone, Debug)]
pub struct Session {
    /// The client's id, a UUID.
    pub id: Uuid,
    /// The first consumption, UTC.
    pub start_at: String,
    /// The last consumption and the idle hour after it, UTC.
    pub end_at: String,
    /// At least one, in order of time.
    pub consumptions: Vec<Consumption>,
}

/// One consumption.
#[derive(Clone, Debug)]
pub struct Consumption {
    /// The client's id, a UUID.
    pub id: Uuid,
    /// UTC.
    pub at: String,
    /// Milliseconds.
    pub duration_ms: i64,
    /// A decimal with three places.
    pub quantity: String,
}

impl Session {
    /// The body of `POST /sessions`.
    pub fn body(&self) -> Value {
        json!({
            "clientSessionId": self.id,
            "sessionStartTimestamp": self.start_at,
            "sessionEndTimestamp": self.end_at,
        })
    }
}

impl Consumption {
    /// The body of `POST /consumptions`, in the session the server knows as `session_id`.
    pub fn body(&self, session_id: &str) -> Value {
        json!({
            "clientConsumptionId": self.id,
            "sessionId": session_id,
            "timestamp": self.at,
            "durationMs": self.duration_ms,
            "quantity": self.quantity,
        })
    }
}

impl Person {
    /// The samples in uploads of the largest allowed size, each under an id that follows from its
    /// content.
    pub fn batches(&self) -> impl Iterator<Item = Batch> + '_ {
        self.samples.chunks(MAX_BATCH).map(|part| Batch::of_content(part.to_vec(), Vec::new()))
    }
}

/// A person's constants.
struct Traits {
    name: &'static str,
    /// Minutes east of UTC, and from which day on: one of the three flies west.
    offsets: &'static [(u32, i32)],
    resting_bpm: i64,
    weight_grams: i64,
    step_chance: i64,
    bed_hour: i64,
}

const PEOPLE: [Traits; 3] = [
    Traits {
        name: "ada",
        offsets: &[(0, 60)],
        resting_bpm: 56,
        weight_grams: 61_400,
        step_chance: 60,
        bed_hour: 22,
    },
    Traits {
        name: "björn",
        offsets: &[(0, 60), (14, -300)],
        resting_bpm: 62,
        weight_grams: 84_900,
        step_chance: 45,
        bed_hour: 23,
    },
    Traits {
        name: "chandra",
        offsets: &[(0, 330)],
        resting_bpm: 66,
        weight_grams: 72_300,
        step_chance: 55,
        bed_hour: 21,
    },
];

/// Generates the three people of `plan`.
pub fn people(plan: Plan) -> Vec<Person> {
    (0..).zip(&PEOPLE).map(|(n, traits)| Generator::new(plan, n, traits).run()).collect()
}

struct Generator<'a> {
    plan: Plan,
    traits: &'a Traits,
    random: Random,
    person: Person,
    /// Minutes east of UTC on the current day.
    offset: i32,
    /// Local minutes of the current day at which something was consumed.
    doses: Vec<i64>,
}

impl<'a> Generator<'a> {
    fn new(plan: Plan, n: u64, traits: &'a Traits) -> Self {
        let person = Person {
            name: traits.name,
            samples: Vec::new(),
            sessions: Vec::new(),
            expected: BTreeMap::new(),
        };
        let random = Random::new(plan.seed, n + 1);
        Self { plan, traits, random, person, offset: 0, doses: Vec::new() }
    }

    fn run(mut self) -> Person {
        for n in 0..self.plan.days {
            let Some(date) = self.plan.first_day.checked_add_days(Days::new(n.into())) else {
                break;
            };
            let offset = |(_, offset): &(u32, i32)| *offset;
            self.offset =
                self.traits.offsets.iter().rfind(|(from, _)| *from <= n).map_or(0, offset);
            // The night after the last day would end after the plan does, and one does not sleep
            // in the bed one flies away from.
            let travels = self.traits.offsets.iter().any(|(from, _)| *from == n + 1);
            self.day(date, n + 1 < self.plan.days && !travels);
        }
        self.person
    }

    fn utc(&self, local: NaiveDateTime) -> String {
        wire_time((local - TimeDelta::minutes(self.offset.into())).and_utc())
    }

    fn id(&self, what: &str, local: NaiveDateTime) -> Uuid {
        let name =
            format!("{}/{}/{what}/{local}/{}", self.plan.seed, self.person.name, self.offset);
        Uuid::new_v5(&NAMESPACE, name.as_bytes())
    }

    /// A numeric sample, entered into the account of its local day.
    fn number(
        &mut self,
        metric: &Metric,
        record: String,
        from: NaiveDateTime,
        minutes: i64,
        milli: i64,
    ) {
        let fresh = Tally { count: 0, sum_milli: 0, min_milli: milli, max_milli: milli };
        let tally = self.person.expected.entry((metric.code, from.date())).or_insert(fresh);
        tally.count += 1;
        tally.sum_milli += milli;
        tally.min_milli = tally.min_milli.min(milli);
        tally.max_milli = tally.max_milli.max(milli);
        let sample = Sample {
            value: Some(milli as f64 / 1000.0),
            unit: Some(metric.unit.into()),
            ..self.sample(metric, record, from, minutes)
        };
        self.person.samples.push(sample);
    }

    fn sample(&self, metric: &Metric, record: String, from: NaiveDateTime, minutes: i64) -> Sample {
        Sample {
            source_id: SOURCE_ID.into(),
            source_record_id: record,
            metric_code: metric.code.into(),
            value_kind: metric.kind,
            value: None,
            unit: None,
            category_code: None,
            start_at: self.utc(from),
            end_at: self.utc(from + TimeDelta::minutes(minutes)),
            duration_seconds: Some(minutes * 60),
            timezone_offset_minutes: Some(self.offset),
            metadata: None,
        }
    }
}

const NAMESPACE: Uuid = Uuid::from_u128(0x0d0e_5a1c_77b3_4c58_8e0f_2f6a_91c4_d3e7);

struct Metric {
    code: &'static str,
    kind: ValueKind,
    unit: &'static str,
}

#[cfg(test)]
mod tests;
