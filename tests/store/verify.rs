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

/// Every column of every row, one at a time: what was changed is found, and where.
#[tokio::test]
async fn no_column_of_any_event_changes_unnoticed() {
    // `committed_ms` is outside the leaf: it is held by the order of times and by stream heads.
    let columns = [
        ("aggregate_type", "aggregate_type || 'x'"),
        ("aggregate_id", "aggregate_id || 'x'"),
        ("sequence", "sequence + 1000"),
        ("event_type", "event_type || 'x'"),
        ("event_version", "event_version || '0'"),
        ("payload", "(payload::text || ' ')::json"),
        ("metadata", "(metadata::text || ' ')::json"),
        ("position", "position + 1000"),
        ("event_id", "gen_random_uuid()"),
        ("user_id", "gen_random_uuid()"),
        ("recorded_at", "recorded_at + interval '1 ms'"),
        ("committed_ms", "committed_ms + 3600000"),
        ("committed_ms", "committed_ms - 3600000"),
        ("sealed", "coalesce(sealed, '') || '\\x00'"),
        ("sealed", "CASE WHEN sealed IS NULL THEN '\\x01'::bytea END"),
        ("leaf_hash", "sha256(leaf_hash)"),
    ];
    let all: Vec<String> = {
        let world = World::new().await;
        sqlx::query_scalar(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 'events'::regclass \
             AND attnum > 0 AND NOT attisdropped",
        )
        .fetch_all(&world.database.pool())
        .await
        .unwrap()
    };
    for column in &all {
        assert!(columns.iter().any(|(name, _)| name == column), "{column} is not tried");
    }

    let world = world().await;
    tamper(&world, "CREATE TABLE kept AS SELECT * FROM events").await;
    for position in 1..=9 {
        for (column, value) in columns {
            let change =
                format!("UPDATE events SET {column} = {value} WHERE position = {position}");
            tamper(&world, &change).await;
            let report = verify_log(&world.store, 1, 20, |_| {}).await.unwrap();
            let found = kinds(&report.faults);
            let named = |&(at, _): &(Option<i64>, &str)| {
                // A time that is too late makes the next event the first that is out of order,
                // unless it is the last of its stream.
                at == Some(position) || (column == "committed_ms" && at == Some(position + 1))
            };
            // Nothing comes before the first event that could be later than it.
            let unknowable = column == "committed_ms" && position == 1 && value.contains('-');
            assert!(found.iter().any(named) || unknowable, "{position}: {change}: {found:?}");
            let restore = format!(
                "DELETE FROM events WHERE position IN ({position}, {position} + 1000);
                 INSERT INTO events SELECT * FROM kept WHERE position = {position}"
            );
            tamper(&world, &restore).await;
        }
    }
    let report = verify_log(&world.store, 1, 20, |_| {}).await.unwrap();
    assert_eq!(report.faults.first, [], "all is as it was");
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
    let time = (Some(7), "time".to_owned());
    assert_eq!(late, [time.clone(), time], "out of order, and not what the stream's head says");
}

#[tokio::test]
async fn what_is_kept_beside_the_log_is_checked_against_it() {
    let world = world().await;
    tamper(
        &world,
        "UPDATE subjects SET status = 1 WHERE status > 1;
         UPDATE user_heads SET pos_other = 99 WHERE pos_session = 7;
         DELETE FROM user_heads WHERE pos_session <> 7;
         UPDATE streams SET position = 8 WHERE position = 7;
         INSERT INTO receipts VALUES (gen_random_uuid(), 'push', 'h', NULL, '{}', 99, 0);
         INSERT INTO receipts VALUES (gen_random_uuid(), 'push', 'h', NULL, '{}', 7, 0);
         INSERT INTO reservations VALUES ('client', 'h', NULL, gen_random_uuid(), 'session', 'x')",
    )
    .await;
    let report = verify_bookkeeping(&world.store, 10).await.unwrap();
    let kinds: Vec<&str> = report.faults.first.iter().map(|fault| fault.kind).collect();
    let expected = [
        "receipt",
        "receipt",
        "reservation",
        "stream_head",
        "user_head",
        "user_head",
        "user_head",
        "subject",
    ];
    assert_eq!(kinds, expected);
}
