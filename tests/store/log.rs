//! Appending and reading.

use std::collections::BTreeSet;

use aggregates::entity::Context;
use aggregates::session::{Session, SessionCommand};
use aggregates::{AnyEvent, StreamId};
use futures_util::StreamExt;
use sqlx::{Executor, PgConnection, Row};
use tidemark::commands::verify;
use tidemark::store::read::{self, RawEvent, ReadError};
use tidemark::store::statements;
use tidemark::store::{Claim, Filter, Member, NewEvent, Outcome, Receipt, Reservation, Store};
use tidemark::{ids, keys, projector};

use crate::world::{World, change, started};

async fn positions(store: &Store) -> Vec<i64> {
    sqlx::query_scalar("SELECT position FROM events ORDER BY position")
        .fetch_all(store.pool())
        .await
        .unwrap()
}

fn dense(count: usize) -> Vec<i64> {
    (1..=i64::try_from(count).unwrap()).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_back_and_only_ciphertext_lies_there() {
    let world = World::new().await;
    let user = world.person().await;
    let member = started(user, "canary-note");
    let stream = member.streams[0].stream.clone();
    let expected = member.streams[0].events[0].event.clone();
    let Outcome::Appended { first, last, .. } = world.store.append(member).await.unwrap() else {
        panic!("not appended")
    };
    assert_eq!((first, last), (4, 4), "after the three events of the keys");

    let read = world.store.stream(&stream, 0, i64::MAX, 10).await.unwrap();
    assert_eq!(read[0].event(), Some(&expected));
    assert_eq!((read[0].sequence, read[0].position, read[0].user), (1, 4, user));

    let heads = world.store.heads(std::slice::from_ref(&stream)).await.unwrap();
    let open =
        world.store.open_head(heads[0].clone(), aggregates::Purpose::Activity).await.unwrap();
    let session: Session = serde_json::from_slice(&open.state.unwrap()).unwrap();
    assert_eq!(session.entity.text("notes"), Some("canary-note"));

    let found: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM events e, streams s WHERE e::text LIKE '%canary%' \
         OR s::text LIKE '%canary%' OR position(convert_to('canary', 'UTF8') in e.sealed) > 0 \
         OR position(convert_to('canary', 'UTF8') in s.state_sealed) > 0",
    )
    .fetch_one(world.store.pool())
    .await
    .unwrap();
    assert_eq!(found, 0);
}

/// Many events are sealed on several threads; their order and their bytes are those of one.
#[tokio::test]
async fn a_large_command_keeps_the_order_of_its_events() {
    const MANY: usize = 300;
    let world = World::new().await;
    let user = world.person().await;
    let mut member = started(user, "0");
    let event = member.streams[0].events[0].clone();
    member.streams[0]
        .events
        .resize_with(MANY, || NewEvent { event_id: ids::new_event_id(), ..event.clone() });
    let stream = member.streams[0].stream.clone();
    let order: Vec<_> = member.streams[0].events.iter().map(|event| event.event_id).collect();
    // What neither has an event nor the right to one is looked at all the same, and not written.
    let mut idle = started(user, "idle").streams.remove(0);
    idle.events.clear();
    let absent = idle.stream.clone();
    member.streams.push(idle);
    assert!(matches!(world.store.append(member).await.unwrap(), Outcome::Appended { .. }));

    let read = world.store.stream(&stream, 0, i64::MAX, 1_000).await.unwrap();
    assert_eq!(read.iter().map(|event| event.event_id).collect::<Vec<_>>(), order);
    assert_eq!(read.last().unwrap().sequence, 300);
    assert_eq!(positions(&world.store).await, dense(3 + MANY));
    assert_eq!(world.store.heads(&[absent]).await.unwrap(), vec![]);
}

#[tokio::test]
async fn a_wrong_expectation_is_a_conflict_and_leaves_no_trace() {
    let world = World::new().await;
    let user = world.person().await;
    let member = started(user, "first");
    let stream = member.streams[0].stream.clone();
    world.store.append(member.clone()).await.unwrap();
    assert_eq!(world.store.append(member).await.unwrap(), Outcome::Conflict);

    let mut session = Session::default();
    let late = change(user, stream.clone(), 7, &mut session, Vec::new());
    assert_eq!(world.store.append(late).await.unwrap(), Outcome::Conflict);
    let absent = change(user, StreamId::new("session", "nowhere"), 1, &mut session, Vec::new());
    assert_eq!(world.store.append(absent).await.unwrap(), Outcome::Conflict);
    assert_eq!(positions(&world.store).await, dense(4));
}

