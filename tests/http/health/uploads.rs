//! What an upload stores and answers.

use super::*;
use crate::world::World;

#[tokio::test]
async fn the_answer_has_the_documented_shape() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let request_id = ids::new_id();
    let samples = [heart_rate("R-1", MARCH, 61), sleep("r-2", MARCH, MARCH + HOUR)];
    let answer = ann.send(&body(request_id, &samples, &[deletion("r-9", Some(MARCH))])).await;
    assert_eq!(answer.status, 207, "{}", answer.body);
    assert_eq!(answer.header("x-health-watermark"), "1");
    let data = &answer.body["data"];
    let first = &data["successful"][0];
    assert_eq!(
        (&first["sourceId"], &first["sourceRecordId"], &first["startAt"]),
        (&json!("apple_healthkit"), &json!("r-1"), &json!(iso(MARCH)))
    );
    assert!(Uuid::parse_str(first["serverId"].as_str().unwrap()).is_ok());
    assert_eq!(first.as_object().unwrap().len(), 4, "nothing internal leaks");
    assert_eq!(codes(&data["deletions"]["failed"]), ["DELETE_NOT_FOUND"]);
    assert_eq!(data["metrics"]["totalReceived"], 2);
    assert_eq!(data["metrics"]["deletedCount"], 0);
    assert_eq!(answer.body["metadata"]["requestId"], json!(request_id));
    assert!(answer.body["metadata"]["timestamp"].is_string());

    let plain = ann.upload(&[heart_rate("r-3", MARCH, 61)], &[]).await;
    assert_eq!(plain.status, 200);
    assert_eq!(plain.body["data"].get("deletions"), None);
    assert_eq!(plain.body["data"]["metrics"].get("deletedCount"), None);
    ann.verify().await;
}

#[tokio::test]
async fn health_13_14_15_16_every_item_is_answered_once_and_alone() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let samples = [
        heart_rate("good", MARCH, 61),
        with(heart_rate("metric", MARCH, 61), "metricCode", "aura"),
        with(heart_rate("unit", MARCH, 61), "unit", "parsec"),
        heart_rate("range", MARCH, 100_000),
        heart_rate("negative", MARCH, -1),
        with(sleep("code", MARCH, MARCH + HOUR), "categoryCode", "hibernation"),
        with(heart_rate("field", MARCH, 61), "surprise", 1),
        with(heart_rate("backwards", MARCH, 61), "endAt", iso(MARCH - 1)),
        heart_rate("good", MARCH, 62),
        heart_rate("later", MARCH + HOUR, 70),
    ];
    let answer = ann.upload(&samples, &[]).await;
    assert_eq!(answer.status, 207);
    let data = &answer.body["data"];
    let record = |item: &Value| item["sourceRecordId"].as_str().unwrap().to_owned();
    let accepted: Vec<_> = data["successful"].as_array().unwrap().iter().map(record).collect();
    assert_eq!(accepted, ["good", "later"]);
    let refused: BTreeMap<_, _> = data["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (record(item), item["errorCode"].as_str().unwrap()))
        .collect();
    let expected = BTreeMap::from([
        ("metric", "INVALID_METRIC_CODE"),
        ("unit", "INVALID_UNIT"),
        ("range", "VALUE_OUT_OF_BOUNDS"),
        ("negative", "VALIDATION_ERROR"),
        ("code", "INVALID_CATEGORY_CODE"),
        ("field", "VALIDATION_ERROR"),
        ("backwards", "VALIDATION_ERROR"),
        ("good", "DUPLICATE_IN_BATCH"),
    ]);
    assert_eq!(refused, expected.into_iter().map(|(r, c)| (r.to_owned(), c)).collect());
    assert_eq!(data["metrics"]["successfulCount"], 2);
    assert_eq!(data["metrics"]["failedCount"], 8);

    let stored = ann.stored().await;
    let records: Vec<&str> = stored.rows.keys().map(|key| &*key.record_id).collect();
    assert_eq!(records, ["good", "later"]);
    let batch = ann.batches().await.remove(0);
    assert_eq!(batch.rows().len(), 2, "refused samples leave no values");
    ann.verify().await;
}

#[tokio::test]
async fn a_batch_of_refusals_is_recorded_and_changes_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let before = (ann.stored().await, world.position().await);
    let answer = ann.upload(&[heart_rate("r", MARCH, 100_000)], &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-health-watermark")), (207, "0"));
    assert_eq!((ann.stored().await, world.position().await), (before.0, before.1 + 1));
    ann.verify().await;
}

#[tokio::test]
async fn health_20_sleep_needs_an_offset() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let night = body(ids::new_id(), &[sleep("n", MARCH, MARCH + HOUR)], &[]);
    let answer = Answer::of(ann.post(UPSERT).json(&night)).await;
    assert_eq!(codes(&answer.body["data"]["failed"]), ["TIMEZONE_REQUIRED"]);
    assert_eq!(answer.body["data"]["failed"][0]["retryable"], true);
    assert_eq!(ann.stored().await.rows.len(), 0);
}

