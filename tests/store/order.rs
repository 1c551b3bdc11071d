//! Order and completeness under broken connections: every position once, in order, to every reader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aggregates::{StreamId, UserId};
use futures_util::StreamExt;
use sqlx::{PgConnection, PgPool};
use tidemark::postgres::{PoolSettings, pool};
use tidemark::store::{AppendError, Filter, Outcome, Receipt, Store};
use tokio::sync::watch;

use crate::support::{connect, verified_log};
use crate::world::{World, started};

const WRITERS: usize = 16;
/// Every so many writers one works on connections that are killed under it.
const ONE_IN: usize = 5;
const APPENDS: usize = 12;
/// What the killed connections are called.
const VICTIM: &str = "victim";

/// Appends until it is known to be there: an answer that was lost is asked for again.
async fn write(store: &Store, user: UserId, n: usize) -> StreamId {
    let mut member = started(user, "kept");
    member.receipts.push(Receipt {
        user,
        scope: "push",
        hmac: format!("receipt {n}").into_bytes(),
        content_hmac: None,
        outcome: "{}".to_owned(),
    });
    let stream = member.streams[0].stream.clone();
    loop {
        match store.append(member.clone()).await {
            // A repetition finds its own stream, or its own receipt.
            Ok(Outcome::Appended { .. } | Outcome::Conflict | Outcome::Duplicate) => return stream,
            Ok(other) => panic!("{other:?}"),
            // Who lost the connection cannot know; nothing else may happen.
            Err(AppendError::Unavailable | AppendError::Key(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Follows the log from the beginning to a position, from wherever it got to when it breaks.
async fn follow(store: Store, mut upto: watch::Receiver<Option<i64>>) -> Vec<i64> {
    let mut seen: Vec<i64> = Vec::new();
    loop {
        let after = seen.last().copied().unwrap_or(0);
        let mut events = std::pin::pin!(store.subscribe(after, Filter::default()));
        loop {
            if upto.borrow_and_update().is_some_and(|upto| seen.last() >= Some(&upto)) {
                return seen;
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => seen.push(event.position),
                    Some(Err(_)) | None => break,
                },
                _ = upto.changed() => {}
            }
        }
    }
}

/// Ends one victim's connection in the midst of a statement where there is one.
async fn kill_one(admin: &mut PgConnection) -> bool {
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = $1 AND datname = current_database() \
         AND (state = 'active' OR random() < 0.1) \
         ORDER BY state <> 'active', random() LIMIT 1";
    let killed = sqlx::query_scalar(kill).bind(VICTIM).fetch_optional(admin).await.unwrap();
    killed.unwrap_or(false)
}

fn small_pool(world: &World, name: &'static str) -> PgPool {
    pool(&world.database.log, &PoolSettings::interactive(name, 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_backends_leave_no_gap_and_no_reader_misses_anything() {
    let world = World::new().await;
    let user = world.person().await;
    let mut stores = Vec::new();
    for n in 0..WRITERS {
        let name = if n % ONE_IN == 0 { VICTIM } else { "writer" };
        stores.push(world.process_on(small_pool(&world, name), small_pool(&world, name)).await);
    }
    let upto = watch::Sender::new(None);
    // One reader's connections are killed as well, the other's are not.
    let readers = [stores[0].clone(), stores[1].clone()]
        .map(|store| tokio::spawn(follow(store, upto.subscribe())));

    let writing: Vec<_> = stores
        .iter()
        .enumerate()
        .map(|(writer, store)| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut streams = Vec::new();
                for n in 0..APPENDS {
                    streams.push(write(&store, user, writer * APPENDS + n).await);
                }
                streams
            })
        })
        .collect();
    let all = Arc::new(tokio::sync::Notify::new());
    let killer = tokio::spawn({
        let (all, mut admin) = (Arc::clone(&all), connect(&world.database.log).await);
        async move {
            let mut killed = 0;
            loop {
                killed += u32::from(kill_one(&mut admin).await);
                let pause = tokio::time::sleep(Duration::from_millis(20));
                tokio::select! { () = all.notified() => return killed, () = pause => {} }
            }
        }
    });
    let mut streams = BTreeSet::new();
    for writer in writing {
        streams.extend(writer.await.unwrap());
    }
    all.notify_one();
    assert!(killer.await.unwrap() > 0, "nothing was killed");
    verified_log(&world.store).await;

    let total = 3 + WRITERS * APPENDS;
    let head = world.store.head().await.unwrap().position;
    assert_eq!(usize::try_from(head).unwrap(), total, "each member is there once");
    upto.send_replace(Some(head));
    let dense: Vec<i64> = (1..=head).collect();
    for reader in readers {
        let seen = tokio::time::timeout(Duration::from_secs(30), reader).await;
        assert_eq!(seen.expect("the reader arrives").unwrap(), dense);
    }
    let heads = world.store.heads(&streams.into_iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(heads.len(), WRITERS * APPENDS);
    assert!(heads.iter().all(|head| head.sequence == 1));
    let positions: Vec<i64> = sqlx::query_scalar("SELECT position FROM receipts ORDER BY position")
        .fetch_all(world.store.pool())
        .await
        .unwrap();
    assert_eq!(positions, dense[3..], "a receipt for each, of its own event");
}
