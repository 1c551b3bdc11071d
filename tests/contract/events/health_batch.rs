use aggregates::health_batch::{
    Affected, Applied, Correction, Counts, DeletionOutcome, Facts, HealthBatchEvent, RefusalReason,
    RefusedRange, SampleOutcome, Tombstone,
};
use aggregates::metric::{Metric, Micro};
use aggregates::segment::{Key, OffsetSource, Revision, Sample};
use chrono::{DateTime, NaiveDate};
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::parts::id;

/// 2026-03-02T07:00:00Z.
const MORNING: i64 = 1_772_434_800_000;

pub fn event() -> impl Strategy<Value = HealthBatchEvent> {
    applied().prop_map(|applied| HealthBatchEvent::Applied(Box::new(applied)))
}

prop_compose! {
    fn applied()(
        facts in facts(),
        samples in prop::collection::vec(sample_outcome(), 0..6),
        deletions in prop::collection::vec(deletion_outcome(), 0..4),
        rows in prop::collection::vec(row(), 0..9),
        tombstoned in prop::collection::vec(tombstone(), 0..4),
    ) -> Applied {
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        for (index, row) in rows.into_iter().enumerate() {
            sections[index % 3].push(row);
        }
        for section in &mut sections {
            section.sort_by(|a, b| a.key.cmp(&b.key));
            section.dedup_by(|a, b| a.key == b.key);
        }
        let [recorded, before, deleted] = sections;
        let corrected = before.into_iter().map(corrected).collect();
        let mut tombstoned = tombstoned;
        tombstoned.sort();
        tombstoned.dedup();
        Applied { facts, samples, deletions, recorded, corrected, deleted, tombstoned }
    }
}

fn corrected(before: Sample) -> Correction {
    let value = before.value.map(|value| Micro(value.0 + 500_000));
    Correction {
        after: Sample { value, batch_seq: before.batch_seq + 1, ..before.clone() },
        before,
    }
}

fn sample_outcome() -> impl Strategy<Value = SampleOutcome> {
    select((0..=u8::MAX).filter_map(SampleOutcome::from_number).collect::<Vec<_>>())
}

fn deletion_outcome() -> impl Strategy<Value = DeletionOutcome> {
    select((0..=u8::MAX).filter_map(DeletionOutcome::from_number).collect::<Vec<_>>())
}

fn metric() -> impl Strategy<Value = Metric> {
    select(Metric::all().collect::<Vec<_>>())
}

fn date() -> impl Strategy<Value = NaiveDate> {
    (0i64..1000).prop_map(|day| {
        DateTime::from_timestamp_millis(MORNING + day * 86_400_000).unwrap().date_naive()
    })
}

prop_compose! {
    fn row()(
        (start, length) in (0i64..100_000, 0i64..1000),
        (source, record) in (select(vec!["apple_healthkit", "health_connect"]), id()),
        (metric, value) in (metric(), any::<i32>()),
        (offset_min, deleted) in (prop::option::of(-720i16..=840), any::<bool>()),
        (record_version, modified_ms) in any::<(Option<i64>, Option<i64>)>(),
    ) -> Sample {
        let start_ms = MORNING + start * 1000;
        Sample {
            key: Key { start_ms, source_id: source.into(), record_id: record.to_string().into() },
            metric,
            end_ms: start_ms + length * 1000,
            value: Some(Micro(i64::from(value))),
            category: None,
            duration_s: u32::try_from(length).ok(),
            offset_min,
            offset_source: offset_min.map_or(OffsetSource::None, |_| OffsetSource::Sample),
            device_id: None,
            external_uuid: None,
            metadata: None,
            revision: Revision { record_version, modified_ms },
            batch_seq: 3,
            created_ms: MORNING,
            deleted_ms: deleted.then_some(MORNING + 1),
        }
    }
}

prop_compose! {
    fn tombstone()(source in "[a-c]", record in id(), start_ms in any::<Option<i64>>()) -> Tombstone {
        Tombstone { source_id: source.into(), record_id: record.to_string().into(), start_ms }
    }
}

prop_compose! {
    fn facts()(
        request_id in id(),
        (received_seq, applied_at_ms, duration_ms, health_seq) in any::<(i64, i64, i64, i64)>(),
        (config_version, catalogue_version, changed) in any::<(u32, u32, bool)>(),
        request_offset_min in any::<Option<i16>>(),
        counts in counts(),
        affected in prop::option::of(affected()),
        refused in prop::collection::vec(refused(), 0..3),
    ) -> Facts {
        Facts {
            request_id, received_seq, applied_at_ms, duration_ms, config_version,
            catalogue_version, request_offset_min, changed, health_seq, counts, affected, refused,
        }
    }
}

