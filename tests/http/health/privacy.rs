//! What the person's own rules keep out.

use aggregates::{Metadata, Purpose};
use tidemark::commands::subject::shred;

use super::*;
use crate::support;
use crate::world::World;

async fn set(person: &Person<'_>, health: Value) {
    let patch = json!({ "privacySettings": { "health": health } });
    let request = person.request(reqwest::Method::PUT, "/api/v1/users/preferences").json(&patch);
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn health_28_blocked_metrics_stay_out_and_the_rest_goes_on() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    set(&ann, json!({ "blockedMetrics": ["heart_rate"] })).await;
    let samples = [
        heart_rate("r", MARCH, 61),
        sleep("n", MARCH, MARCH + HOUR),
        heart_rate("bad", MARCH, 100_000),
    ];
    let answer = ann.upload(&samples, &[]).await;
    assert_eq!(answer.status, 207);
    let codes = codes(&answer.body["data"]["failed"]);
    assert_eq!(codes[0], "PRIVACY_BLOCKED", "privacy comes first: {codes:?}");
    assert_eq!(ann.stored().await.active(), 1);
    let batch = ann.batches().await.remove(0);
    assert_eq!(batch.facts.refused[0].metric, "heart_rate");
    set(&ann, json!({ "blockedMetrics": [] })).await;
    assert_eq!(ann.upload(&samples[..1], &[]).await.status, 200);
    ann.verify().await;
}

#[tokio::test]
async fn health_28_with_uploads_off_only_deletions_work() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let request = body(ids::new_id(), &[heart_rate("kept", MARCH, 61)], &[]);
    let first = ann.send(&request).await;
    ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    set(&ann, json!({ "allowHealthDataUpload": false })).await;
    let before = (ann.stored().await, world.position().await);
    let answer = ann.upload(&[heart_rate("s", MARCH, 61)], &[]).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "FORBIDDEN"));
    assert_eq!(answer.body["error"]["retryable"], false);
    assert_eq!((ann.stored().await, world.position().await), before);
    assert_eq!(lasting(&ann.send(&request).await), lasting(&first), "a replay stores nothing");

    let mixed = ann.upload(&[heart_rate("s", MARCH, 61)], &[deletion("r", None)]).await;
    assert_eq!(mixed.status, 207);
    assert_eq!(codes(&mixed.body["data"]["failed"]), ["PRIVACY_BLOCKED"]);
    assert_eq!(mixed.body["data"]["metrics"]["deletedCount"], 1);
    assert_eq!(ann.stored().await.active(), 1);
    ann.verify().await;
}

#[tokio::test]
async fn health_29_what_cannot_be_read_allows_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    let before = (ann.stored().await, world.position().await);
    // The account's state is damaged, and so are the events it could be folded from.
    let pool = world.database.pool();
    for statement in [
        "ALTER TABLE events DISABLE TRIGGER USER",
        "UPDATE streams SET state_sealed = '\\x00' WHERE aggregate_type = 'user'",
        "UPDATE events SET sealed = '\\x00' WHERE aggregate_type = 'user'",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let answer = ann.upload(&[heart_rate("s", MARCH, 61)], &[]).await;
    assert!(answer.status.is_server_error(), "{}", answer.body);
    assert_eq!(answer.body["error"]["retryable"], true);
    assert_eq!((ann.stored().await, world.position().await), before);
}

#[tokio::test]
async fn health_28_rules_and_uploads_at_once_agree_on_an_order() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let uploads = futures_util::future::join_all((0..10).map(|n| {
        let sample = heart_rate(&format!("r-{n}"), MARCH, 61);
        let ann = &ann;
        async move { ann.upload(&[sample], &[]).await }
    }));
    let off = set(&ann, json!({ "allowHealthDataUpload": false }));
    let (answers, ()) = tokio::join!(uploads, off);
    let stored = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(answers.iter().all(|a| a.status == 200 || a.status == 403), "{answers:?}");
    assert_eq!(ann.stored().await.active(), stored);
    // In the log, no batch with samples follows the event that turned uploads off.
    let filter = Filter { user: Some(ann.user), ..Filter::default() };
    let events = world.app.store.page(0, i64::MAX, 2000, &filter);
    let types: Vec<String> = events.await.unwrap().into_iter().map(|e| e.event_type).collect();
    let off = types.iter().position(|name| name == "user.health_privacy_changed").unwrap();
    assert!(types[off..].iter().all(|name| name != "health_batch.applied"), "{types:?}");
    ann.verify().await;
}

#[tokio::test]
async fn health_28_a_decision_under_old_rules_is_made_again() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let mut blocker = support::connect(&world.database.log).await;
    let mut first = support::connect(&world.database.log).await;
    let mut second = support::connect(&world.database.log).await;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM log_head FOR UPDATE").execute(&mut blocker).await.unwrap();
    // The change of the rules is first in the queue for the log; the upload still sees the old.
    let off = set(&ann, json!({ "allowHealthDataUpload": false }));
    let upload = async {
        waiting_appends(&mut first, 1).await;
        ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await
    };
    let release = async {
        waiting_appends(&mut second, 2).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut blocker).await.unwrap();
    };
    let ((), answer, ()) = tokio::join!(off, upload, release);
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "FORBIDDEN"));
    assert_eq!(ann.stored().await.rows.len(), 0);
    ann.verify().await;
}

#[tokio::test]
async fn erased_health_data_is_gone_and_takes_the_consent_along() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let request = body(ids::new_id(), &[heart_rate("r", MARCH, 61)], &[]);
    ann.send(&request).await;
    let metadata = Metadata::owner(ids::new_id());
    shred(&world.app.store, ann.user, &[Purpose::Health], "test", &metadata).await.unwrap();
    for body in [request, body(ids::new_id(), &[heart_rate("s", MARCH, 61)], &[])] {
        let answer = ann.send(&body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (403, "FORBIDDEN"));
    }
    let path = format!(
        "/api/v1/health/samples/cursor?startTime={}&endTime={}",
        iso(MARCH - HOUR),
        iso(MARCH + HOUR)
    );
    let page = Answer::of(ann.get(&path)).await;
    assert_eq!((page.status.as_u16(), page.body["data"]["items"].clone()), (200, json!([])));
    let store = &world.app.store;
    assert_eq!(verify_segments(store, ann.user).await.unwrap(), Vec::<String>::new());
}
