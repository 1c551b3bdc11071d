//! Histories of one person's uploads against a model store that loads and writes segments as the
//! server does. Invariants carry the numbers of the health ingestion list.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::test::TestFramework;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::event::StoredEvent;
use crate::metric::{Metric, Micro};
use crate::segment::tests::Store;
use crate::segment::{Key, LoadedSegment, OffsetSource, Sample, plan};

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

// ---- given, when, then -------------------------------------------------------------------------

#[test]
fn a_batch_is_applied_once() {
    let person = Person::default();
    let batch = batch(&[heart_rate("a", MARCH, 61.0)], &[]);
    let context = person.context(&batch, 1);
    let command = || HealthBatchCommand::Submit(Box::new(batch.clone()));
    let events = HealthBatch::default().decide(&command(), &context).unwrap();
    let framework = || TestFramework::<HealthBatch>::with(context.clone());
    framework().given_no_previous_events().when(command()).then_expect_events(events.clone());
    let again = framework().given(events).when(command()).inspect_result();
    assert_eq!(again, Err(HealthBatchError::AlreadyApplied));
}

#[test]
fn a_new_sample_is_stored_as_it_was_resolved() {
    let mut person = Person::default();
    let applied = person.upload(&[heart_rate("ABC", MARCH + 23 * HOUR, 61.5)], &[]);
    assert_eq!(applied.samples, [SampleOutcome::Recorded]);
    let row = &applied.recorded[0];
    assert_eq!(&*row.key.record_id, "abc");
    assert_eq!(row.value, Some(Micro(61_500_000)));
    assert_eq!((row.offset_min, row.offset_source), (Some(60), OffsetSource::Request));
    assert_eq!(row.created_ms, person.settings.now_ms);
    let affected = applied.facts.affected.as_ref().unwrap();
    let days: Vec<String> =
        affected.days[&Metric::HEART_RATE].iter().map(ToString::to_string).collect();
    // 23:00 UTC is midnight at +60.
    assert_eq!(days, ["2026-03-02"]);
    assert!(affected.nights.is_empty());
    assert_eq!((applied.facts.health_seq, applied.facts.duration_ms), (1, 7));
}

#[test]
fn nights_run_from_noon_to_noon() {
    let mut person = Person::default();
    person.settings.request_offset_min = Some(0);
    let applied = person.upload(&[sleep("n", MARCH - HOUR, MARCH + 13 * HOUR)], &[]);
    let affected = applied.facts.affected.unwrap();
    let nights: Vec<String> = affected.nights.iter().map(ToString::to_string).collect();
    assert_eq!(nights, ["2026-02-28", "2026-03-01"]);
    assert_eq!(affected.days[&Metric::SLEEP_STAGE].len(), 2);
}

#[test]
fn every_fault_of_a_sample_has_its_code() {
    let good = || heart_rate("a", MARCH, 61.0);
    let cases = [
        (with(good(), "metricCode", json!("mood")), "INVALID_METRIC_CODE"),
        (with(good(), "metricCode", json!(7)), "VALIDATION_ERROR"),
        (with(good(), "valueKind", json!("CATEGORY")), "VALIDATION_ERROR"),
        (with(good(), "value", json!(-1)), "VALIDATION_ERROR"),
        (with(good(), "value", json!("61")), "VALIDATION_ERROR"),
        (with(good(), "value", Value::Null), "VALIDATION_ERROR"),
        (with(good(), "value", json!(1e300)), "VALUE_OUT_OF_BOUNDS"),
        (with(good(), "value", json!(401)), "VALUE_OUT_OF_BOUNDS"),
        (with(good(), "unit", json!("Hz")), "INVALID_UNIT"),
        (with(good(), "categoryCode", json!("deep")), "INVALID_CATEGORY_CODE"),
        (with(good(), "endAt", json!(iso(MARCH - 1))), "VALIDATION_ERROR"),
        (with(good(), "endAt", json!(iso(MARCH + 73 * HOUR))), "VALIDATION_ERROR"),
        (with(good(), "startAt", json!("1969-12-31T23:59:59Z")), "VALIDATION_ERROR"),
        (with(good(), "durationSeconds", json!(-1)), "VALIDATION_ERROR"),
        (with(good(), "durationSeconds", json!(1.5)), "VALIDATION_ERROR"),
        (with(good(), "timezoneOffsetMinutes", json!(841)), "VALIDATION_ERROR"),
        (with(good(), "metadata", json!([])), "VALIDATION_ERROR"),
        (with(good(), "metadata", json!({"osName": "x".repeat(5000)})), "VALIDATION_ERROR"),
        (with(good(), "metadata", json!({"osName": {"a": {"b": {}}}})), "VALIDATION_ERROR"),
        (with(good(), "colour", json!("red")), "VALIDATION_ERROR"),
        (with(sleep("a", MARCH, MARCH), "categoryCode", json!("nap")), "INVALID_CATEGORY_CODE"),
        (with(sleep("a", MARCH, MARCH), "value", json!(1)), "VALUE_OUT_OF_BOUNDS"),
        (sleep("a", MARCH, MARCH), "TIMEZONE_REQUIRED"),
    ];
    for (sample, code) in cases {
        let mut person = Person::default();
        person.settings.request_offset_min = None;
        // One bad sample touches no other.
        let batch = batch(&[heart_rate("other", MARCH, 70.0), sample.clone()], &[]);
        let applied = person.submit(&batch);
        let answer = answer(&applied, &batch);
        assert_eq!(answer.status, 207);
        assert_eq!(answer.data.successful.len(), 1, "{sample}");
        assert_eq!(answer.data.failed[0].error_code, code, "{sample}");
        assert_eq!(answer.data.failed[0].retryable, code == "TIMEZONE_REQUIRED");
        assert_eq!(person.rows().len(), 1);
    }
}