#[tokio::test]
async fn a_member_is_written_whole_or_not_at_all() {
    let world = World::new().await;
    let user = world.person().await;
    let taken = started(user, "taken");
    world.store.append(taken.clone()).await.unwrap();
    let mut both = started(user, "fresh");
    let fresh = both.streams[0].stream.clone();
    both.streams.extend(taken.streams);
    both.receipts.push(receipt(user, b"both"));
    both.reservations.push(take(user, b"both", &fresh));
    assert_eq!(world.store.append(both).await.unwrap(), Outcome::Conflict);

    assert_eq!(world.store.heads(&[fresh]).await.unwrap(), vec![]);
    assert_eq!(world.store.receipts(user, "push", &[b"both".to_vec()]).await.unwrap(), vec![]);
    assert_eq!(world.store.holders("alias", &[b"both".to_vec()]).await.unwrap(), vec![]);
    assert_eq!(positions(&world.store).await, dense(4));
}

fn receipt(user: aggregates::UserId, hmac: &[u8]) -> Receipt {
    Receipt {
        user,
        scope: "push",
        hmac: hmac.to_vec(),
        content_hmac: None,
        outcome: "{}".to_owned(),
    }
}

fn take(user: aggregates::UserId, hmac: &[u8], stream: &StreamId) -> Reservation {
    Reservation {
        scope: "alias",
        hmac: hmac.to_vec(),
        key_id: None,
        user,
        action: Claim::Take(stream.clone()),
    }
}