prop_compose! {
    fn counts()(
        (samples, deletions, recorded, corrected) in any::<(u32, u32, u32, u32)>(),
        (unchanged, superseded, refused, deleted) in any::<(u32, u32, u32, u32)>(),
        tombstoned in any::<u32>(),
    ) -> Counts {
        Counts {
            samples, deletions, recorded, corrected, unchanged, superseded, refused, deleted,
            tombstoned,
        }
    }
}

prop_compose! {
    fn affected()(
        days in prop::collection::btree_map(
            metric(), prop::collection::btree_set(date(), 1..3), 0..3,
        ),
        nights in prop::collection::btree_set(date(), 0..3),
        (range_start_ms, range_end_ms) in any::<(i64, i64)>(),
        (offset_min, offset_max) in any::<(Option<i16>, Option<i16>)>(),
    ) -> Affected {
        Affected { days, nights, range_start_ms, range_end_ms, offset_min, offset_max }
    }
}

prop_compose! {
    fn refused()(
        reason in select(vec![RefusalReason::Privacy, RefusalReason::UnknownMetric]),
        metric in "[a-z_]{1,20}",
        (from_ms, to_ms, count) in any::<(i64, i64, u32)>(),
    ) -> RefusedRange {
        RefusedRange { reason, metric, from_ms, to_ms, count }
    }
}

/// A morning's upload in which everything happens that can happen to a batch.
fn morning() -> Applied {
    let row = |seed: u128, minute: i64, beats: i64| {
        let start_ms = MORNING + minute * 60_000;
        let record = Uuid::from_u128(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        Sample {
            key: Key {
                start_ms,
                source_id: "apple_healthkit".into(),
                record_id: record.to_string().into(),
            },
            metric: Metric::HEART_RATE,
            end_ms: start_ms,
            value: Some(Micro::whole(beats)),
            category: None,
            duration_s: Some(0),
            offset_min: Some(60),
            offset_source: OffsetSource::Request,
            device_id: None,
            external_uuid: None,
            metadata: None,
            revision: Revision::default(),
            batch_seq: 12,
            created_ms: MORNING + 3_600_000,
            deleted_ms: None,
        }
    };
    let before = Sample { batch_seq: 11, ..row(3, 2, 71) };
    let after = Sample { value: Some(Micro::whole(70)), batch_seq: 12, ..before.clone() };
    let deleted = Sample { deleted_ms: Some(MORNING + 3_600_000), ..row(4, 3, 140) };
    let day = DateTime::from_timestamp_millis(MORNING).unwrap().date_naive();
    Applied {
        facts: Facts {
            request_id: Uuid::from_u128(0x0195_5b6e_1a40_7c3e_9d2f_6a1b_8c4d_e5f0),
            received_seq: 12,
            applied_at_ms: MORNING + 3_600_000,
            duration_ms: 9,
            config_version: 1,
            catalogue_version: 1,
            request_offset_min: Some(60),
            changed: true,
            health_seq: 8,
            counts: Counts {
                samples: 4,
                deletions: 2,
                recorded: 2,
                corrected: 1,
                unchanged: 0,
                superseded: 0,
                refused: 1,
                deleted: 1,
                tombstoned: 1,
            },
            affected: Some(Affected {
                days: [(Metric::HEART_RATE, [day].into())].into(),
                nights: [].into(),
                range_start_ms: MORNING,
                range_end_ms: MORNING + 180_000,
                offset_min: Some(60),
                offset_max: Some(60),
            }),
            refused: vec![RefusedRange {
                reason: RefusalReason::Privacy,
                metric: "weight".to_owned(),
                from_ms: MORNING,
                to_ms: MORNING,
                count: 1,
            }],
        },
        samples: vec![
            SampleOutcome::Recorded,
            SampleOutcome::Recorded,
            SampleOutcome::Corrected,
            SampleOutcome::PrivacyBlocked,
        ],
        deletions: vec![DeletionOutcome::Deleted, DeletionOutcome::NotFound],
        recorded: vec![row(1, 0, 62), row(2, 1, 64)],
        corrected: vec![Correction { before, after }],
        deleted: vec![deleted],
        tombstoned: vec![Tombstone {
            source_id: "apple_healthkit".into(),
            record_id: Uuid::from_u128(99).to_string().into(),
            start_ms: None,
        }],
    }
}

/// The packed bytes on disk mean this batch, and not just any that decodes.
#[test]
fn the_released_example_is_the_morning() {
    use aggregates::StoredEvent;
    use base64::Engine;
    let released = crate::released::all();
    let example = released.iter().find(|r| r.event_type == "health_batch.applied").unwrap();
    let event = HealthBatchEvent::decode("health_batch.applied", &example.payload, &example.packed);
    let expected = HealthBatchEvent::Applied(Box::new(morning()));
    let encoded = expected.encode();
    let packed = base64::engine::general_purpose::STANDARD.encode(encoded.blob);
    let file = format!("{{\"payload\":{},\"packed\":\"{packed}\"}}", encoded.payload);
    assert_eq!(event, Ok(expected), "the example of a new version would be {file}");
}