#[test]
fn only_the_envelope_and_correlation_fail_a_batch() {
    let good = || heart_rate("a", MARCH, 61.0);
    for (sample, fails) in [
        (with(good(), "sourceId", json!("")), true),
        (with(good(), "sourceRecordId", json!(" a")), true),
        (with(good(), "startAt", json!("yesterday")), true),
        (with(good(), "startAt", Value::Null), true),
        (with(good(), "endAt", json!("later")), false),
    ] {
        assert_eq!(Batch::parse(&body(1, &[sample], &[])).is_err(), fails);
    }
    assert!(Batch::parse(&body(1, &[], &[])).is_err());
    assert!(Batch::parse(&body(1, &[], &[deletion("a", None)])).is_ok());
    assert!(Batch::parse(&body(1, &vec![good(); 501], &[])).is_err());
    assert!(Batch::parse(b"[").is_err());
    let newer = String::from_utf8(body(1, &[good()], &[])).unwrap();
    let newer = newer.replace("\"configVersion\":3", "\"configVersion\":4");
    assert_eq!(Batch::parse(newer.as_bytes()), Err(BatchError::ConfigVersionTooNew));
}

#[test]
fn the_first_valid_duplicate_wins() {
    let mut person = Person::default();
    let applied = person.upload(
        &[heart_rate("a", MARCH, 5.0), heart_rate("a", MARCH, 61.0), heart_rate("A", MARCH, 62.0)],
        &[],
    );
    assert_eq!(applied.recorded[0].value, Some(Micro::whole(61)));
    let codes: BTreeMap<SampleOutcome, usize> =
        applied.samples.iter().fold(BTreeMap::new(), |mut counts, outcome| {
            *counts.entry(*outcome).or_default() += 1;
            counts
        });
    let expected = [
        (SampleOutcome::Recorded, 1),
        (SampleOutcome::OutOfRange, 1),
        (SampleOutcome::Duplicate, 1),
    ];
    assert_eq!(codes, expected.into_iter().collect());
}

#[test]
fn a_correction_names_the_days_of_both_versions() {
    let mut person = Person::default();
    person.upload(&[heart_rate("a", MARCH + 23 * HOUR + HOUR / 2, 61.0)], &[]);
    let moved = heart_rate("a", MARCH + 23 * HOUR + HOUR / 2, 61.0);
    let applied = person.upload(&[with(moved, "timezoneOffsetMinutes", json!(-60))], &[]);
    assert_eq!(applied.samples, [SampleOutcome::Corrected]);
    assert_eq!(applied.corrected[0].before.offset_min, Some(60));
    assert_eq!(applied.facts.affected.unwrap().days[&Metric::HEART_RATE].len(), 2);
    // A header's offset never replaces one that is known.
    person.settings.request_offset_min = Some(120);
    let later = person.upload(&[heart_rate("a", MARCH + 23 * HOUR + HOUR / 2, 61.0)], &[]);
    assert_eq!(later.samples, [SampleOutcome::Unchanged]);
}

