//! What a command costs, against postgres-es and against bare SQL.
//!
//! Ours is the whole path of a command: load the state, decide, seal, hash, append with a receipt
//! and the new state. postgres-es runs the same aggregate through its framework, in plaintext.

#![allow(clippy::expect_used, reason = "a bench that cannot run fails by panicking")]

mod support;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aggregates::UserId;
use aggregates::session::Session;
use futures_util::future::join_all;
use tidemark::store::{Filter, Store};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_stream::StreamExt;

use support::Scale;
use support::load::{Run, Worker, drive};
use support::ours::{Appender, Commander, Importer};
use support::peers::{Bulk, EsCommander, EsImporter, Peers, RawImporter, RawWriter, Rows};
use support::report::Report;
use support::script::BATCH;
use support::server::Served;
use support::stats::{Series, median, percentile_ms};
use support::world::{DataDir, World};

const WRITERS: usize = 16;
const IN_FLIGHT: usize = 256;

fn main() {
    let scale = Scale::of_process();
    support::run(async move {
        let mut report = Report::new("append", scale);
        let world = World::new().await;
        let bench = Bench {
            people: world.people(IN_FLIGHT).await,
            peers: Peers::new(&world.log, u32::try_from(WRITERS).expect("a small number")).await,
            rows: Rows::prepared(),
            world,
            scale,
        };
        println!("payloads of {} bytes\n", bench.rows.payload_bytes());
        bench.one_writer(&mut report).await;
        let peak = bench.many_writers(&mut report).await;
        bench.batches(&mut report).await;
        bench.live_lag(peak / 2.0, &mut report).await;
        bench.world.close().await;
        server(scale, &mut report).await;
        report.finish();
    });
}

struct Bench {
    world: World,
    peers: Peers,
    people: Vec<UserId>,
    rows: Arc<Rows>,
    scale: Scale,
}

impl Bench {
    /// One turn of a side.
    async fn turn<W: Worker>(&self, workers: &mut Vec<W>) -> Run {
        self.world.checkpoint().await;
        drive(workers, self.scale.turn()).await
    }

    async fn warm_up<W: Worker>(&self, workers: &mut Vec<W>) {
        drive(workers, self.scale.warm_up()).await;
    }

    fn commanders(&self, count: usize) -> Vec<Commander> {
        self.people[..count].iter().map(|user| Commander::new(&self.world.store, *user)).collect()
    }

    fn es_commanders(&self, count: usize) -> Vec<EsCommander> {
        let framework = self.peers.framework::<Session>();
        (0..count).map(|_| EsCommander::new(Arc::clone(&framework))).collect()
    }

    async fn one_writer(&self, report: &mut Report) {
        let (mut ours, mut es) = (self.commanders(1), self.es_commanders(1));
        self.warm_up(&mut ours).await;
        self.warm_up(&mut es).await;
        let (mut our_turns, mut es_turns) = (Series::default(), Series::default());
        for _ in 0..self.scale.pairs() {
            our_turns.add(self.turn(&mut ours).await, 1.0);
            es_turns.add(self.turn(&mut es).await, 1.0);
        }
        report.rates("command_1_writer_vs_postgres_es", "commands/s", &our_turns, &es_turns);
    }

    /// Answers how many commands a second we took from 16 writers.
    async fn many_writers(&self, report: &mut Report) -> f64 {
        let mut ours = self.commanders(WRITERS);
        let mut es = self.es_commanders(WRITERS);
        let mut raw: Vec<RawWriter> =
            (0..WRITERS).map(|_| RawWriter::new(&self.peers.raw, &self.rows)).collect();
        let mut flight = self.commanders(IN_FLIGHT);
        self.warm_up(&mut ours).await;
        self.warm_up(&mut es).await;
        self.warm_up(&mut raw).await;
        self.warm_up(&mut flight).await;

        let mut turns: [Series; 5] = Default::default();
        for _ in 0..self.scale.pairs() {
            turns[0].add(self.turn(&mut ours).await, 1.0);
            turns[1].add(self.turn(&mut es).await, 1.0);
            turns[2].add(self.turn(&mut raw).await, 1.0);
            turns[3].add(self.turn(&mut flight).await, 1.0);
            // As many as it may need; what is left over was made for nothing.
            let seconds = self.scale.turn().as_secs_f64();
            let each = (turns[0].rate() * 2.0 * seconds) as usize / WRITERS + 1;
            let prepared = self.people[..WRITERS]
                .iter()
                .map(|user| Appender::prepared(&self.world.store, *user, each));
            turns[4].add(self.turn(&mut join_all(prepared).await).await, 1.0);
        }
        let [ours, es, raw, flight, bare] = &turns;
        let per_second = "commands/s";
        report.rates("command_16_writers_vs_postgres_es", per_second, ours, es);
        report.rates("command_16_writers_vs_raw_insert", per_second, ours, raw);
        report.rates("command_256_in_flight_vs_postgres_es_16", per_second, flight, es);
        report.rates("bare_append_16_vs_postgres_es", per_second, bare, es);
        report.costs("p99_16_writers", "ms", ours.latency_ms(0.99), es.latency_ms(0.99));
        ours.rate()
    }

