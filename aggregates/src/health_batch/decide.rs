//! What becomes of every item of a batch. Pure: the same batch and context give the same event.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::context::Context;
use super::event::{
    Affected, Applied, Correction, Counts, Facts, RefusalReason, RefusedRange, Tombstone,
};
use super::outcome::{DeletionOutcome, SampleOutcome};
use super::validate::validate;
use super::wire::{Batch, DeletionItem, SampleItem};
use crate::metric::CATALOGUE_VERSION;
use crate::segment::{Key, OffsetSource, Sample, find};

/// Decides a batch: samples first, then deletions, so that a key in both ends deleted.
///
/// Order among versions of one sample: [`crate::segment::Revision`], then receipt. A deletion beats every version
/// and is never undone.
pub fn decide(batch: &Batch, context: &Context) -> Applied {
    let mut decision = Decision::new(context);
    let mut samples = vec![SampleOutcome::BadShape; batch.samples.len()];
    for item in &batch.samples {
        let outcome = decision.upsert(item);
        if let Some(slot) = samples.get_mut(item.place) {
            *slot = outcome;
        }
    }
    decision.index_records(batch);
    let mut deletions = vec![DeletionOutcome::NotFound; batch.deletions.len()];
    for item in &batch.deletions {
        let outcome = decision.delete(item);
        if let Some(slot) = deletions.get_mut(item.place) {
            *slot = outcome;
        }
    }
    decision.finish(batch, samples, deletions)
}

/// The state of a decision: what the batch has changed so far, over what is stored.
struct Decision<'a> {
    context: &'a Context,
    /// Keys of valid samples: the first valid one wins.
    taken: HashSet<&'a Key>,
    recorded: BTreeMap<Key, Sample>,
    corrected: BTreeMap<Key, Correction>,
    deleted: BTreeMap<Key, Sample>,
    tombstoned: BTreeSet<Tombstone>,
    /// Keys by (source, record), of records with a lossless deletion only.
    records: HashMap<(Arc<str>, Arc<str>), BTreeSet<Key>>,
    refused: BTreeMap<(RefusalReason, &'a str), RefusedRange>,
}

