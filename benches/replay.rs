//! Reading the whole log in its order, opened and typed, against postgres-es on a plaintext copy
//! and against Postgres's own COPY of the same rows.

#![allow(clippy::expect_used, reason = "a bench that cannot run fails by panicking")]

mod support;

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use aggregates::session::{Session, SessionEvent};
use aggregates::{Content, StreamId, UserId};
use cqrs_es::DomainEvent;
use cqrs_es::persist::PersistedEventRepository;
use futures_util::TryStreamExt;
use postgres_es::PostgresEventRepository;
use sqlx::PgPool;
use sqlx::postgres::PgPoolCopyExt;
use tidemark::store::{Outcome, Store};

use support::Scale;
use support::load::Run;
use support::ours;
use support::peers::Peers;
use support::report::Report;
use support::script::COMMANDS_PER_SESSION;
use support::stats::Series;
use support::world::World;

/// Sessions of one append while the log is filled.
const SESSIONS: usize = 100;
/// Rows that postgres-es may read ahead; its default of 200 is slower.
const READ_AHEAD: usize = 5000;
const PEOPLE: usize = 100;

const COPY_IN: &str = "INSERT INTO vanilla.events SELECT 'session', i, s, t, '1', p::json, '{}' \
     FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) AS w(i, s, t, p)";
const COPY_OUT: &str = "COPY (SELECT position, committed_ms, event_id, aggregate_type, \
     aggregate_id, sequence, user_id, event_type, event_version, recorded_at, payload, metadata, \
     sealed, leaf_hash FROM events ORDER BY position) TO STDOUT (FORMAT binary)";

fn main() {
    let scale = Scale::of_process();
    support::run(async move {
        let mut report = Report::new("replay", scale);
        let world = World::new().await;
        let peers = Peers::new(&world.log, 4).await;
        let events = scale.pick(100_000, 1_000_000);
        let users = world.people(PEOPLE).await;
        fill(&world.store, &peers.raw, &users, events).await;
        sqlx::query("VACUUM ANALYZE").execute(&world.admin).await.expect("a vacuum");
        world.checkpoint().await;

        // Once each without counting, so that all read from memory.
        task(ours(world.store.clone(), events)).await;
        task(postgres_es(peers.vanilla.clone(), events)).await;
        task(copy(world.admin.clone())).await;
        let mut turns: [Series; 3] = Default::default();
        for _ in 0..scale.pick(3, 5) {
            turns[0].add(one(task(ours(world.store.clone(), events)).await), events as f64);
            turns[1]
                .add(one(task(postgres_es(peers.vanilla.clone(), events)).await), events as f64);
            turns[2].add(one(task(copy(world.admin.clone())).await), events as f64);
        }
        let [ours, es, copy] = &turns;
        report.rates("global_1m_vs_postgres_es", "events/s", ours, es);
        report.rates("global_1m_vs_copy", "events/s", ours, copy);
        world.close().await;
        report.finish();
    });
}

/// Runs a turn as a task: the main thread would have to be woken by another for every page.
async fn task(turn: impl Future<Output = Duration> + Send + 'static) -> Duration {
    tokio::spawn(turn).await.expect("a turn")
}

/// A turn that is one step.
fn one(elapsed: Duration) -> Run {
    Run { elapsed, latencies: vec![elapsed] }
}

/// Sessions of many people into the log, and their events in plaintext into postgres-es's table.
async fn fill(store: &Store, pool: &PgPool, users: &[UserId], events: usize) {
    let begun = Instant::now();
    let appends = events / (SESSIONS * COMMANDS_PER_SESSION);
    for user in users.iter().cycle().take(appends) {
        let (member, plain) = ours::sessions(store, *user, SESSIONS).await;
        let (outcome, ()) =
            futures_util::future::join(store.append(member), copy_in(pool, &plain)).await;
        assert!(matches!(outcome.expect("an append"), Outcome::Appended { .. }));
    }
    println!("{events} events written in {:.1} s\n", begun.elapsed().as_secs_f64());
}

async fn copy_in(pool: &PgPool, plain: &[(StreamId, Vec<SessionEvent>)]) {
    let (mut ids, mut sequences) = (Vec::new(), Vec::new());
    let (mut types, mut payloads) = (Vec::new(), Vec::new());
    for (stream, events) in plain {
        for (sequence, event) in (1_i64..).zip(events) {
            ids.push(stream.aggregate_id.clone());
            sequences.push(sequence);
            types.push(event.event_type());
            payloads.push(serde_json::to_string(event).expect("an event is JSON"));
        }
    }
    sqlx::query(COPY_IN)
        .bind(ids)
        .bind(sequences)
        .bind(types)
        .bind(payloads)
        .execute(pool)
        .await
        .expect("an insert");
}

/// All events, opened and typed, in the order of the log.
async fn ours(store: Store, events: usize) -> Duration {
    let begun = Instant::now();
    let head = store.head().await.expect("a head").position;
    let (mut last, mut open) = (0, 0);
    let mut pages = pin!(store.scan(0, head));
    while let Some(page) = pages.try_next().await.expect("a page") {
        for event in page {
            assert_eq!(event.position, last + 1);
            last = event.position;
            open += usize::from(matches!(event.content, Content::Open { .. }));
        }
    }
    let elapsed = begun.elapsed();
    assert!(open >= events, "{open} of {events}");
    elapsed
}

/// All events, typed, in the only order it has: that of each stream.
async fn postgres_es(pool: PgPool, events: usize) -> Duration {
    let begun = Instant::now();
    let repository = PostgresEventRepository::new(pool).with_streaming_channel_size(READ_AHEAD);
    let mut stream = repository.stream_all_events::<Session>().await.expect("a stream");
    let mut typed = 0;
    while let Some(event) = stream.next::<Session>(&[]).await {
        event.expect("an event");
        typed += 1;
    }
    let elapsed = begun.elapsed();
    assert_eq!(typed, events);
    elapsed
}

/// The same rows as ours as Postgres ships them fastest, thrown away.
async fn copy(pool: PgPool) -> Duration {
    let begun = Instant::now();
    let mut rows = pool.copy_out_raw(COPY_OUT).await.expect("a copy");
    let mut bytes = 0;
    while let Some(chunk) = rows.try_next().await.expect("a chunk") {
        bytes += chunk.len();
    }
    assert!(bytes > 0);
    begun.elapsed()
}