#[test]
fn a_record_version_beats_the_order_of_receipt() {
    let version = |value: f64, version: i64| {
        with(heart_rate("a", MARCH, value), "recordVersion", json!(version))
    };
    let mut person = Person::default();
    person.upload(&[version(61.0, 2)], &[]);
    assert_eq!(person.upload(&[version(60.0, 1)], &[]).samples, [SampleOutcome::Superseded]);
    assert_eq!(person.upload(&[version(61.0, 2)], &[]).samples, [SampleOutcome::Unchanged]);
    assert_eq!(person.upload(&[version(62.0, 2)], &[]).samples, [SampleOutcome::Corrected]);
    assert_eq!(person.upload(&[version(62.0, 3)], &[]).samples, [SampleOutcome::Corrected]);
    assert_eq!(person.health_seq, 3);
}

#[test]
fn a_key_under_another_metric_is_refused() {
    let mut person = Person::default();
    person.upload(&[heart_rate("a", MARCH, 61.0)], &[]);
    let other = with(heart_rate("a", MARCH, 61.0), "metricCode", json!("resting_heart_rate"));
    assert_eq!(person.upload(&[other], &[]).samples, [SampleOutcome::KeyReused]);
}

#[test]
fn a_lossless_deletion_takes_every_start_and_what_comes_later() {
    let mut person = Person::default();
    let series: Vec<Value> = (0..3).map(|n| heart_rate("a", MARCH + n * HOUR, 61.0)).collect();
    person.upload(&series, &[]);
    person.upload(&[], &[deletion("a", Some(MARCH))]);
    let applied = person.upload(&[], &[deletion("a", None), deletion("a", None)]);
    assert_eq!(applied.facts.counts.deleted, 2);
    assert_eq!(applied.deletions, [DeletionOutcome::Deleted, DeletionOutcome::AlreadyDeleted]);
    let later = person.upload(&[heart_rate("a", MARCH + 9 * HOUR, 61.0)], &[]);
    assert_eq!(later.samples, [SampleOutcome::Tombstoned]);
    assert!(!later.facts.changed);
}

#[test]
fn an_unknown_deletion_is_told_and_remembered() {
    let mut person = Person::default();
    let request = batch(&[], &[deletion("a", Some(MARCH)), deletion("a", Some(MARCH))]);
    let applied = person.submit(&request);
    let answer = answer(&applied, &request);
    let failed = &answer.data.deletions.as_ref().unwrap().failed;
    assert_eq!(failed.len(), 2);
    assert_eq!((failed[0].error_code, failed[0].retryable), ("DELETE_NOT_FOUND", false));
    assert_eq!((answer.status, applied.tombstoned.len(), person.health_seq), (207, 1, 0));
    let create = person.upload(&[heart_rate("A", MARCH, 61.0)], &[]);
    assert_eq!(create.samples, [SampleOutcome::Tombstoned]);
    let sibling = person.upload(&[heart_rate("a", MARCH + 1, 61.0)], &[]);
    assert_eq!(sibling.samples, [SampleOutcome::Recorded]);
}

#[test]
fn health_28_privacy_keeps_samples_out_and_lets_deletions_in() {
    let mut person = Person::default();
    person.upload(&[heart_rate("a", MARCH, 61.0)], &[]);
    person.settings.blocked = BTreeSet::from([Metric::HEART_RATE]);
    let applied = person.upload(&[heart_rate("b", MARCH, 61.0), sleep("c", MARCH, MARCH + 9)], &[]);
    assert_eq!(applied.facts.counts.refused, 1);
    let range = &applied.facts.refused[0];
    assert_eq!((range.reason, range.count), (RefusalReason::Privacy, 1));
    assert_eq!((range.metric.as_str(), range.from_ms), ("heart_rate", MARCH));

    person.settings.uploads_allowed = false;
    let samples_only = batch(&[heart_rate("d", MARCH, 61.0)], &[]);
    assert_eq!(person.submit_as(9, &samples_only), Err(HealthBatchError::UploadsDisabled));
    let mixed = person.upload(&[sleep("d", MARCH, MARCH + 9)], &[deletion("a", Some(MARCH))]);
    assert_eq!(mixed.samples, [SampleOutcome::PrivacyBlocked]);
    assert_eq!(mixed.deletions, [DeletionOutcome::Deleted]);
}

