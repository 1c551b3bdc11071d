//! Health uploads over HTTP, against an upsert of the same samples into a table of rows.
//!
//! Ours is the program itself with everything a phone meets: HTTP, JSON, token, validation,
//! identity of samples, privacy, sealing, event, receipt; its projectors run beside it. The other
//! side is sixteen connections that write arrays made before.

#![allow(clippy::expect_used, reason = "a bench that cannot run fails by panicking")]

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use tidemark::auth::dev::DevIssuer;
use tidemark::ids;
use tidemark::postgres::{Cluster, PoolSettings, pool};
use uuid::Uuid;

use support::Scale;
use support::load::{Worker, drive};
use support::report::Report;
use support::server::Served;
use support::stats::Series;
use support::world::DataDir;

const PHONES: usize = 16;
/// Samples of one upload.
const UPLOAD: usize = 500;
const SOURCE: &str = "apple_healthkit";
/// 2026-03-01T00:00:00Z.
const MARCH: i64 = 1_772_323_200_000;
const MINUTE: i64 = 60_000;
/// More than any turn takes: a turn ends when its uploads are sent.
const LONG: Duration = Duration::from_secs(3600);

const TABLES: &str = "
CREATE SCHEMA raw;
CREATE TABLE raw.samples (
    user_id          uuid        NOT NULL,
    source_id        text        NOT NULL,
    source_record_id text        NOT NULL,
    start_at         timestamptz NOT NULL,
    end_at           timestamptz NOT NULL,
    metric_code      text        NOT NULL,
    value            numeric     NOT NULL,
    unit             text        NOT NULL,
    duration_seconds int         NOT NULL,
    offset_minutes   smallint    NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    deleted_at       timestamptz,
    PRIMARY KEY (user_id, source_id, source_record_id, start_at)
);";
const UPSERT: &str = "INSERT INTO raw.samples AS s (user_id, source_id, source_record_id, start_at, \
     end_at, metric_code, value, unit, duration_seconds, offset_minutes) \
     SELECT $1, $2, r, b, e, m, v::numeric, u, d, 60 \
     FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::float8[], \
                 $8::text[], $9::int[]) AS w(r, b, e, m, v, u, d) \
     ON CONFLICT (user_id, source_id, source_record_id, start_at) DO UPDATE \
     SET value = excluded.value, end_at = excluded.end_at \
     WHERE (s.value, s.end_at) IS DISTINCT FROM (excluded.value, excluded.end_at)";
/// Everything of ours in the database of the log, read models and their bookkeeping included.
const OUR_BYTES: &str = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' \
     AND n.nspname NOT IN ('raw', 'pg_catalog', 'information_schema', 'pg_toast')";
const RAW_BYTES: &str = "SELECT pg_total_relation_size('raw.samples')";
const WAL: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
const PROJECTED: &str = "SELECT coalesce(min(c.position), 0) >= (SELECT position FROM log_head) \
     FROM projector.checkpoints c JOIN projector.generations g USING (projector, generation) \
     WHERE g.state = 'live'";

fn main() {
    let scale = Scale::of_process();
    support::run(async move {
        let mut report = Report::new("ingest", scale);
        let directory = DataDir::new();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        prepare(&directory, &client).await;
        let server = Served::start(&directory.path());
        server.ready(&client).await;
        let log = Cluster::beside(&directory.config(), "tidemark").expect("the cluster");
        let phones = u32::try_from(PHONES).expect("a small number");
        let raw = pool(&log, &PoolSettings::interactive("bench-raw", phones));
        sqlx::raw_sql(TABLES).execute(&raw).await.expect("tables");
        let issuer = DevIssuer::open(&directory.path()).expect("the development issuer");
        let people: Vec<Person> =
            (0..PHONES).map(|nth| Person::new(nth, &issuer, &server.base, &client)).collect();
        measure(scale, people, &raw, &mut report).await;
        raw.close().await;
        server.stop();
        report.finish();
    });
}

/// Makes the cluster and room in it for both sides' connections; everything else as a user gets it.
async fn prepare(directory: &DataDir, client: &reqwest::Client) {
    let server = Served::start(&directory.path());
    server.ready(client).await;
    let log = Cluster::beside(&directory.config(), "tidemark").expect("the cluster");
    let admin = pool(&log, &PoolSettings::interactive("bench", 1));
    sqlx::query("ALTER SYSTEM SET max_connections = 150").execute(&admin).await.expect("a setting");
    admin.close().await;
    server.stop();
}

