//! Damage of every kind is found, and nothing is found where there is none.

use aggregates::Purpose;
use tidemark::commands::subject::shred;
use tidemark::commands::verify::Faults;
use tidemark::commands::verify::bookkeeping::verify_bookkeeping;
use tidemark::commands::verify::log::verify_log;

use crate::world::{World, metadata, started};

/// A log with two people, one of them without their key for activity. Positions 1 to 9.
async fn world() -> World {
    let world = World::new().await;
    let (one, two) = (world.person().await, world.person().await);
    for user in [one, two] {
        world.store.append(started(user, "x")).await.unwrap();
    }
    shred(&world.store, two, &[Purpose::Activity], "drill", &metadata()).await.unwrap();
    world
}

fn kinds(faults: &Faults) -> Vec<(Option<i64>, &str)> {
    faults.first.iter().map(|fault| (fault.position, fault.kind)).collect()
}

/// Changes the database behind the log's back, as a superuser without triggers could.
async fn tamper(world: &World, statements: &str) {
    let mut connection = world.database.pool().acquire().await.unwrap();
    let script = format!("SET session_replication_role = replica; {statements}");
    sqlx::raw_sql(&script).execute(&mut *connection).await.unwrap();
}

async fn found_after(statements: &str) -> Vec<(Option<i64>, String)> {
    let world = world().await;
    tamper(&world, statements).await;
    let report = verify_log(&world.store, 1, 20, |_| {}).await.unwrap();
    kinds(&report.faults).into_iter().map(|(at, kind)| (at, kind.to_owned())).collect()
}

#[tokio::test]
async fn a_sound_log_verifies_also_after_an_erasure() {
    let world = world().await;
    let mut done = 0;
    let report = verify_log(&world.store, 1, 10, |n| done += n).await.unwrap();
    assert_eq!(report.faults.first, []);
    assert_eq!((report.from, report.to, report.events, report.streams), (1, 9, 9, 4));
    assert_eq!(done, 18, "each event in each pass");
    let report = verify_log(&world.store, 5, 10, |_| {}).await.unwrap();
    assert_eq!((report.faults.count, report.events, report.streams), (0, 5, 4));
    let report = verify_bookkeeping(&world.store, 10).await.unwrap();
    assert_eq!(report.faults.first, []);
}

#[tokio::test]
async fn changed_bytes_are_found_wherever_they_are() {
    let changes = [
        "UPDATE events SET payload = '{\"k\":1}' WHERE position = 7",
        "UPDATE events SET metadata = '{}' WHERE position = 7",
        "UPDATE events SET sealed = sealed || '\\x00' WHERE position = 7",
        "UPDATE events SET recorded_at = recorded_at + interval '1 ms' WHERE position = 7",
        "UPDATE events SET event_id = gen_random_uuid() WHERE position = 7",
        "UPDATE events SET leaf_hash = sha256('x') WHERE position = 7",
    ];
    for change in changes {
        assert_eq!(found_after(change).await, [(Some(7), "leaf".to_owned())], "{change}");
    }
}

#[tokio::test]
async fn missing_events_and_wrong_heads_are_found() {
    let gap = found_after("DELETE FROM events WHERE position = 2").await;
    assert_eq!(gap, [(Some(2), "gap".to_owned()), (Some(3), "sequence".to_owned())]);
    let cut = found_after("DELETE FROM events WHERE position = 9").await;
    assert_eq!(cut, [(Some(9), "gap".to_owned()), (Some(6), "stream_head".to_owned())]);
    let head = found_after("DELETE FROM streams WHERE position = 7").await;
    assert_eq!(head, [(Some(7), "stream_head".to_owned())]);
    let late = found_after("UPDATE events SET committed_ms = 1 WHERE position = 7").await;
    assert_eq!(late, [(Some(7), "time".to_owned())]);
}

#[tokio::test]
async fn what_is_kept_beside_the_log_is_checked_against_it() {
    let world = world().await;
    tamper(
        &world,
        "UPDATE subjects SET status = 1 WHERE status > 1;
         UPDATE user_heads SET pos_other = 99 WHERE pos_session = 7;
         UPDATE streams SET position = 8 WHERE position = 7;
         INSERT INTO receipts VALUES (gen_random_uuid(), 'push', 'h', NULL, '{}', 99, 0);
         INSERT INTO receipts VALUES (gen_random_uuid(), 'push', 'h', NULL, '{}', 7, 0);
         INSERT INTO reservations VALUES ('client', 'h', NULL, gen_random_uuid(), 'session', 'x')",
    )
    .await;
    let report = verify_bookkeeping(&world.store, 10).await.unwrap();
    let kinds: Vec<&str> = report.faults.first.iter().map(|fault| fault.kind).collect();
    let expected = ["receipt", "receipt", "reservation", "stream_head", "user_head", "subject"];
    assert_eq!(kinds, expected);
}
