//! A person's samples as the fold of their batches: what a rebuild makes and a check compares.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Applied, Tombstone};
use crate::segment::{Key, Sample};

/// All samples of one person, deleted ones included.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Samples {
    pub rows: BTreeMap<Key, Sample>,
    pub tombstones: BTreeSet<Tombstone>,
    /// The watermark after the last batch.
    pub health_seq: i64,
}

impl Samples {
    /// Applies one batch, in the order of positions. Never fails and never decides.
    pub fn apply(&mut self, batch: &Applied) {
        for (key, row) in batch.rows() {
            self.rows.insert(key.clone(), row.clone());
        }
        self.tombstones.extend(batch.tombstoned.iter().cloned());
        self.health_seq = batch.facts.health_seq;
    }

    /// What every query shows.
    pub fn active(&self) -> impl Iterator<Item = &Sample> {
        self.rows.values().filter(|row| row.is_active())
    }
}