#[tokio::test]
async fn a_receipt_makes_a_repetition_a_duplicate_also_at_the_same_moment() {
    let world = World::new().await;
    let other = world.another_process().await;
    let user = world.person().await;
    let tries = (0..16).map(|n| {
        let mut member = started(user, "once");
        member.receipts.push(receipt(user, b"r-1"));
        let store = if n % 2 == 0 { world.store.clone() } else { other.clone() };
        async move { store.append(member).await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(tries).await;
    let appended = outcomes.iter().filter(|o| matches!(o, Outcome::Appended { .. })).count();
    let duplicate = outcomes.iter().filter(|o| **o == Outcome::Duplicate).count();
    assert_eq!((appended, duplicate), (1, 15), "{outcomes:?}");
    let stored = world.store.receipts(user, "push", &[b"r-1".to_vec()]).await.unwrap();
    assert_eq!(stored[0].position, Some(4));
    assert_eq!(positions(&world.store).await, dense(4));
}

#[tokio::test]
async fn a_name_has_one_holder_and_can_be_passed_on() {
    let world = World::new().await;
    let user = world.person().await;
    let mut first = started(user, "first");
    let one = first.streams[0].stream.clone();
    first.reservations.push(take(user, b"open", &one));
    world.store.append(first).await.unwrap();

    let mut second = started(user, "second");
    let two = second.streams[0].stream.clone();
    second.reservations.push(take(user, b"open", &two));
    assert_eq!(world.store.append(second.clone()).await.unwrap(), Outcome::Reserved);

    second.reservations[0].action = Claim::Pass { from: two.clone(), to: two.clone() };
    assert_eq!(world.store.append(second.clone()).await.unwrap(), Outcome::Reserved);
    second.reservations[0].action = Claim::Pass { from: one.clone(), to: two.clone() };
    assert!(matches!(world.store.append(second).await.unwrap(), Outcome::Appended { .. }));
    let holder = &world.store.holders("alias", &[b"open".to_vec()]).await.unwrap()[0];
    assert_eq!(holder.stream.as_ref(), Some(&two));

    let mut release = Member::default();
    release.reservations.push(take(user, b"open", &one));
    release.reservations[0].action = Claim::Release(one);
    assert_eq!(world.store.append(release.clone()).await.unwrap(), Outcome::Reserved);
    release.reservations[0].action = Claim::Release(two);
    assert!(matches!(
        world.store.append(release).await.unwrap(),
        Outcome::Appended { last: 0, .. }
    ));
    assert_eq!(world.store.holders("alias", &[b"open".to_vec()]).await.unwrap(), vec![]);
}

/// Two processes append from many tasks at once while a reader follows from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_keep_positions_dense_and_a_tailing_reader_misses_nothing() {
    let world = World::new().await;
    let other = world.another_process().await;
    let user = world.person().await;
    let total = 400;
    let reader = tokio::spawn({
        let store = other.clone();
        async move {
            let events = store.subscribe(0, Filter::default()).take(3 + total);
            events.map(|event| event.unwrap().position).collect::<Vec<_>>().await
        }
    });
    let writers = (0..16).map(|n| {
        let store = if n % 2 == 0 { world.store.clone() } else { other.clone() };
        tokio::spawn(async move {
            for _ in 0..total / 16 {
                let outcome = store.append(started(user, "many")).await.unwrap();
                assert!(matches!(outcome, Outcome::Appended { .. }));
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    let seen = tokio::time::timeout(std::time::Duration::from_secs(20), reader).await;
    assert_eq!(seen.unwrap().unwrap(), dense(3 + total));
    assert_eq!(positions(&world.store).await, dense(3 + total));
}

/// Writers of one stream lose to each other and none of their changes is lost.
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_stream_decide_again_until_each_change_is_in() {
    let world = World::new().await;
    let other = world.another_process().await;
    let user = world.person().await;
    let member = started(user, "shared");
    let stream = member.streams[0].stream.clone();
    world.store.append(member).await.unwrap();
    let writers = (0..8).map(|n| {
        let store = if n % 2 == 0 { world.store.clone() } else { other.clone() };
        let stream = stream.clone();
        tokio::spawn(async move {
            loop {
                let read = store.stream(&stream, 0, i64::MAX, 100).await.unwrap();
                let mut session = Session::default();
                for recorded in &read {
                    if let Some(AnyEvent::Session(event)) = recorded.event() {
                        session.fold(event);
                    }
                }
                let fields = [("notes".to_owned(), format!("writer {n}").into())].into();
                let command = SessionCommand::Update { fields, last_known_updated_at_ms: None };
                let context = Context::now(tidemark::clock::now_ms());
                let events = session.decide(command, &context).unwrap();
                let sequence = i64::try_from(read.len()).unwrap();
                let member = change(user, stream.clone(), sequence, &mut session, events);
                if store.append(member).await.unwrap() != Outcome::Conflict {
                    return;
                }
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    let read = world.store.stream(&stream, 0, i64::MAX, 100).await.unwrap();
    let notes: BTreeSet<String> = read.iter().map(|event| format!("{:?}", event.event())).collect();
    assert_eq!((read.len(), notes.len()), (9, 9));
}

#[tokio::test]
async fn what_a_newer_program_wrote_is_told_from_damage() {
    let world = World::new().await;
    world.store.append(started(world.person().await, "note")).await.unwrap();
    let events = read::raw_page(world.store.pool(), 0, i64::MAX, 10, &Filter::default()).await;
    let events = events.unwrap();
    let (open, sealed) = (&events[0], &events[3]);
    for (event_type, version) in [("subject.key_created", "2"), ("subject.key_lent", "1")] {
        let (event_type, event_version) = (event_type.to_owned(), version.to_owned());
        let newer = RawEvent { event_type, event_version, ..open.clone() };
        let found = world.store.sealer().open(newer).await;
        assert!(matches!(found, Err(ReadError::Newer { position: 1, .. })), "{found:?}");
    }
    let unknown = RawEvent { event_type: "session.dreamt".to_owned(), ..sealed.clone() };
    let found = world.store.sealer().open(unknown).await;
    assert!(matches!(found, Err(ReadError::Newer { position: 4, .. })), "{found:?}");
    // The seal names the version: a changed one is damage.
    let forged = RawEvent { event_version: "2".to_owned(), ..sealed.clone() };
    let found = world.store.sealer().open(forged).await;
    assert!(matches!(found, Err(ReadError::Corrupt { position: 4, .. })), "{found:?}");
}

#[tokio::test]
async fn the_log_refuses_to_be_changed() {
    let world = World::new().await;
    world.person().await;
    for statement in
        ["UPDATE events SET user_id = gen_random_uuid()", "DELETE FROM events", "TRUNCATE events"]
    {
        let error = sqlx::query(statement).execute(world.store.pool()).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).map(|c| c.to_string());
        assert_eq!(code.as_deref(), Some("TM000"), "{statement}");
    }
    let mut app = world.database.pool().acquire().await.unwrap();
    sqlx::query("SET ROLE tidemark_app").execute(&mut *app).await.unwrap();
    for statement in [
        "DELETE FROM events",
        "UPDATE streams SET sequence = 9",
        "DELETE FROM receipts",
        "UPDATE log_head SET position = 0",
    ] {
        let error = sqlx::query(statement).execute(&mut *app).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).map(|c| c.to_string());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}");
    }
}

/// Every leaf can be recomputed in the database from the stored bytes alone.
#[tokio::test]
async fn the_leaf_hash_in_sql_is_the_leaf_hash_in_rust() {
    let world = World::new().await;
    let user = world.person().await;
    for note in ["plain", "ümläut ✓", ""] {
        world.store.append(started(user, note)).await.unwrap();
    }
    let rows = sqlx::query(
        "SELECT position, leaf_hash, leaf_hash(event_id, aggregate_type, aggregate_id, sequence, \
         event_type, event_version, user_id, (extract(epoch FROM recorded_at) * 1000)::bigint, \
         payload::text, metadata::text, sealed) FROM events ORDER BY position",
    )
    .fetch_all(world.store.pool())
    .await
    .unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let (stored, computed): (Vec<u8>, Vec<u8>) = (row.get(1), row.get(2));
        assert_eq!(stored, computed, "position {}", row.get::<i64, _>(0));
    }
}

#[tokio::test]
async fn the_position_at_a_time_is_found_by_search() {
    let world = World::new().await;
    let user = world.person().await;
    let mut committed = Vec::new();
    for _ in 0..5 {
        let outcome = world.store.append(started(user, "tick")).await.unwrap();
        let Outcome::Appended { last, committed_ms, .. } = outcome else { panic!() };
        committed.push((last, committed_ms));
    }
    for (_, at) in &committed {
        let last = committed.iter().rev().find(|(_, ms)| ms <= at).unwrap().0;
        assert_eq!(world.store.position_at(*at).await.unwrap(), last);
    }
    assert_eq!(world.store.position_at(0).await.unwrap(), 0);
    assert_eq!(world.store.position_at(i64::MAX).await.unwrap(), 8);
}

#[tokio::test]
async fn receipts_without_events_are_forgotten_in_time_and_others_never() {
    let world = World::new().await;
    let user = world.person().await;
    let mut with_event = started(user, "kept");
    with_event.receipts.push(receipt(user, b"event"));
    let without = Member { receipts: vec![receipt(user, b"none")], ..Member::default() };
    for member in [with_event, without] {
        let outcome = world.store.append(member).await.unwrap();
        assert!(matches!(outcome, Outcome::Appended { .. }));
    }
    assert_eq!(world.store.prune_receipts(0).await.unwrap(), 0, "not before their time");
    assert_eq!(world.store.prune_receipts(i64::MAX).await.unwrap(), 1);
    let left = world.store.receipts(user, "push", &[b"event".to_vec(), b"none".to_vec()]).await;
    let left: Vec<Vec<u8>> = left.unwrap().into_iter().map(|receipt| receipt.hmac).collect();
    assert_eq!(left, [b"event".to_vec()]);
}

/// Those of the store as the server's own role, which may do nothing that they do not need.
#[tokio::test]
async fn every_statement_fits_the_schema() {
    let world = World::new().await;
    let mut app = world.database.pool().acquire().await.unwrap();
    sqlx::query("SET ROLE tidemark_app").execute(&mut *app).await.unwrap();
    prepare(&mut app, statements::ALL.iter().copied().chain(verify::statements())).await;
    let mut reader = world.database.pool().acquire().await.unwrap();
    prepare(&mut reader, projector::statements::ALL.iter().copied()).await;
}

#[tokio::test]
async fn every_statement_of_the_key_store_fits_its_schema() {
    let world = World::new().await;
    let mut keys = world.database.keys_pool().acquire().await.unwrap();
    prepare(&mut keys, keys::postgres::STATEMENTS.iter().copied()).await;
}

async fn prepare(
    connection: &mut PgConnection,
    statements: impl Iterator<Item = (&'static str, &'static str)>,
) {
    for (name, statement) in statements {
        let prepared = connection.prepare(statement).await;
        assert!(prepared.is_ok(), "{name}: {:?}", prepared.err());
    }
}
