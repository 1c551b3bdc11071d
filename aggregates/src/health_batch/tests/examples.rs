//! Given, when, then.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::test::TestFramework;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::metric::{Metric, Micro};
use crate::segment::OffsetSource;

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
fn metadata_keeps_known_keys_without_control_characters() {
    let metadata =
        json!({"osName": "i\u{0}OS", "isManualEntry": true, "secret": 1, "deviceModel": null});
    let sample = with(heart_rate("a", MARCH, 61.0), "metadata", metadata);
    let mut person = Person::default();
    let applied = person.upload(&[with(sample, "deviceId", json!("x\u{0}y"))], &[]);
    let row = &applied.recorded[0];
    assert_eq!(
        json!(**row.metadata.as_ref().unwrap()),
        json!({"osName": "iOS", "isManualEntry": true})
    );
    assert_eq!(row.device_id.as_deref(), Some("xy"));
    // What a later version leaves out stays.
    let bare = person.upload(&[heart_rate("a", MARCH, 62.0)], &[]);
    assert_eq!(bare.corrected[0].after.metadata, row.metadata);
    assert_eq!(bare.corrected[0].after.device_id, row.device_id);
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

    // A block on HRV means both kinds of it.
    person.settings.blocked = BTreeSet::from([Metric::HRV_SDNN]);
    let hrv = with(heart_rate("h", MARCH, 61.0), "metricCode", json!("heart_rate_variability"));
    let hrv = with(hrv, "unit", json!("ms"));
    let hrv = with(hrv, "sourceId", json!("google_health_connect"));
    let blocked = person.upload(std::slice::from_ref(&hrv), &[]);
    assert_eq!(blocked.samples, [SampleOutcome::PrivacyBlocked]);
    person.settings.blocked.clear();
    assert_eq!(person.upload(&[hrv], &[]).recorded[0].metric, Metric::HRV_RMSSD);

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
        answer.data.failed.iter().map(|item| &*item.source_record_id).collect();
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
fn the_stored_event_is_the_one_on_disk() {
    let mut person = Person::default();
    person.upload(&[heart_rate("a", MARCH, 61.0), heart_rate("b", MARCH, 62.0)], &[]);
    let mut applied = person.upload(
        &[heart_rate("a", MARCH, 63.0), heart_rate("c", MARCH, 1.0)],
        &[deletion("b", None), deletion("d", Some(MARCH))],
    );
    // Every new metric raises it.
    applied.facts.catalogue_version = 1;
    let stored = HealthBatchEvent::Applied(Box::new(applied)).encode();
    // A change here needs a new version of the event and an upcaster.
    assert_eq!(
        stored.payload,
        concat!(
            r#"{"request_id":"00000000-0000-0000-0000-000000000001","received_seq":2,"applied_a"#,
            r#"t_ms":1772496000007,"duration_ms":7,"config_version":3,"catalogue_version":1,"re"#,
            r#"quest_offset_min":60,"changed":true,"health_seq":2,"counts":{"samples":2,"deleti"#,
            r#"ons":2,"recorded":0,"corrected":1,"unchanged":0,"superseded":0,"refused":1,"dele"#,
            r#"ted":1,"tombstoned":2},"affected":{"days":{"heart_rate":["2026-03-01"]},"nights""#,
            r#":[],"range_start_ms":1772323200000,"range_end_ms":1772323200000,"offset_min":60,"#,
            r#""offset_max":60},"refused":[]}"#,
        )
    );
    assert_eq!(
        hex::encode(stored.blob),
        concat!(
            "010201011b0102000102010000410101010180f08eeb9467000101010101067a0101ec0201010f61",
            "70706c655f6865616c74686b69740101000001000100000102018ed0f48f96670100010001000105",
            "0101010161410101010180f08eeb9467000101010101067e0101ec0201010f6170706c655f686561",
            "6c74686b69740101000001000100000104018ed0f48f966701000100010001050101010161420101",
            "010180f08eeb9467000101010101067c0101ec0201010f6170706c655f6865616c74686b69740101",
            "000001000100000104018ed0f48f9667010101000001000105010101016202010f6170706c655f68",
            "65616c74686b697401020001010180f08eeb94670702010201620164",
        )
    );
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
    let text = text.replace(&"0".repeat(64), &canonical::sha256(expected));
    assert!(Batch::parse(text.as_bytes()).unwrap().hash_matched);
}