async fn measure(scale: Scale, mut people: Vec<Person>, raw: &PgPool, report: &mut Report) {
    // Once without counting: accounts, connections and plans. A turn's samples are made before it.
    let warm = uploads_of(&mut people, 2);
    drive(&mut phones(&people, &warm), LONG).await;
    drive(&mut tables(&people, &warm, raw), LONG).await;
    until_projected(raw).await;

    let each = scale.pick(16, 60);
    let (mut ours, mut theirs) = (Series::default(), Series::default());
    let (mut folded, mut our_wal, mut raw_wal) = (Series::default(), 0, 0);
    let our_bytes = number(raw, OUR_BYTES).await;
    let raw_bytes = number(raw, RAW_BYTES).await;
    let mut samples = 0;
    for _ in 0..scale.pick(3, 5) {
        let uploads = uploads_of(&mut people, each);
        let (mut phones, mut tables) = (phones(&people, &uploads), tables(&people, &uploads, raw));
        samples += people.len() * each * UPLOAD;

        let (begun, wal) = (checkpointed(raw).await, number(raw, WAL).await);
        let run = drive(&mut phones, LONG).await;
        let mut until_folded = run.clone();
        until_projected(raw).await;
        until_folded.elapsed = begun.elapsed();
        our_wal += number(raw, WAL).await - wal;
        ours.add(run, UPLOAD as f64);
        folded.add(until_folded, UPLOAD as f64);

        let (_, wal) = (checkpointed(raw).await, number(raw, WAL).await);
        theirs.add(drive(&mut tables, LONG).await, UPLOAD as f64);
        raw_wal += number(raw, WAL).await - wal;
    }
    report.rates("http_16_phones_vs_raw_upsert", "samples/s", &ours, &theirs);
    report.rates("http_16_phones_to_read_models_vs_raw_upsert", "samples/s", &folded, &theirs);
    report.alone("http_16_phones_p99", "ms", ours.latency_ms(0.99));
    let per_sample = |bytes: i64| bytes as f64 / samples as f64;
    let our_growth = per_sample(number(raw, OUR_BYTES).await - our_bytes);
    let raw_growth = per_sample(number(raw, RAW_BYTES).await - raw_bytes);
    report.costs("raw_bytes_per_sample_vs_ours", "bytes", our_growth, raw_growth);
    report.costs("raw_wal_per_sample_vs_ours", "bytes", per_sample(our_wal), per_sample(raw_wal));
}

async fn number(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.expect("a number")
}

async fn checkpointed(pool: &PgPool) -> Instant {
    sqlx::query("CHECKPOINT").execute(pool).await.expect("a checkpoint");
    Instant::now()
}

