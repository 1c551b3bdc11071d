//! Uploads of one person's uploads against a model store that loads and writes segments as the
//! server does. Invariants carry the numbers of the health ingestion list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

mod examples;
mod histories;
mod requests;

use super::*;
use crate::event::StoredEvent;
use crate::segment::tests::Store;
use crate::segment::{Key, LoadedSegment, Sample, plan};

/// 2026-03-01T00:00:00Z.
const MARCH: i64 = 1_772_323_200_000;
const HOUR: i64 = 3_600_000;

fn iso(at_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(at_ms).unwrap().to_rfc3339()
}

fn body(id: u128, samples: &[Value], deleted: &[Value]) -> Vec<u8> {
    let body = json!({
        "requestId": Uuid::from_u128(id),
        "payloadHash": "0".repeat(64),
        "configVersion": 3,
        "samples": samples,
        "deleted": deleted,
    });
    body.to_string().into_bytes()
}

fn batch(samples: &[Value], deleted: &[Value]) -> Batch {
    Batch::parse(&body(1, samples, deleted)).unwrap()
}

fn heart_rate(record: &str, start_ms: i64, value: f64) -> Value {
    json!({
        "sourceId": "apple_healthkit", "sourceRecordId": record, "metricCode": "heart_rate",
        "valueKind": "SCALAR_NUM", "value": value, "unit": "bpm",
        "startAt": iso(start_ms), "endAt": iso(start_ms), "durationSeconds": 0,
    })
}

fn sleep(record: &str, start_ms: i64, end_ms: i64) -> Value {
    json!({
        "sourceId": "apple_healthkit", "sourceRecordId": record, "metricCode": "sleep_stage",
        "valueKind": "CATEGORY", "categoryCode": "deep",
        "startAt": iso(start_ms), "endAt": iso(end_ms),
    })
}

fn with(mut sample: Value, name: &str, value: Value) -> Value {
    sample[name] = value;
    sample
}

fn deletion(record: &str, start_ms: Option<i64>) -> Value {
    match start_ms {
        Some(start) => json!({
            "sourceId": "apple_healthkit", "sourceRecordId": record, "startAt": iso(start),
        }),
        None => json!({"sourceId": "apple_healthkit", "sourceRecordId": record}),
    }
}

/// One person as the server sees them.
#[derive(Clone, Debug)]
struct Person {
    store: Store,
    tombstones: BTreeSet<Tombstone>,
    health_seq: i64,
    next_seq: i64,
    settings: Context,
    folded: Samples,
    events: Vec<Applied>,
}

impl Default for Person {
    fn default() -> Self {
        Self {
            store: Store::default(),
            tombstones: BTreeSet::new(),
            health_seq: 0,
            next_seq: 1,
            settings: Context {
                uploads_allowed: true,
                request_offset_min: Some(60),
                received_ms: MARCH + 48 * HOUR,
                now_ms: MARCH + 48 * HOUR + 7,
                ..Context::default()
            },
            folded: Samples::default(),
            events: Vec::new(),
        }
    }
}

impl Person {
    /// What the server would load: covering segments, segments by fold, tombstones.
    fn context(&self, batch: &Batch, received_seq: i64) -> Context {
        let all = &self.store.segments;
        let mut wanted: BTreeMap<i64, LoadedSegment> = BTreeMap::new();
        for (from, to) in batch.ranges() {
            let covering = all.iter().rev().find(|segment| segment.lo_ms <= from);
            let inside = all.iter().filter(|s| s.lo_ms > from && s.lo_ms <= to);
            wanted.extend(covering.into_iter().chain(inside).map(|s| (s.lo_ms, s.clone())));
        }
        let lossless = batch.lossless_records();
        for segment in all {
            if segment.samples.iter().any(|s| lossless.contains(&*s.key.record_id)) {
                wanted.insert(segment.lo_ms, segment.clone());
            }
        }
        let records = batch.records();
        let tombstones = self.tombstones.iter();
        Context {
            segments: wanted.into_values().collect(),
            tombstones: tombstones
                .filter(|t| records.contains(&(&*t.source_id, &*t.record_id)))
                .cloned()
                .collect(),
            received_seq,
            health_seq: self.health_seq,
            ..self.settings.clone()
        }
    }

    fn submit_as(&mut self, received_seq: i64, batch: &Batch) -> Result<Applied, HealthBatchError> {
        let context = self.context(batch, received_seq);
        let command = HealthBatchCommand::Submit(Box::new(batch.clone()));
        let mut events = HealthBatch::default().decide(&command, &context)?;
        let event = events.pop().unwrap();
        assert!(events.is_empty());
        let stored = event.encode();
        let event = HealthBatchEvent::decode("health_batch.applied", &stored.payload, &stored.blob);
        let HealthBatchEvent::Applied(applied) = event.unwrap();
        let HealthBatchEvent::Applied(decided) =
            HealthBatch::default().decide(&command, &context).unwrap().remove(0);
        assert_eq!(applied, decided, "the stored form is the event");
        let writes = plan(&context.segments, &applied.rows());
        assert!(applied.facts.changed || writes.is_empty());
        self.store.apply(writes);
        self.tombstones.extend(applied.tombstoned.iter().cloned());
        self.health_seq = applied.facts.health_seq;
        self.folded.apply(&applied);
        self.events.push((*applied).clone());
        Ok(*applied)
    }

    fn submit(&mut self, batch: &Batch) -> Applied {
        let received_seq = self.next_seq;
        self.next_seq += 1;
        self.submit_as(received_seq, batch).unwrap()
    }

    fn upload(&mut self, samples: &[Value], deleted: &[Value]) -> Applied {
        self.submit(&batch(samples, deleted))
    }

    fn rows(&self) -> BTreeMap<Key, Sample> {
        self.store.samples().into_iter().map(|row| (row.key.clone(), row)).collect()
    }

    /// The facts that do not depend on how an upload was cut into batches.
    fn content(&self) -> (Vec<Sample>, BTreeSet<Tombstone>) {
        let plain = |row: Sample| Sample { batch_seq: 0, ..row };
        (self.store.samples().into_iter().map(plain).collect(), self.tombstones.clone())
    }
}

fn answer(applied: &Applied, batch: &Batch) -> Answer {
    render(applied, batch, &|key| Uuid::from_u128(u128::from(key.start_ms.unsigned_abs())))
}
