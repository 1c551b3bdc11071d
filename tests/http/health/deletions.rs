//! Deletion is final.

use futures_util::future::join_all;

use super::*;
use crate::world::World;

#[tokio::test]
async fn health_08_09_a_deleted_key_stays_deleted_in_any_order() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let create = |record: &str| heart_rate(record, MARCH, 61);
    for (record, start) in [("precise", Some(MARCH)), ("lossless", None)] {
        // Created first.
        let first = format!("{record}-first");
        ann.upload(&[create(&first)], &[]).await;
        let gone = ann.upload(&[], &[deletion(&first, start)]).await;
        let deletions = &gone.body["data"]["deletions"];
        assert_eq!(deletions["successful"][0]["alreadyDeleted"], false);
        assert_eq!(gone.body["data"]["metrics"]["deletedCount"], 1);
        let again = ann.upload(&[], &[deletion(&first, start)]).await;
        assert_eq!(again.body["data"]["deletions"]["successful"][0]["alreadyDeleted"], true);
        // Deleted before it was seen.
        let late = format!("{record}-late");
        let unknown = ann.upload(&[], &[deletion(&late, start)]).await;
        assert_eq!(codes(&unknown.body["data"]["deletions"]["failed"]), ["DELETE_NOT_FOUND"]);
        assert_eq!(unknown.status, 207);
        // In one batch.
        let both = format!("{record}-both");
        let at_once = ann.upload(&[create(&both)], &[deletion(&both, start)]).await;
        assert_eq!(at_once.status, 200, "successful in both lists");

        for revived in [&first, &late, &both] {
            let answer = ann.upload(&[create(revived)], &[]).await;
            assert_eq!(codes(&answer.body["data"]["failed"]), ["VALIDATION_ERROR"], "{revived}");
            assert_eq!(answer.body["data"]["failed"][0]["retryable"], false);
        }
    }
    assert_eq!(ann.stored().await.active(), 0);
    ann.verify().await;
}

#[tokio::test]
async fn health_09_creates_and_deletes_at_once_end_deleted() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let records: Vec<String> = (0..8).map(|n| format!("r-{n}")).collect();
    let uploads = records.iter().enumerate().map(|(n, record)| {
        let start = (n % 2 == 0).then_some(MARCH);
        let (create, delete) = ([heart_rate(record, MARCH, 61)], [deletion(record, start)]);
        let ann = &ann;
        async move {
            tokio::join!(ann.upload(&create, &[]), ann.upload(&[], &delete));
        }
    });
    join_all(uploads).await;
    assert_eq!(ann.stored().await.active(), 0);
    ann.verify().await;
}

#[tokio::test]
async fn health_11_a_lossless_deletion_deletes_its_record_everywhere() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    // One record over a long time, so that it lies in several segments.
    let mut samples: Vec<Value> = Vec::new();
    for n in 0..450 {
        let record = if n % 150 == 7 { "Wanted".to_owned() } else { format!("r-{n}") };
        samples.push(heart_rate(&record, MARCH + n * 3 * HOUR / 100, 61));
    }
    let other_source = with(heart_rate("wanted", MARCH, 61), "sourceId", "google_health_connect");
    samples.push(other_source);
    for part in samples.chunks(150) {
        ann.upload(part, &[]).await;
    }
    let before = ann.stored().await;
    let answer = ann.upload(&[], &[deletion("WANTED", None)]).await;
    assert_eq!(answer.body["data"]["metrics"]["deletedCount"], 3);
    let after = ann.stored().await;
    for (key, row) in &after.rows {
        let wanted = &*key.source_id == "apple_healthkit" && &*key.record_id == "wanted";
        assert_eq!(row.is_active(), before.rows[key].is_active() && !wanted, "{key:?}");
    }
    assert_eq!(after.health_seq, before.health_seq + 1);
    ann.verify().await;
}

#[tokio::test]
async fn health_10_repeated_deletions_count_once() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    let thrice = [deletion("r", Some(MARCH)), deletion("R", None), deletion("r", Some(MARCH))];
    let answer = ann.upload(&[], &thrice).await;
    let data = &answer.body["data"];
    assert_eq!(data["deletions"]["successful"].as_array().unwrap().len(), 3);
    assert_eq!(data["metrics"]["deletedCount"], 1);
    assert_eq!(answer.header("x-health-watermark"), "2");
    ann.verify().await;
}

/// Whether a person has tombstones at all is read under their lane, which is one for all processes.
#[tokio::test]
async fn health_09_what_one_process_deletes_another_does_not_revive() {
    let world = World::new().await;
    let other = world.another().await;
    let (ann, elsewhere) = (world.person("ann").await, other.person("ann").await);
    let seen = [heart_rate("seen", MARCH - HOUR, 61)];
    ann.upload(&seen, &[]).await;
    elsewhere.upload(&seen, &[]).await;
    for (record, start) in [("precise", Some(MARCH)), ("lossless", None)] {
        elsewhere.upload(&[], &[deletion(record, start)]).await;
        let answer = ann.upload(&[heart_rate(record, MARCH, 61)], &[]).await;
        assert_eq!(codes(&answer.body["data"]["failed"]), ["VALIDATION_ERROR"], "{record}");
    }
    let at_once = (0..8).map(|n| {
        let (record, start) = (format!("r-{n}"), (n % 2 == 0).then_some(MARCH));
        let (create, delete) = ([heart_rate(&record, MARCH, 61)], [deletion(&record, start)]);
        let (ann, elsewhere) = (&ann, &elsewhere);
        async move {
            tokio::join!(ann.upload(&create, &[]), elsewhere.upload(&[], &delete));
        }
    });
    join_all(at_once).await;
    assert_eq!(ann.stored().await.active(), 1);
    ann.verify().await;
}