impl<'a> Decision<'a> {
    fn new(context: &'a Context) -> Self {
        Self {
            context,
            taken: HashSet::new(),
            recorded: BTreeMap::new(),
            corrected: BTreeMap::new(),
            deleted: BTreeMap::new(),
            tombstoned: BTreeSet::new(),
            records: HashMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// The row as this batch leaves it so far.
    fn row(&self, key: &Key) -> Option<&Sample> {
        self.deleted
            .get(key)
            .or_else(|| self.corrected.get(key).map(|correction| &correction.after))
            .or_else(|| self.recorded.get(key))
            .or_else(|| find(&self.context.segments, key))
    }

    fn is_tombstoned(&self, tombstone: &Tombstone) -> bool {
        if self.context.tombstones.is_empty() && self.tombstoned.is_empty() {
            return false;
        }
        let whole = Tombstone { start_ms: None, ..tombstone.clone() };
        [tombstone, &whole].into_iter().any(|candidate| {
            self.context.tombstones.contains(candidate) || self.tombstoned.contains(candidate)
        })
    }

    fn upsert(&mut self, item: &'a SampleItem) -> SampleOutcome {
        let incoming = match validate(item, self.context) {
            Ok(incoming) => incoming,
            Err(fault) => {
                self.note_refusal(item, fault);
                return fault;
            }
        };
        if !self.taken.insert(&item.key) {
            return SampleOutcome::Duplicate;
        }
        let Some(stored) = find(&self.context.segments, &item.key) else {
            if self.is_tombstoned(&Tombstone::of(&item.key)) {
                return SampleOutcome::Tombstoned;
            }
            self.recorded.insert(incoming.key.clone(), incoming);
            return SampleOutcome::Recorded;
        };
        let (outcome, after) = correct(stored, incoming);
        if let Some(after) = after {
            let correction = Correction { before: stored.clone(), after };
            self.corrected.insert(item.key.clone(), correction);
        }
        outcome
    }

    /// Remembers what a rule that may change kept out.
    fn note_refusal(&mut self, item: &'a SampleItem, fault: SampleOutcome) {
        let reason = match fault {
            SampleOutcome::PrivacyBlocked => RefusalReason::Privacy,
            SampleOutcome::UnknownMetric => RefusalReason::UnknownMetric,
            _ => return,
        };
        let Some(code) = item.metric_code.as_deref() else { return };
        let from_ms = item.key.start_ms;
        let to_ms = item.end_ms.unwrap_or(from_ms).max(from_ms);
        let range = self.refused.entry((reason, code)).or_insert_with(|| RefusedRange {
            reason,
            metric: code.to_owned(),
            from_ms,
            to_ms,
            count: 0,
        });
        range.from_ms = range.from_ms.min(from_ms);
        range.to_ms = range.to_ms.max(to_ms);
        range.count += 1;
    }

    /// Collects the keys of every record that is to be deleted as a whole.
    fn index_records(&mut self, batch: &Batch) {
        for item in batch.deletions.iter().filter(|item| item.start_ms.is_none()) {
            let record = (item.source_id.clone(), item.record_id.clone());
            self.records.insert(record, BTreeSet::new());
        }
        if self.records.is_empty() {
            return;
        }
        let stored = self.context.segments.iter().flat_map(|segment| &segment.samples);
        for key in stored.map(|sample| &sample.key).chain(self.recorded.keys()) {
            let record = (key.source_id.clone(), key.record_id.clone());
            if let Some(keys) = self.records.get_mut(&record) {
                keys.insert(key.clone());
            }
        }
    }

    fn delete(&mut self, item: &DeletionItem) -> DeletionOutcome {
        let tombstone = Tombstone {
            source_id: item.source_id.clone(),
            record_id: item.record_id.clone(),
            start_ms: item.start_ms,
        };
        let keys: Vec<Key> = match item.start_ms {
            Some(start_ms) => vec![Key {
                start_ms,
                source_id: item.source_id.clone(),
                record_id: item.record_id.clone(),
            }],
            None => self
                .records
                .get(&(item.source_id.clone(), item.record_id.clone()))
                .map(|keys| keys.iter().cloned().collect())
                .unwrap_or_default(),
        };
        let (mut found, mut deleted) = (false, false);
        for key in keys {
            let Some(row) = self.row(&key) else { continue };
            found = true;
            if row.is_active() {
                let gone = Sample {
                    deleted_ms: Some(item.deleted_ms.unwrap_or(self.context.now_ms)),
                    batch_seq: self.context.received_seq,
                    ..row.clone()
                };
                self.deleted.insert(key, gone);
                deleted = true;
            }
        }
        // A deleted row refuses its own key. A whole record needs a tombstone even so: samples
        // of it that arrive later, in whatever order, must not live on.
        let needed = item.start_ms.is_none() || !found;
        if needed && !self.is_tombstoned(&tombstone) {
            self.tombstoned.insert(tombstone);
        }
        match (found, deleted) {
            (_, true) => DeletionOutcome::Deleted,
            (true, false) => DeletionOutcome::AlreadyDeleted,
            (false, false) => DeletionOutcome::NotFound,
        }
    }

    fn finish(
        self,
        batch: &Batch,
        samples: Vec<SampleOutcome>,
        deletions: Vec<DeletionOutcome>,
    ) -> Applied {
        let context = self.context;
        let mut applied = Applied {
            facts: Facts::default(),
            samples,
            deletions,
            recorded: self.recorded.into_values().collect(),
            corrected: self.corrected.into_values().collect(),
            deleted: self.deleted.into_values().collect(),
            tombstoned: self.tombstoned.into_iter().collect(),
        };
        let affected = affected(&applied);
        let changed = affected.is_some();
        applied.facts = Facts {
            request_id: batch.request_id,
            received_seq: context.received_seq,
            applied_at_ms: context.now_ms,
            duration_ms: context.now_ms.saturating_sub(context.received_ms).max(0),
            config_version: batch.config_version,
            catalogue_version: CATALOGUE_VERSION,
            request_offset_min: context.request_offset_min,
            changed,
            health_seq: context.health_seq + i64::from(changed),
            counts: counts(&applied),
            affected,
            refused: self.refused.into_values().collect(),
        };
        applied
    }
}

/// What an upload of a stored key does to it.
fn correct(stored: &Sample, incoming: Sample) -> (SampleOutcome, Option<Sample>) {
    if !stored.is_active() {
        return (SampleOutcome::Tombstoned, None);
    }
    if stored.metric != incoming.metric {
        return (SampleOutcome::KeyReused, None);
    }
    let order = |sample: &Sample| (sample.revision, sample.batch_seq);
    let older = order(&incoming) < order(stored);
    let mut after = merge(stored, incoming);
    let batch_seq = std::mem::replace(&mut after.batch_seq, stored.batch_seq);
    if after == *stored {
        return (SampleOutcome::Unchanged, None);
    }
    if older {
        return (SampleOutcome::Superseded, None);
    }
    after.batch_seq = batch_seq;
    (SampleOutcome::Corrected, Some(after))
}

/// The newer version over the stored one: what it leaves out stays.
fn merge(stored: &Sample, incoming: Sample) -> Sample {
    // The header's offset is where the phone was when it sent the sample, which says nothing new
    // about a sample that already has an offset.
    let own = OffsetSource::Sample;
    let takes = incoming.offset_source > stored.offset_source || incoming.offset_source == own;
    let (offset_min, offset_source) = if takes {
        (incoming.offset_min, incoming.offset_source)
    } else {
        (stored.offset_min, stored.offset_source)
    };
    Sample {
        offset_min,
        offset_source,
        device_id: incoming.device_id.or_else(|| stored.device_id.clone()),
        external_uuid: incoming.external_uuid.or_else(|| stored.external_uuid.clone()),
        metadata: incoming.metadata.or_else(|| stored.metadata.clone()),
        revision: incoming.revision.max(stored.revision),
        created_ms: stored.created_ms,
        ..incoming
    }
}

/// What readers must recompute.
fn affected(applied: &Applied) -> Option<Affected> {
    let corrected = applied.corrected.iter().flat_map(|c| [&c.before, &c.after]);
    let rows: Vec<&Sample> =
        applied.recorded.iter().chain(corrected).chain(&applied.deleted).collect();
    let range_start_ms = rows.iter().map(|row| row.key.start_ms).min()?;
    let range_end_ms = rows.iter().map(|row| row.end_ms).max()?;
    let mut days: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut nights = BTreeSet::new();
    for row in &rows {
        days.entry(row.metric).or_default().extend(row.local_dates());
        if row.metric.is_sleep() {
            nights.extend(row.nights());
        }
    }
    let offsets = || rows.iter().filter_map(|row| row.offset_min);
    let (offset_min, offset_max) = (offsets().min(), offsets().max());
    Some(Affected { days, nights, range_start_ms, range_end_ms, offset_min, offset_max })
}

fn counts(applied: &Applied) -> Counts {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let outcomes = |test: &dyn Fn(SampleOutcome) -> bool| {
        number(applied.samples.iter().filter(|outcome| test(**outcome)).count())
    };
    Counts {
        samples: number(applied.samples.len()),
        deletions: number(applied.deletions.len()),
        recorded: number(applied.recorded.len()),
        corrected: number(applied.corrected.len()),
        unchanged: outcomes(&|outcome| outcome == SampleOutcome::Unchanged),
        superseded: outcomes(&|outcome| outcome == SampleOutcome::Superseded),
        refused: outcomes(&|outcome| outcome.failure().is_some()),
        deleted: number(applied.deleted.len()),
        tombstoned: number(applied.tombstoned.len()),
    }
}