#[test]
fn failures_are_listed_privacy_first_then_validation_then_persistence() {
    let mut person = Person::default();
    person.upload(&[], &[deletion("gone", Some(MARCH))]);
    person.settings.blocked = BTreeSet::from([Metric::SLEEP_STAGE]);
    let request = batch(
        &[
            heart_rate("gone", MARCH, 61.0),
            heart_rate("low", MARCH, 1.0),
            sleep("s", MARCH, MARCH + 9),
        ],
        &[],
    );
    let applied = person.submit(&request);
    let answer = answer(&applied, &request);
    let records: Vec<&str> =
        answer.data.failed.iter().map(|item| item.source_record_id.as_str()).collect();
    assert_eq!(records, ["s", "low", "gone"]);
    assert!(answer.data.deletions.is_none() && answer.data.metrics.deleted_count.is_none());
}

#[test]
fn the_answer_has_the_wire_s_shape() {
    let mut person = Person::default();
    let request =
        batch(&[heart_rate("B1", MARCH, 61.0)], &[deletion("b1", None), deletion("x", None)]);
    let applied = person.submit(&request);
    let answer = serde_json::to_value(answer(&applied, &request).data).unwrap();
    let expected = json!({
        "successful": [{
            "sourceId": "apple_healthkit", "sourceRecordId": "b1",
            "startAt": "2026-03-01T00:00:00.000Z",
            "serverId": Uuid::from_u128(MARCH as u128),
        }],
        "failed": [],
        "deletions": {
            "successful": [{
                "sourceId": "apple_healthkit", "sourceRecordId": "b1", "alreadyDeleted": false,
            }],
            "failed": [{
                "sourceId": "apple_healthkit", "sourceRecordId": "x",
                "error": "the record is not known", "errorCode": "DELETE_NOT_FOUND",
                "retryable": false,
            }],
        },
        "metrics": {
            "totalReceived": 1, "successfulCount": 1, "failedCount": 0, "deletedCount": 1,
            "durationMs": 7,
        },
    });
    assert_eq!(answer, expected);
}

#[test]
fn an_unchanged_upload_leaves_a_small_event() {
    let mut person = Person::default();
    let samples: Vec<Value> = (0..500u128)
        .map(|n| {
            let id = Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            heart_rate(&id.to_string(), MARCH + n as i64 * 60_000, 60.0 + (n % 40) as f64)
        })
        .collect();
    let size = |applied: Applied| HealthBatchEvent::Applied(Box::new(applied)).encode().blob.len();
    let fresh = size(person.upload(&samples, &[]));
    println!("event: {:.1} B/sample before compression", fresh as f64 / 500.0);
    assert!(fresh < 500 * 22);
    let again = person.upload(&samples, &[]);
    assert_eq!(again.facts.counts.unchanged, 500);
    assert!(size(again) < 40);
}

#[test]
fn hashes_of_the_wire_are_checked_over_the_canonical_text() {
    let samples = [heart_rate("A", MARCH, 61.0)];
    let deleted = [with(deletion("b", Some(MARCH)), "deletedAt", json!("2026-03-01T06:20:00Z"))];
    let parsed = batch(&samples, &deleted);
    let expected = concat!(
        r#"{"deleted":[{"sourceId":"apple_healthkit","sourceRecordId":"b","#,
        r#""startAt":"2026-03-01T00:00:00+00:00"}],"samples":[{"durationSeconds":0,"#,
        r#""endAt":"2026-03-01T00:00:00+00:00","metricCode":"heart_rate","#,
        r#""sourceId":"apple_healthkit","sourceRecordId":"a","#,
        r#""startAt":"2026-03-01T00:00:00+00:00","unit":"bpm","value":61,"#,
        r#""valueKind":"SCALAR_NUM"}]}"#
    );
    assert_eq!(parsed.content, expected);
    assert!(!parsed.hash_matched);
    let text = String::from_utf8(body(1, &samples, &deleted)).unwrap();
    let text = text.replace(&"0".repeat(64), &super::canonical::sha256(expected));
    assert!(Batch::parse(text.as_bytes()).unwrap().hash_matched);
}

// ---- histories ---------------------------------------------------------------------------------

