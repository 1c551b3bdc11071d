//! The definition of the rollup: one person's events, folded from the first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aggregates::health_batch::HealthBatchEvent;
use aggregates::segment::Key;
use aggregates::{AnyEvent, Recorded};

use super::{DayKey, DayRow, Reading, Scope, compute, hidden_after};

/// All rollup rows of one person, as of the last event taken in.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    readings: HashMap<Key, (DayKey, Reading)>,
    /// Every day that ever held a sample.
    days: BTreeSet<DayKey>,
    health_seq: i64,
    hidden: bool,
}

impl Fold {
    /// Takes in the next event of the person. Events whose key was destroyed say nothing.
    pub fn apply(&mut self, event: &Recorded) {
        let mut scope = Scope::default();
        scope.hear(event);
        self.hidden = hidden_after(event).unwrap_or(self.hidden);
        if scope.wiped {
            self.readings.clear();
            self.days.clear();
        }
        self.days.extend(scope.days);
        self.health_seq = self.health_seq.max(scope.health_seq);
        if let Some(AnyEvent::HealthBatch(HealthBatchEvent::Applied(applied))) = event.event() {
            for (key, sample) in applied.rows() {
                match DayKey::of(sample).zip(Reading::of(sample)) {
                    Some(reading) => self.readings.insert(key.clone(), reading),
                    None => self.readings.remove(key),
                };
            }
        }
    }

    /// The person's health watermark.
    pub fn health_seq(&self) -> i64 {
        self.health_seq
    }

    /// Whether the person does not allow aggregation.
    pub fn hidden(&self) -> bool {
        self.hidden
    }

    /// The rows, by metric and day.
    pub fn rows(&self) -> Vec<DayRow> {
        if self.hidden {
            return Vec::new();
        }
        let mut by_day: BTreeMap<DayKey, Vec<Reading>> =
            self.days.iter().map(|key| (*key, Vec::new())).collect();
        for (key, reading) in self.readings.values() {
            by_day.entry(*key).or_default().push(*reading);
        }
        by_day.into_iter().map(|(key, readings)| compute(key, readings)).collect()
    }
}

/// The live way to the same rows: computes `days` from samples that hold at least everything that
/// starts on them.
pub fn refresh<'a>(
    days: &BTreeSet<DayKey>,
    samples: impl IntoIterator<Item = &'a aggregates::segment::Sample>,
) -> Vec<DayRow> {
    let mut by_day: BTreeMap<DayKey, Vec<Reading>> =
        days.iter().map(|key| (*key, Vec::new())).collect();
    for sample in samples {
        if let (Some(key), Some(reading)) = (DayKey::of(sample), Reading::of(sample))
            && let Some(readings) = by_day.get_mut(&key)
        {
            readings.push(reading);
        }
    }
    by_day.into_iter().map(|(key, readings)| compute(key, readings)).collect()
}
