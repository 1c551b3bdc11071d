//! Reading the log at length gives what reading it page by page gives.

use std::pin::pin;

use aggregates::entity::Context;
use aggregates::session::{Session, SessionCommand};
use aggregates::{Content, Purpose, Recorded, StreamId, UserId};
use futures_util::TryStreamExt;
use serde_json::json;
use tidemark::commands::subject::shred;
use tidemark::store::{Filter, Outcome, ReadError, Store};
use tidemark::{clock, ids};

use crate::world::{World, change, metadata};

/// A stream of so many events as one member.
async fn session(world: &World, user: UserId, events: usize) {
    let mut session = Session::default();
    let mut decided = Vec::new();
    let context = Context::now(clock::now_ms());
    let mut fold = Session::default();
    for nth in 0..events {
        let note = ("notes".to_owned(), json!(format!("note {nth} ").repeat(nth % 90)));
        let command = if nth == 0 {
            let fields = [
                ("clientSessionId".to_owned(), json!(ids::new_id().to_string())),
                ("sessionStartTimestamp".to_owned(), json!("2026-01-02T10:00:00.000Z")),
            ];
            SessionCommand::Start { fields: fields.into() }
        } else {
            SessionCommand::Update { fields: [note].into(), last_known_updated_at_ms: None }
        };
        for event in fold.decide(command, &context).unwrap() {
            fold.fold(&event);
            decided.push(event);
        }
    }
    let member = change(user, StreamId::new("session", ids::new_id()), 0, &mut session, decided);
    assert!(matches!(world.store.append(member).await.unwrap(), Outcome::Appended { .. }));
}

/// Some thousands of events of three people, one of whom is gone.
async fn long_log() -> World {
    let world = World::new().await;
    let people = [world.person().await, world.person().await, world.person().await];
    for round in 0..3 {
        for user in people {
            session(&world, user, 450 + round).await;
        }
    }
    shred(&world.store, people[1], &[Purpose::Activity], "drill", &metadata()).await.unwrap();
    world
}

async fn scanned(store: &Store, after: i64, upto: i64) -> Result<Vec<Recorded>, ReadError> {
    store.scan(after, upto).try_concat().await
}

async fn paged(store: &Store, after: i64, upto: i64) -> Vec<Recorded> {
    let (mut all, mut last) = (Vec::new(), after);
    while last < upto {
        let page = store.page(last, upto, 700, &Filter::default()).await.unwrap();
        last = page.last().unwrap().position;
        all.extend(page);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_gives_every_event_once_and_in_order() {
    let world = long_log().await;
    let store = &world.store;
    let head = store.head().await.unwrap().position;
    assert!(head > 4000);
    for (after, upto) in [(0, head), (0, 0), (7, 8), (1000, 1000), (999, 2001), (head - 1, head)] {
        let events = scanned(store, after, upto).await.unwrap();
        let positions: Vec<i64> = events.iter().map(|event| event.position).collect();
        assert_eq!(positions, (after + 1..=upto).collect::<Vec<_>>());
        assert_eq!(events, paged(store, after, upto).await);
    }
    let all = scanned(store, 0, head).await.unwrap();
    assert!(all.iter().any(|event| event.content == Content::Shredded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_or_does_not_open_is_named() {
    let world = long_log().await;
    let head = world.store.head().await.unwrap().position;
    let tamper = |statement: &str| {
        let script = format!("SET session_replication_role = replica; {statement}");
        let pool = world.database.pool();
        async move { sqlx::raw_sql(&script).execute(&pool).await.unwrap() }
    };
    tamper("UPDATE events SET sealed = sealed || '\\x00' WHERE position = 3000").await;
    let error = scanned(&world.store, 0, head).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { position: 3000, .. }), "{error}");

    tamper("DELETE FROM events WHERE position = 2500").await;
    let error = scanned(&world.store, 0, head).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { position: 2500, .. }), "{error}");
    let error = scanned(&world.store, 0, head + 9).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { position: 2500, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_is_left_hurts_nobody() {
    let world = long_log().await;
    let head = world.store.head().await.unwrap().position;
    for _ in 0..20 {
        let mut pages = pin!(world.store.scan(0, head));
        assert!(pages.try_next().await.unwrap().is_some());
    }
    // Whatever connections they left in the pool answer what they are asked.
    for _ in 0..50 {
        assert_eq!(world.store.head().await.unwrap().position, head);
    }
}