/// A sample among few keys, so that histories collide; some are faulty.
fn any_sample() -> impl Strategy<Value = Value> {
    let metric = prop::sample::select(vec![
        ("heart_rate", "SCALAR_NUM", "bpm"),
        ("steps", "CUMULATIVE_NUM", "count"),
        ("weight", "SCALAR_NUM", "lb"),
        ("mood", "SCALAR_NUM", "x"),
        ("sleep_stage", "CATEGORY", ""),
    ]);
    let record =
        prop::sample::select(vec!["a", "A", "b", "c", "00000000-0000-0000-0000-0000000000aB"]);
    (
        metric,
        record,
        prop::sample::select(vec!["s", "google_health_connect"]),
        0i64..3,
        0i64..3,
        0u32..600,
        prop::option::weighted(0.3, prop::sample::select(vec![-720, 0, 120, 900])),
        prop::option::weighted(0.2, Just("w")),
    )
        .prop_map(|((code, kind, unit), record, source, start, length, value, offset, device)| {
            let start = MARCH + start * 13 * HOUR;
            let mut sample = json!({
                "sourceId": source, "sourceRecordId": record, "metricCode": code,
                "valueKind": kind, "startAt": iso(start), "endAt": iso(start + length * 7 * HOUR),
                "timezoneOffsetMinutes": offset, "deviceId": device,
            });
            if kind == "CATEGORY" {
                sample["categoryCode"] = json!(["deep", "rem", "nap"][value as usize % 3]);
            } else {
                sample["value"] = json!(f64::from(value) / 2.0);
                sample["unit"] = json!(unit);
            }
            sample
        })
}

fn any_deletion() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["a", "b", "B", "c", "d"]),
        prop::sample::select(vec!["s", "google_health_connect"]),
        prop::option::weighted(0.7, 0i64..3),
    )
        .prop_map(|(record, source, start)| {
            let start = start.map(|start| iso(MARCH + start * 13 * HOUR));
            json!({
                "sourceId": source, "sourceRecordId": record, "startAt": start,
                "deletedAt": iso(MARCH),
            })
        })
}