    /// A thousand events in one command.
    async fn batches(&self, report: &mut Report) {
        let mut ours = vec![Importer { store: self.world.store.clone(), user: self.people[0] }];
        let mut es = vec![EsImporter(self.peers.framework::<Bulk>())];
        let pool = self.peers.raw.clone();
        let mut raw = vec![RawImporter { pool, rows: Arc::clone(&self.rows) }];
        self.warm_up(&mut ours).await;
        self.warm_up(&mut es).await;
        self.warm_up(&mut raw).await;
        let mut turns: [Series; 3] = Default::default();
        let weight = BATCH as f64;
        for _ in 0..self.scale.pairs() {
            turns[0].add(self.turn(&mut ours).await, weight);
            turns[1].add(self.turn(&mut es).await, weight);
            turns[2].add(self.turn(&mut raw).await, weight);
        }
        let [ours, es, raw] = &turns;
        report.rates("batch_1000_vs_postgres_es", "events/s", ours, es);
        report.rates("batch_1000_vs_raw_unnest", "events/s", ours, raw);
    }

    /// How far a subscriber is behind while 16 writers give `rate` commands a second: in the
    /// writers' process, and in another that only notifications reach.
    async fn live_lag(&self, rate: f64, report: &mut Report) {
        let duration = self.scale.turn() * 2;
        let other = self.world.another_process().await;
        let until = Instant::now() + duration;
        let period = Duration::from_secs_f64(WRITERS as f64 / rate);
        let here = tokio::spawn(lags(self.world.store.clone(), until));
        let there = tokio::spawn(lags(other, until));
        let writers = self.commanders(WRITERS).into_iter();
        let writers = writers.map(|writer| tokio::spawn(paced(writer, period, until)));
        for writer in join_all(writers).await {
            writer.expect("a writer");
        }
        let (here, there) = (here.await.expect("a reader"), there.await.expect("a reader"));
        assert!(!here.is_empty(), "nothing was followed");
        report.alone("live_lag_p99", "ms", percentile_ms(&here, 0.99));
        report.alone("live_lag_other_process_p99", "ms", percentile_ms(&there, 0.99));
    }
}

/// Gives a command each `period`; what is late is made up for.
async fn paced(mut writer: Commander, period: Duration, until: Instant) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while ticks.tick().await < until {
        writer.step().await;
    }
}

/// From when Postgres gave each event its time, under the head lock and before its commit, until a
/// subscriber has it opened. That time is in whole ms, so the lag is overstated by up to 1 ms.
async fn lags(store: Store, until: Instant) -> Vec<Duration> {
    let after = store.head().await.expect("a head").position;
    let mut events = pin!(store.subscribe(after, Filter::default()));
    let mut lags = Vec::new();
    while let Ok(Some(event)) = timeout_at(until, events.next()).await {
        let committed = u64::try_from(event.expect("an event").committed_ms).expect("a time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        lags.push(now.saturating_sub(Duration::from_millis(committed)));
    }
    lags
}

/// What the program itself takes: memory when idle, and the time to start on existing data.
async fn server(scale: Scale, report: &mut Report) {
    let directory = DataDir::new();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let first = Served::start(&directory.path());
    first.ready(&client).await;
    first.stop();
    let (mut resident, mut started) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(3, 5) {
        let begun = Instant::now();
        let server = Served::start(&directory.path());
        server.ready(&client).await;
        started.push(begun.elapsed().as_secs_f64() * 1e3);
        sleep(scale.pick(Duration::from_secs(2), Duration::from_secs(10))).await;
        resident.push(server.resident_mb());
        server.stop();
    }
    report.alone("idle_rss", "MB", median(&resident));
    report.alone("start_up", "ms", median(&started));
}
