//! One day of one person.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use super::{Consumption, Generator, Metric, Session};
use crate::client::wire::{Sample, ValueKind};

const HEART_RATE: Metric = Metric { code: "heart_rate", kind: ValueKind::ScalarNum, unit: "bpm" };
const VARIABILITY: Metric =
    Metric { code: "heart_rate_variability", kind: ValueKind::ScalarNum, unit: "ms" };
const STEPS: Metric = Metric { code: "steps", kind: ValueKind::CumulativeNum, unit: "count" };
const WEIGHT: Metric = Metric { code: "weight", kind: ValueKind::ScalarNum, unit: "kg" };
const STAGE: Metric = Metric { code: "sleep_stage", kind: ValueKind::Category, unit: "" };

/// A sleep cycle: the stage, its usual minutes, and the durations it adds to.
const CYCLE: [(&str, i64, &[&str]); 4] = [
    ("light", 38, &["sleep_duration", "sleep_light"]),
    ("deep", 24, &["sleep_duration", "sleep_deep"]),
    ("rem", 20, &["sleep_duration", "sleep_rem"]),
    ("awake", 3, &["sleep_awake"]),
];

/// Beats above rest by hour of the day.
const RHYTHM: [i64; 24] =
    [2, 0, 0, -2, -2, 0, 4, 12, 18, 20, 18, 17, 22, 20, 18, 17, 20, 30, 42, 28, 20, 16, 10, 6];

impl Generator<'_> {
    pub(super) fn day(&mut self, date: NaiveDate, sleeps: bool) {
        let midnight = date.and_time(NaiveTime::MIN);
        let at = |minute: i64| midnight + TimeDelta::minutes(minute);
        self.doses.clear();
        if self.random.chance(55) {
            let evening = at(19 * 60 + self.random.between(0, 70));
            self.session(evening, midnight);
        }
        for minute in (0..24 * 60).step_by(5) {
            let dose = self.doses.iter().any(|dose| (0..30).contains(&(minute - dose)));
            let beats = self.traits.resting_bpm
                + RHYTHM[(minute / 60) as usize]
                + self.random.between(-4, 6)
                + if dose { 8 } else { 0 };
            let id = self.id(HEART_RATE.code, at(minute)).to_string();
            self.number(&HEART_RATE, id, at(minute), 0, beats * 1000);
        }
        for minute in (7 * 60..22 * 60).step_by(10) {
            if self.random.chance(self.traits.step_chance) {
                let steps = self.random.between(12, 420);
                let id = self.id(STEPS.code, at(minute)).to_string();
                self.number(&STEPS, id, at(minute), 10, steps * 1000);
            }
        }
        let scale = at(7 * 60 + self.random.between(0, 25));
        let grams = self.traits.weight_grams + 10 * self.random.between(-40, 40);
        let id = self.id(WEIGHT.code, scale).to_string();
        self.number(&WEIGHT, id, scale, 0, grams);
        if sleeps {
            let bed = at(self.traits.bed_hour * 60 + self.random.between(10, 55));
            self.night(bed);
        }
    }

    fn session(&mut self, first: NaiveDateTime, midnight: NaiveDateTime) {
        let mut at = first;
        let mut consumptions = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            self.doses.push((at - midnight).num_minutes());
            consumptions.push(Consumption {
                id: self.id("consumption", at),
                at: self.utc(at),
                duration_ms: self.random.between(1_500, 6_000),
                quantity: format!("0.{:03}", self.random.between(50, 250)),
            });
            at += TimeDelta::minutes(self.random.between(6, 25));
        }
        let last = first + TimeDelta::minutes(self.doses.last().unwrap_or(&0) - self.doses[0]);
        let session = Session {
            id: self.id("session", first),
            start_at: self.utc(first),
            end_at: self.utc(last + TimeDelta::minutes(60)),
            consumptions,
        };
        self.person.sessions.push(session);
    }

    fn night(&mut self, bed: NaiveDateTime) {
        let mut from = bed;
        for n in 0..self.random.between(18, 21) {
            let (stage, usual, adds_to) = CYCLE[n as usize % CYCLE.len()];
            let minutes = usual + self.random.between(0, 9);
            let id = self.id(STAGE.code, from);
            let sample = Sample {
                category_code: Some(stage.into()),
                ..self.sample(&STAGE, id.to_string(), from, minutes)
            };
            self.person.samples.push(sample);
            for code in adds_to {
                let metric = Metric { code, kind: ValueKind::IntervalNum, unit: "min" };
                self.number(&metric, format!("{id}|{code}"), from, minutes, minutes * 1000);
            }
            if stage == "deep" {
                let milliseconds = self.random.between(28_000, 82_000);
                let id = self.id(VARIABILITY.code, from).to_string();
                self.number(&VARIABILITY, id, from, 1, milliseconds);
            }
            from += TimeDelta::minutes(minutes);
        }
    }
}