prop_compose! {
    fn any_upload()(
        samples in prop::collection::vec(any_sample(), 0..8),
        deleted in prop::collection::vec(any_deletion(), 0..4),
        fallback in any_sample(),
        offset in prop::option::of(prop::sample::select(vec![60i16, -300])),
    ) -> (Vec<Value>, Vec<Value>, Option<i16>) {
        let samples = if samples.is_empty() && deleted.is_empty() { vec![fallback] } else { samples };
        (samples, deleted, offset)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // One row a key (1), deletion is final (8), the fold equals the rows (12), every item is
    // answered once (13), 207 iff something failed (14), refused samples leave no trace (16),
    // stored form (17), sleep has an offset (20), the watermark counts changes (21, 22, 23),
    // affected covers all changes (24).
    #[test]
    fn health_01_08_12_13_14_16_17_20_21_22_23_24_histories(
        uploads in prop::collection::vec(any_upload(), 1..12),
    ) {
        let mut person = Person::default();
        let mut changing = Vec::new();
        for (samples, deleted, offset) in uploads {
            person.settings.request_offset_min = offset;
            let before = person.rows();
            let request = batch(&samples, &deleted);
            let seq_before = person.health_seq;
            let applied = person.submit(&request);
            let after = person.rows();
            prop_assert_eq!(after.len(), person.store.samples().len());
            for (key, row) in &before {
                prop_assert!(row.is_active() || !after[key].is_active());
            }
            prop_assert_eq!(&person.folded.rows, &after);
            prop_assert_eq!(&person.folded.tombstones, &person.tombstones);
            let mut rebuilt = Samples::default();
            person.events.iter().for_each(|event| rebuilt.apply(event));
            prop_assert_eq!(&rebuilt, &person.folded);

            let changed = before != after;
            prop_assert_eq!(applied.facts.changed, changed);
            prop_assert_eq!(person.health_seq, seq_before + i64::from(changed));
            if changed {
                changing.push(person.health_seq);
            }

            let answer = answer(&applied, &request);
            let data = &answer.data;
            prop_assert_eq!(data.successful.len() + data.failed.len(), samples.len());
            prop_assert_eq!(data.metrics.total_received, samples.len());
            let deletions = data.deletions.clone().unwrap_or_default();
            prop_assert_eq!(deletions.successful.len() + deletions.failed.len(), deleted.len());
            let clean = data.failed.is_empty() && deletions.failed.is_empty();
            prop_assert_eq!(answer.status, if clean { 200 } else { 207 });
            for item in &data.successful {
                let stored = after.keys().any(|key| {
                    *key.source_id == *item.source_id && *key.record_id == *item.source_record_id
                });
                prop_assert!(stored);
            }

            for row in after.values() {
                let definition = row.metric.definition();
                prop_assert_eq!(row.value.is_some(), definition.unit.is_some());
                prop_assert_eq!(row.category.is_some(), definition.unit.is_none());
                prop_assert!(!row.metric.is_sleep() || row.offset_min.is_some());
                if let Some(value) = row.value {
                    prop_assert!(value >= definition.range.0 && value <= definition.range.1);
                }
            }
            for (key, row) in &after {
                let old = before.get(key);
                if old == Some(row) {
                    continue;
                }
                let affected = applied.facts.affected.as_ref().unwrap();
                for version in old.into_iter().chain([row]) {
                    let days = &affected.days[&version.metric];
                    prop_assert!(version.local_dates().all(|date| days.contains(&date)));
                    prop_assert!(affected.range_start_ms <= version.key.start_ms);
                    prop_assert!(affected.range_end_ms >= version.end_ms);
                }
            }
        }
        prop_assert_eq!(changing, (1..=person.health_seq).collect::<Vec<_>>());
    }

    // A repeated upload changes nothing and answers alike (2, 5); a replay finds its outcomes in
    // any permutation of the request.
    #[test]
    fn health_02_05_repeats_change_nothing(
        earlier in prop::collection::vec(any_upload(), 0..4),
        (samples, deleted, _) in any_upload(),
    ) {
        let mut person = Person::default();
        for (samples, deleted, _) in earlier {
            person.upload(&samples, &deleted);
        }
        let request = batch(&samples, &deleted);
        let applied = person.submit(&request);
        let (rows, seq, marks) = (person.rows(), person.health_seq, person.tombstones.clone());
        let again = person.submit(&request);
        prop_assert_eq!((person.rows(), person.health_seq, person.tombstones.clone()),
            (rows, seq, marks));
        prop_assert!(!again.facts.changed && again.rows().is_empty());
        prop_assert!(again.tombstoned.is_empty());

        let reversed: Vec<Value> = samples.iter().rev().cloned().collect();
        let permuted = batch(&reversed, &deleted);
        prop_assert_eq!(&permuted.content, &request.content);
        let sorted = |request: &Batch| {
            let mut data = answer(&applied, request).data;
            data.successful.sort_by_key(|item| format!("{item:?}"));
            data.failed.sort_by_key(|item| format!("{item:?}"));
            data
        };
        prop_assert_eq!(sorted(&permuted), sorted(&request));
    }

    // Splitting a batch or permuting distinct keys gives the same rows (4); one bad sample
    // affects no other (15).
    #[test]
    fn health_04_15_splits_and_permutations_agree(
        uploads in prop::collection::vec(any_sample(), 1..12),
    ) {
        let mut seen = BTreeSet::new();
        let samples: Vec<Value> = uploads
            .into_iter()
            .filter(|s| {
                let record = s["sourceRecordId"].as_str().unwrap().to_lowercase();
                seen.insert((s["sourceId"].to_string(), record, s["startAt"].to_string()))
            })
            .collect();
        let mut whole = Person::default();
        whole.upload(&samples, &[]);
        let mut single = Person::default();
        for sample in samples.iter().rev() {
            single.upload(std::slice::from_ref(sample), &[]);
        }
        prop_assert_eq!(whole.content(), single.content());
    }

    // The hash ignores order, deletedAt, requestId and leaseId; it sees every hashed field (6).
    #[test]
    fn health_06_hash_sees_content_alone((samples, deleted, _) in any_upload()) {
        let first = batch(&samples, &deleted);
        let reversed: Vec<Value> = samples.iter().rev().cloned().collect();
        let undated: Vec<Value> = deleted
            .iter()
            .rev()
            .map(|item| with(item.clone(), "deletedAt", json!(null)))
            .collect();
        let other = Batch::parse(&body(77, &reversed, &undated)).unwrap();
        prop_assert_eq!(&first.content, &other.content);
        for (name, value) in [("endAt", json!("x")), ("unit", json!("y")), ("value", json!(0.25))] {
            if let Some(sample) = samples.first() {
                let mut changed = samples.clone();
                changed[0] = with(sample.clone(), name, value);
                prop_assert_ne!(&batch(&changed, &deleted).content, &first.content);
            }
        }
    }

    // A key that is both created and deleted ends deleted, however the two arrive (9);
    // deleting twice counts once (10).
    #[test]
    fn health_09_10_deletion_wins_in_any_order(
        order in 0..4,
        lossless in any::<bool>(),
        twice in any::<bool>(),
    ) {
        let mut person = Person::default();
        let create = [heart_rate("k", MARCH, 61.0)];
        let mut delete = vec![deletion("K", (!lossless).then_some(MARCH))];
        if twice {
            delete.push(delete[0].clone());
        }
        let mut deleted = 0;
        match order {
            0 => {
                person.upload(&create, &[]);
                deleted += person.upload(&[], &delete).facts.counts.deleted;
            }
            1 => {
                person.upload(&[], &delete);
                person.upload(&create, &[]);
            }
            2 => deleted += person.upload(&create, &delete).facts.counts.deleted,
            _ => {
                person.upload(&[], &delete);
                person.upload(&create, &delete);
                person.upload(&create, &[]);
            }
        }
        prop_assert!(person.folded.active().next().is_none());
        prop_assert!(deleted <= 1);
    }

    // A lossless deletion deletes exactly the active rows of its record (11).
    #[test]
    fn health_11_lossless_is_exact(
        uploads in prop::collection::vec(any_upload(), 1..6),
        record in prop::sample::select(vec!["a", "b", "c"]),
    ) {
        let mut person = Person::default();
        for (samples, deleted, _) in uploads {
            person.upload(&samples, &deleted);
        }
        let before = person.rows();
        let lossless = json!({"sourceId": "s", "sourceRecordId": record});
        let applied = person.upload(&[], &[lossless]);
        let of_record = |key: &Key| *key.source_id == *"s" && *key.record_id == *record;
        let expected: BTreeSet<&Key> = before
            .iter()
            .filter(|(key, row)| of_record(key) && row.is_active())
            .map(|(key, _)| key)
            .collect();
        let deleted: BTreeSet<&Key> = applied.deleted.iter().map(|row| &row.key).collect();
        prop_assert_eq!(deleted, expected);
        prop_assert!(person.rows().iter().all(|(key, row)| !of_record(key) || !row.is_active()));
    }

    // Corrections end at the one received last, whatever the order they are applied in (26).
    #[test]
    fn health_26_the_last_receipt_wins(
        order in Just((1..=5i64).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut person = Person::default();
        for seq in order {
            let request = batch(&[heart_rate("a", MARCH, 60.0 + seq as f64)], &[]);
            person.submit_as(seq, &request).unwrap();
        }
        let rows = person.store.samples();
        prop_assert_eq!((rows[0].value, rows[0].batch_seq), (Some(Micro::whole(65)), 5));
    }

    // Record ids compare without case, starts by the millisecond (19).
    #[test]
    fn health_19_identity_is_lower_case_and_milliseconds(micros in 0u32..1000) {
        let mut person = Person::default();
        let finer = format!("2026-03-01T01:00:00.123{micros:03}+01:00");
        let first = with(heart_rate("aB", MARCH, 61.0), "startAt", json!(finer));
        let first = with(first, "endAt", json!("2026-03-01T00:00:00.123Z"));
        person.upload(&[first], &[]);
        let same = heart_rate("Ab", MARCH + 123, 61.0);
        prop_assert_eq!(person.upload(&[same], &[]).samples, vec![SampleOutcome::Unchanged]);
    }

    #[test]
    fn arbitrary_packed_parts_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        tag in any::<bool>(),
    ) {
        if tag {
            bytes.insert(0, 1);
        }
        let _ = super::blob::unpack(Facts::default(), &bytes);
    }

    #[test]
    fn damaged_packed_parts_never_panic(
        (samples, deleted, _) in any_upload(),
        (at, to) in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let applied = Person::default().upload(&samples, &deleted);
        let mut bytes = super::blob::pack(&applied);
        let place = at.index(bytes.len());
        bytes[place] = to;
        let _ = super::blob::unpack(Facts::default(), &bytes);
        bytes.truncate(place);
        prop_assert!(super::blob::unpack(Facts::default(), &bytes).is_err());
    }

    #[test]
    fn arbitrary_bodies_never_panic(text in "\\PC{0,200}") {
        let _ = Batch::parse(text.as_bytes());
    }
}