#[tokio::test]
async fn health_04_splits_and_permutations_give_the_same_rows() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let samples: Vec<Value> = (0..400)
        .map(|n| heart_rate(&format!("r-{n}"), MARCH + (n * 7919 % 400) * MINUTE, 60 + n % 40))
        .collect();
    assert_eq!(ann.upload(&samples, &[]).await.status, 200);
    let reversed: Vec<Value> = samples.iter().rev().cloned().collect();
    for part in reversed.chunks(90) {
        assert_eq!(ben.upload(part, &[]).await.status, 200);
    }
    let (one, other) = (ann.stored().await, ben.stored().await);
    assert_eq!(one.content(), other.content());
    assert_eq!((one.health_seq, other.health_seq), (1, 5));
    ann.verify().await;
    ben.verify().await;
}

#[tokio::test]
async fn health_07_people_do_not_interact() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let request = body(ids::new_id(), &[heart_rate("same", MARCH, 61)], &[]);
    let (for_ann, before) = (ann.send(&request).await, ben.stored().await);
    assert_eq!(before.rows.len(), 0);
    let mut other = request.clone();
    other["samples"][0]["value"] = json!(99);
    let for_ben = ben.send(&other).await;
    assert_eq!((for_ann.status.as_u16(), for_ben.status.as_u16()), (200, 200));
    let id = |answer: &Answer| answer.body["data"]["successful"][0]["serverId"].clone();
    assert_ne!(id(&for_ann), id(&for_ben));

    let untouched = ann.stored().await;
    ben.upload(&[], &[deletion("same", None)]).await;
    assert_eq!(ann.stored().await, untouched);
    assert_eq!(ben.stored().await.active(), 0);
    ann.verify().await;
    ben.verify().await;
}

#[tokio::test]
async fn health_24_corrections_keep_both_versions() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    let moved = with(heart_rate("r", MARCH, 62), "timezoneOffsetMinutes", -300);
    let answer = ann.upload(&[moved], &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-health-watermark")), (200, "2"));
    let batch = ann.batches().await.remove(1);
    assert_eq!(batch.corrected.len(), 1);
    let affected = batch.facts.affected.unwrap();
    let days: Vec<String> = affected.days.values().flatten().map(ToString::to_string).collect();
    assert_eq!(days, ["2026-02-28", "2026-03-01"]);
    ann.verify().await;
}

#[tokio::test]
async fn a_compressed_upload_is_an_upload() {
    use std::io::Write;
    let world = World::new().await;
    let ann = world.person("ann").await;
    let samples: Vec<Value> =
        (0..500).map(|n| heart_rate(&format!("r-{n}"), MARCH + n * MINUTE, 61)).collect();
    let plain = body(ids::new_id(), &samples, &[]).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain.as_bytes()).unwrap();
    let request = ann
        .post(UPSERT)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body(gzip.finish().unwrap());
    let answer = Answer::of(request).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body["data"]["metrics"]["successfulCount"].clone()),
        (200, json!(500))
    );
    assert_eq!(ann.stored().await.active(), 500);
    ann.verify().await;
}

/// Of a sealed segment that ends before the rows of an upload only the bounds are read.
#[tokio::test]
async fn health_01_05_11_unread_segments_hide_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let sample =
        |n: i64, value: i64| heart_rate(&format!("r-{}", n % 440), MARCH + n * MINUTE, value);
    let run = |from: i64, to: i64| (from..to).map(|n| sample(n, 61)).collect::<Vec<Value>>();
    for from in [0, 150, 300] {
        let answer = ann.upload(&run(from, from + 150), &[]).await;
        assert_eq!(answer.body["data"]["metrics"]["successfulCount"], 150);
    }
    assert_eq!(ann.stored().await.rows.len(), 450);
    // Old and new in one upload, on both sides of a gap.
    let mut again = run(100, 450);
    again.extend(run(1000, 1100));
    ann.upload(&again, &[]).await;
    let stored = ann.stored().await;
    assert_eq!((stored.rows.len(), stored.active()), (550, 550));
    // The last start of a segment still belongs to it.
    let seq = stored.health_seq;
    assert_eq!(
        ann.upload(&[sample(149, 61)], &[]).await.header("x-health-watermark"),
        seq.to_string()
    );
    ann.upload(&[sample(449, 77), sample(1100, 61)], &[]).await;
    // A record of the first segment, deleted while new rows go to the end.
    let answer = ann.upload(&[sample(1200, 61)], &[deletion("r-3", None)]).await;
    assert_eq!(answer.body["data"]["metrics"]["deletedCount"], 2, "minutes 3 and 443");
    let stored = ann.stored().await;
    assert_eq!((stored.rows.len(), stored.active()), (552, 550));
    ann.verify().await;
}