/// Waits until the read models hold everything.
async fn until_projected(pool: &PgPool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !sqlx::query_scalar::<_, bool>(PROJECTED).fetch_one(pool).await.expect("an answer") {
        assert!(Instant::now() < deadline, "the read models do not follow");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Somebody with a phone that records as time goes on.
struct Person {
    raw_id: Uuid,
    token: String,
    device: Uuid,
    url: String,
    client: reqwest::Client,
    minute: i64,
}

impl Person {
    fn new(nth: usize, issuer: &DevIssuer, base: &str, client: &reqwest::Client) -> Self {
        let (subject, hours) = (format!("phone-{nth}"), Duration::from_secs(12 * 3600));
        Self {
            raw_id: ids::new_id(),
            token: issuer.issue(&subject, &BTreeSet::new(), hours).expect("a token"),
            device: ids::new_id(),
            url: format!("{base}/api/v1/health/samples/batch-upsert"),
            client: client.clone(),
            minute: 0,
        }
    }
}

/// What a phone measured.
struct Measured {
    record: String,
    metric: &'static str,
    kind: &'static str,
    unit: &'static str,
    value: f64,
    start_ms: i64,
    end_ms: i64,
}

/// The next samples of each person: a heart rate a minute, steps now and then, under random ids.
fn uploads_of(people: &mut [Person], each: usize) -> Vec<Vec<Vec<Measured>>> {
    people.iter_mut().map(|person| (0..each).map(|_| upload_of(person)).collect()).collect()
}

fn upload_of(person: &mut Person) -> Vec<Measured> {
    let mut samples = Vec::with_capacity(UPLOAD);
    while samples.len() < UPLOAD {
        let record = ids::new_id();
        // The random id is chance enough for the values too.
        let [a, b, c, ..] = *record.as_bytes();
        let start_ms = MARCH + person.minute * MINUTE + i64::from(a) * 100;
        let steps = samples.len() % 6 == 5;
        person.minute += i64::from(!steps);
        let (metric, kind, unit, value, length) = if steps {
            ("steps", "CUMULATIVE_NUM", "count", f64::from(b), 5 * MINUTE)
        } else {
            ("heart_rate", "SCALAR_NUM", "bpm", f64::from(55 + b % 50 + c % 8), 0)
        };
        let (record, end_ms) = (record.to_string().to_uppercase(), start_ms + length);
        samples.push(Measured { record, metric, kind, unit, value, start_ms, end_ms });
    }
    samples
}

/// Sends one upload after another.
struct Phone {
    client: reqwest::Client,
    url: String,
    token: String,
    device: String,
    bodies: VecDeque<String>,
}

fn phones(people: &[Person], uploads: &[Vec<Vec<Measured>>]) -> Vec<Phone> {
    let phone = |(person, uploads): (&Person, &Vec<Vec<Measured>>)| Phone {
        client: person.client.clone(),
        url: person.url.clone(),
        token: person.token.clone(),
        device: person.device.to_string(),
        bodies: uploads.iter().map(|upload| body(upload)).collect(),
    };
    people.iter().zip(uploads).map(phone).collect()
}

fn body(upload: &[Measured]) -> String {
    let samples: Vec<Value> = upload
        .iter()
        .map(|sample| {
            json!({
                "sourceId": SOURCE, "sourceRecordId": sample.record,
                "metricCode": sample.metric, "valueKind": sample.kind, "value": sample.value,
                "unit": sample.unit, "startAt": iso(sample.start_ms), "endAt": iso(sample.end_ms),
                "durationSeconds": (sample.end_ms - sample.start_ms) / 1000,
            })
        })
        .collect();
    let request = json!({
        "requestId": ids::new_id(), "payloadHash": "0".repeat(64), "configVersion": 3,
        "samples": samples, "deleted": [],
    });
    request.to_string()
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).expect("a time")
}

fn iso(ms: i64) -> String {
    time(ms).to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl Worker for Phone {
    async fn step(&mut self) -> bool {
        let Some(body) = self.bodies.pop_front() else { return false };
        let answer = self
            .client
            .post(&self.url)
            .bearer_auth(&self.token)
            .header("x-device-id", &self.device)
            .header("x-timezone-offset", "60")
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert_eq!(status.as_u16(), 200, "{}", text.split("\"failed\"").last().unwrap_or_default());
        true
    }
}

/// Writes one upload after another as rows.
struct Table {
    pool: PgPool,
    user: Uuid,
    uploads: VecDeque<Columns>,
}

#[derive(Default)]
struct Columns {
    records: Vec<String>,
    starts: Vec<DateTime<Utc>>,
    ends: Vec<DateTime<Utc>>,
    metrics: Vec<&'static str>,
    values: Vec<f64>,
    units: Vec<&'static str>,
    durations: Vec<i32>,
}

impl Columns {
    fn of(upload: &[Measured]) -> Self {
        let mut columns = Self::default();
        for sample in upload {
            columns.records.push(sample.record.to_lowercase());
            columns.starts.push(time(sample.start_ms));
            columns.ends.push(time(sample.end_ms));
            columns.metrics.push(sample.metric);
            columns.values.push(sample.value);
            columns.units.push(sample.unit);
            let seconds = (sample.end_ms - sample.start_ms) / 1000;
            columns.durations.push(i32::try_from(seconds).expect("a short time"));
        }
        columns
    }
}

fn tables(people: &[Person], uploads: &[Vec<Vec<Measured>>], pool: &PgPool) -> Vec<Table> {
    let table = |(person, uploads): (&Person, &Vec<Vec<Measured>>)| Table {
        pool: pool.clone(),
        user: person.raw_id,
        uploads: uploads.iter().map(|upload| Columns::of(upload)).collect(),
    };
    people.iter().zip(uploads).map(table).collect()
}

impl Worker for Table {
    async fn step(&mut self) -> bool {
        let Some(columns) = self.uploads.pop_front() else { return false };
        sqlx::query(UPSERT)
            .bind(self.user)
            .bind(SOURCE)
            .bind(columns.records)
            .bind(columns.starts)
            .bind(columns.ends)
            .bind(columns.metrics)
            .bind(columns.values)
            .bind(columns.units)
            .bind(columns.durations)
            .execute(&self.pool)
            .await
            .expect("an upsert");
        true
    }
}
