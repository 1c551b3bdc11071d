//! Properties over random histories. Names carry the numbers of the health invariants.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::metric::Micro;

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
        let _ = blob::unpack(Facts::default(), &bytes);
    }

    #[test]
    fn damaged_packed_parts_never_panic(
        (samples, deleted, _) in any_upload(),
        (at, to) in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let applied = Person::default().upload(&samples, &deleted);
        let mut bytes = blob::pack(&applied);
        let place = at.index(bytes.len());
        bytes[place] = to;
        let _ = blob::unpack(Facts::default(), &bytes);
        bytes.truncate(place);
        prop_assert!(blob::unpack(Facts::default(), &bytes).is_err());
    }

    #[test]
    fn arbitrary_bodies_never_panic(text in "\\PC{0,200}") {
        let _ = Batch::parse(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // Loading only what a batch names decides as if everything were loaded, over many segments:
    // one row a key (1), no loss, and the fold equals the segments (12).
    #[test]
    fn health_01_12_partial_loading_decides_as_full(
        uploads in prop::collection::vec((0i64..4000, 1i64..400, 1usize..9, 0i64..3), 2..10),
    ) {
        let mut person = Person::default();
        let mut model: BTreeMap<i64, bool> = BTreeMap::new();
        for (from, n, stride, deletions) in uploads {
            // Twenty minutes apart, so that a batch is read as several ranges where it is sparse.
            let places: Vec<i64> = (from..from + n).step_by(stride).collect();
            let record = |place: i64| format!("record-{}", place / 2);
            let samples: Vec<Value> = places
                .iter()
                .map(|place| heart_rate(&record(*place), place * HOUR / 3, 60.0))
                .collect();
            let deleted: Vec<Value> = (0..deletions)
                .map(|n| match n {
                    0 => deletion(&record(from), Some(from * HOUR / 3)),
                    // Twice as far back: in a segment the samples do not touch.
                    _ => deletion(&record(from / 2), None),
                })
                .collect();
            let applied = person.upload(&samples, &deleted);
            prop_assert!(applied.samples.iter().all(|outcome| matches!(
                outcome,
                SampleOutcome::Recorded | SampleOutcome::Unchanged | SampleOutcome::Tombstoned
            )));
            for place in places {
                let of_record = person.tombstones.iter().any(|t| *t.record_id == *record(place));
                let known = model.contains_key(&place);
                if known || !of_record {
                    model.entry(place).or_insert(true);
                } else if person.rows().keys().any(|key| key.start_ms == place * HOUR / 3) {
                    // Recorded and deleted by the same batch.
                    model.insert(place, false);
                }
            }
            for row in &applied.deleted {
                model.insert(row.key.start_ms * 3 / HOUR, false);
            }
            let rows: BTreeMap<i64, bool> = person
                .store
                .samples()
                .iter()
                .map(|row| (row.key.start_ms * 3 / HOUR, row.is_active()))
                .collect();
            prop_assert_eq!(rows.len(), person.store.samples().len());
            prop_assert_eq!(&rows, &model);
            prop_assert_eq!(&person.folded.rows, &person.rows());
        }
    }
}
