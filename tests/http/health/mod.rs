//! Uploads of health data. Names carry the numbers of the health ingestion invariants.

mod deletions;
mod histories;
mod idempotency;
mod paging;
mod privacy;
mod refusals;
mod uploads;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use aggregates::AnyEvent;
use aggregates::health_batch::{Applied, HealthBatchEvent};
use aggregates::segment::{Key, Sample};
use serde_json::{Value, json};
use tidemark::commands::verify::{verify_segments, verify_streams};
use tidemark::ids;
use tidemark::store::Filter;
use tidemark::store::segments::{Segments, all_tombstones};
use uuid::Uuid;

use crate::world::{Answer, Person};

/// 2026-03-01T00:00:00Z.
const MARCH: i64 = 1_772_323_200_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const UPSERT: &str = "/api/v1/health/samples/batch-upsert";

fn iso(at_ms: i64) -> String {
    tidemark::http::time::iso_ms(chrono::DateTime::from_timestamp_millis(at_ms).unwrap())
}

fn heart_rate(record: &str, start_ms: i64, value: impl Into<Value>) -> Value {
    json!({
        "sourceId": "apple_healthkit", "sourceRecordId": record, "metricCode": "heart_rate",
        "valueKind": "SCALAR_NUM", "value": value.into(), "unit": "bpm",
        "startAt": iso(start_ms), "endAt": iso(start_ms), "durationSeconds": 0,
    })
}

fn sleep(record: &str, start_ms: i64, end_ms: i64) -> Value {
    json!({
        "sourceId": "apple_healthkit", "sourceRecordId": record, "metricCode": "sleep_stage",
        "valueKind": "CATEGORY", "categoryCode": "deep",
        "startAt": iso(start_ms), "endAt": iso(end_ms),
    })
}

fn deletion(record: &str, start_ms: Option<i64>) -> Value {
    match start_ms {
        Some(start) => json!({
            "sourceId": "apple_healthkit", "sourceRecordId": record, "startAt": iso(start),
        }),
        None => json!({"sourceId": "apple_healthkit", "sourceRecordId": record}),
    }
}

fn with(mut sample: Value, name: &str, value: impl Into<Value>) -> Value {
    sample[name] = value.into();
    sample
}

/// A request under its own id. The hash is not the shipped client's, which must not matter.
fn body(request_id: Uuid, samples: &[Value], deleted: &[Value]) -> Value {
    json!({
        "requestId": request_id, "payloadHash": "0".repeat(64), "configVersion": 3,
        "samples": samples, "deleted": deleted,
    })
}

/// What must be the same in every answer to one request.
fn lasting(answer: &Answer) -> (u16, String, Value) {
    let mut body = answer.body.clone();
    let metadata = body["metadata"].as_object_mut().unwrap();
    metadata.remove("timestamp");
    metadata.remove("correlationId");
    (answer.status.as_u16(), answer.header("x-health-watermark").to_owned(), body)
}

fn codes(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["errorCode"].as_str().unwrap()).collect()
}

/// Waits until so many appends wait for a lock, and tells their processes.
async fn waiting_appends(admin: &mut sqlx::PgConnection, count: usize) -> Vec<i32> {
    let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database() AND query LIKE '%FROM append(%'";
    loop {
        let pids: Vec<i32> = sqlx::query_scalar(waiting).fetch_all(&mut *admin).await.unwrap();
        if pids.len() >= count {
            return pids;
        }
    }
}

/// What is stored of one person.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    rows: BTreeMap<Key, Sample>,
    tombstones: BTreeSet<Vec<u8>>,
    health_seq: i64,
    pos_health: i64,
}

impl Stored {
    /// Rows without the marks that tell which batch wrote them and when.
    fn content(&self) -> Vec<Sample> {
        let plain = |row: &Sample| Sample {
            batch_seq: 0,
            created_ms: 0,
            deleted_ms: row.deleted_ms.map(|_| 0),
            ..row.clone()
        };
        self.rows.values().map(plain).collect()
    }

    fn active(&self) -> usize {
        self.rows.values().filter(|row| row.is_active()).count()
    }
}

impl Person<'_> {
    async fn send(&self, body: &Value) -> Answer {
        Answer::of(self.post(UPSERT).header("x-timezone-offset", "60").json(body)).await
    }

    async fn upload(&self, samples: &[Value], deleted: &[Value]) -> Answer {
        self.send(&body(ids::new_id(), samples, deleted)).await
    }

    async fn stored(&self) -> Stored {
        let store = &self.world.app.store;
        let key = store.health_key(self.user).await.unwrap();
        let mut connection = store.pool().acquire().await.unwrap();
        let segments = Segments::new(self.user, &key);
        let mut rows = BTreeMap::new();
        for segment in segments.page(&mut connection, -1, i64::MAX).await.unwrap() {
            for sample in segment.samples {
                let again = rows.insert(sample.key.clone(), sample);
                assert_eq!(again, None, "health invariant 1: one row a key");
            }
        }
        let tombstones = all_tombstones(&mut connection, self.user).await.unwrap();
        let head = store.user_head(self.user).await.unwrap();
        Stored { rows, tombstones, health_seq: head.health_seq, pos_health: head.pos_health }
    }

    /// The person's batches, in the order of the log.
    async fn batches(&self) -> Vec<Applied> {
        let store = &self.world.app.store;
        let filter = Filter {
            user: Some(self.user),
            aggregate_types: vec!["health_batch".to_owned()],
            ..Filter::default()
        };
        let events = store.page(0, i64::MAX, 2000, &filter).await.unwrap();
        let applied = |event: &AnyEvent| match event {
            AnyEvent::HealthBatch(HealthBatchEvent::Applied(applied)) => (**applied).clone(),
            other => panic!("{other:?}"),
        };
        events.iter().map(|recorded| applied(recorded.event().unwrap())).collect()
    }

    /// Everything beside the log is as the log says (12), and the watermark counted the changes.
    async fn verify(&self) {
        let store = &self.world.app.store;
        assert_eq!(verify_segments(store, self.user).await.unwrap(), Vec::<String>::new());
        assert_eq!(verify_streams(store, self.user).await.unwrap(), Vec::<String>::new());
        let changing: Vec<i64> = self
            .batches()
            .await
            .iter()
            .filter(|batch| batch.facts.changed)
            .map(|batch| batch.facts.health_seq)
            .collect();
        let health_seq = store.user_head(self.user).await.unwrap().health_seq;
        assert_eq!(changing, (1..=health_seq).collect::<Vec<_>>(), "health invariants 21 to 23");
    }
}
