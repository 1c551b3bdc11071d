//! Locks that somebody holds for too long: callers are told in time to come back, and nothing is
//! half written.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tidemark::ids;
use tidemark::projector::service::Projectors;

use crate::erasure::caught_up;
use crate::rest::{MINUTE, call, get, iso, now, ok};
use crate::support::{connect, verified};
use crate::world::{Answer, Person, World};

/// In this time everybody has an answer: twice what a statement waits for a lock, and some for a
/// busy machine.
const IN_TIME: Duration = Duration::from_secs(20);

/// Requests through both lanes, each under its own id, so that it can be repeated.
struct Requests {
    rename: Value,
    push: Value,
    upload: Value,
}

impl Requests {
    fn new(person: &Person<'_>) -> Self {
        let id = ids::new_id();
        let at = iso(now() - MINUTE);
        let consumption = json!({ "entityType": "consumptions", "entityId": id, "clientId": id,
            "changeType": "CREATE", "requestId": ids::new_id(), "version": 1, "timestamp": at,
            "data": { "clientConsumptionId": id, "durationMs": 1000, "timestamp": at } });
        let sample = json!({ "sourceId": "apple_healthkit", "sourceRecordId": "r",
            "metricCode": "heart_rate", "valueKind": "SCALAR_NUM", "value": 61, "unit": "bpm",
            "startAt": at, "endAt": at, "durationSeconds": 0 });
        Self {
            rename: json!({ "name": "renamed" }),
            push: json!({ "deviceId": person.device(), "syncOperationId": "s",
                "changes": [consumption] }),
            upload: json!({ "requestId": ids::new_id(), "payloadHash": "0".repeat(64),
                "configVersion": 3, "samples": [sample], "deleted": [] }),
        }
    }

    async fn send(&self, person: &Person<'_>) -> [Answer; 3] {
        let (rename, push, upload) = tokio::join!(
            call(person, Method::PATCH, "/users/me", self.rename.clone()),
            call(person, Method::POST, "/sync/push", self.push.clone()),
            call(person, Method::POST, "/health/samples/batch-upsert", self.upload.clone()),
        );
        [rename, push, upload]
    }
}

/// What is stored of everybody, as numbers of rows.
async fn rows(db: &mut PgConnection) -> Vec<i64> {
    let query = "SELECT ARRAY[(SELECT count(*) FROM events), (SELECT count(*) FROM streams), \
         (SELECT count(*) FROM receipts), (SELECT count(*) FROM reservations), \
         (SELECT count(*) FROM health_segments), (SELECT sum(received_seq)::bigint FROM user_heads), \
         (SELECT position FROM log_head)]";
    sqlx::query_scalar(query).fetch_one(db).await.unwrap()
}

/// What came of it is whole: log, state and read models agree.
async fn whole(world: &World) {
    let projectors = Projectors::start(&world.app.read_pool, &world.app.source());
    caught_up(world).await;
    projectors.stop().await;
    verified(&world.app).await;
}

/// 503 with a time to come back, or, for an item of a push, the same in its own words.
fn come_back(answer: &Answer) {
    if answer.status == 200 {
        let failed = &answer.body["data"]["failed"][0];
        assert_eq!(failed["retryable"], true, "{}", answer.body);
        return;
    }
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "SERVICE_UNAVAILABLE"));
    assert!(answer.header("retry-after").parse::<u64>().is_ok(), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_log_head_refuses_in_time_and_half_of_nothing_is_there() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let requests = Requests::new(&ann);
    let mut looking = connect(&world.database.log).await;
    let before = rows(&mut looking).await;

    let mut holder = connect(&world.database.log).await;
    let mut held = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM log_head FOR UPDATE").execute(&mut *held).await.unwrap();
    let began = Instant::now();
    let sending = requests.send(&ann);
    // Reading goes on meanwhile.
    let reading = async {
        ok(get(&ann, "/users/me").await);
        ok(get(&ann, "/sync/changes?limit=10").await);
        assert!(began.elapsed() < Duration::from_secs(4), "readers wait for a writer's lock");
    };
    let (refused, ()) = tokio::join!(sending, reading);
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    refused.iter().for_each(come_back);
    assert_eq!(rows(&mut looking).await, before, "nothing is half written");
    held.rollback().await.unwrap();

    // The same requests, as phones repeat them, succeed and count once; and again, change nothing.
    for answer in requests.send(&ann).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let after = rows(&mut looking).await;
    for answer in requests.send(&ann).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(rows(&mut looking).await[..2], after[..2]);
    assert_eq!(after[5], before[5] + 1, "one batch");
    whole(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_stream_refuses_its_owner_in_time_and_others_get_through() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let mut looking = connect(&world.database.log).await;
    let before = rows(&mut looking).await;

    let mut holder = connect(&world.database.log).await;
    let mut held = holder.begin().await.unwrap();
    let lock = "SELECT 1 FROM streams WHERE user_id = $1 FOR UPDATE";
    sqlx::query(lock).bind(ann.user.0).execute(&mut *held).await.unwrap();
    let began = Instant::now();
    let hers = call(&ann, Method::PATCH, "/users/me", json!({ "name": "ann" })).await;
    come_back(&hers);
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    assert_eq!(rows(&mut looking).await, before, "nothing is half written");
    // He may have to come back as well, while hers is waited for, but not in vain.
    let began = Instant::now();
    while call(&ben, Method::PATCH, "/users/me", json!({ "name": "ben" })).await.status != 200 {
        assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    }
    held.rollback().await.unwrap();
    let hers = ok(call(&ann, Method::PATCH, "/users/me", json!({ "name": "ann" })).await);
    assert_eq!(hers["name"], "ann");
    whole(&world).await;
}

/// A lane is held by the person's other upload, in another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_lane_refuses_uploads_of_that_person_only() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let other = world.another().await;
    let lane = other.app.store.lane(ann.user).await.unwrap();
    let path = "/health/samples/batch-upsert";
    let hers = Requests::new(&ann).upload;
    let began = Instant::now();
    let (refused, accepted) = tokio::join!(
        call(&ann, Method::POST, path, hers.clone()),
        call(&ben, Method::POST, path, Requests::new(&ben).upload),
    );
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    come_back(&refused);
    assert_eq!(refused.body["error"]["retryable"], true, "{}", refused.body);
    assert_eq!(accepted.status, 200, "{}", accepted.body);
    lane.release().await;
    assert_eq!(call(&ann, Method::POST, path, hers).await.status, 200);
    whole(&world).await;
}
