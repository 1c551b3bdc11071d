//! The drill: one person is erased end to end, and everybody else is as before.

use std::time::{Duration, Instant};

use aggregates::{Metadata, Purpose};
use serde_json::{Value, json};
use sqlx::Row;
use tidemark::commands::subject::shred;
use tidemark::ids;
use tidemark::projector::rebuild;
use tidemark::projector::service::Projectors;
use tidemark::read_models::ReadModel;

use crate::world::{Answer, Person, World};

/// Written by the person who leaves, and nowhere to be found afterwards.
const CANARY: &str = "canary-7f3a";

async fn log_something(person: &Person<'_>, note: &str) {
    let session = ids::new_id();
    let change = json!({
        "entityType": "sessions", "entityId": session, "changeType": "CREATE",
        "requestId": ids::new_id(), "timestamp": "2026-03-01T10:00:00.000Z",
        "data": {
            "clientSessionId": session, "sessionStartTimestamp": "2026-03-01T10:00:00.000Z",
            "notes": note,
        },
    });
    let push = json!({
        "deviceId": "phone", "syncOperationId": ids::new_id(), "changes": [change],
    });
    let pushed = Answer::of(person.post("/api/v1/sync/push").json(&push)).await;
    assert_eq!(pushed.body["data"]["successful"].as_array().unwrap().len(), 1, "{}", pushed.body);
    let sample = |n: u32| {
        let at = format!("2026-03-01T{:02}:00:00.000Z", n % 24);
        json!({
            "sourceId": "apple_healthkit", "sourceRecordId": format!("{note}-{n}"),
            "metricCode": "heart_rate", "valueKind": "SCALAR_NUM", "value": 60 + n,
            "unit": "bpm", "startAt": at, "endAt": at,
        })
    };
    let batch = json!({
        "requestId": ids::new_id(), "payloadHash": "0".repeat(64),
        "samples": (0..20).map(sample).collect::<Vec<Value>>(),
    });
    let upload = person.post("/api/v1/health/samples/batch-upsert").json(&batch);
    assert_eq!(Answer::of(upload).await.status, 200);
    let rename = person.request(reqwest::Method::PATCH, "/api/v1/users/me");
    assert_eq!(Answer::of(rename.json(&json!({ "name": note }))).await.status, 200);
}

/// Waits until every read model has met everything in the log.
pub async fn caught_up(world: &World) {
    let head = world.position().await;
    let began = Instant::now();
    loop {
        let behind: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM projector.checkpoints c JOIN projector.generations g \
             USING (projector, generation) WHERE g.state = 'live' AND c.position < $1",
        )
        .bind(head)
        .fetch_one(&world.app.read_pool)
        .await
        .unwrap();
        let live: i64 =
            sqlx::query_scalar("SELECT count(*) FROM projector.generations WHERE state = 'live'")
                .fetch_one(&world.app.read_pool)
                .await
                .unwrap();
        if behind == 0 && live == i64::try_from(ReadModel::ALL.len()).unwrap() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "projectors do not catch up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All rows of the read models, and what the log and the inline state say of one person.
async fn of_person(world: &World, person: &Person<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["live.health_rollup_days", "live.entities", "streams", "health_segments"] {
        let sql = format!("SELECT to_jsonb(t) - 'computed_at' FROM {table} t WHERE user_id = $1");
        let rows: Vec<Value> = sqlx::query_scalar(&sql)
            .bind(person.user.0)
            .fetch_all(&world.app.read_pool)
            .await
            .unwrap();
        found.extend(rows.iter().map(|row| format!("{table} {row}")));
    }
    found.sort();
    found
}

/// Tables of the whole database that contain the canary in any readable form.
async fn tables_with_canary(world: &World) -> Vec<String> {
    let tables = sqlx::query(
        "SELECT schemaname, tablename FROM pg_tables \
         WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&world.app.read_pool)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let (schema, name): (String, String) = (table.get(0), table.get(1));
        let sql = format!(
            "SELECT count(*) FROM \"{schema}\".\"{name}\" t WHERE t::text LIKE '%{CANARY}%' \
             OR t::text LIKE '%{}%'",
            hex::encode(CANARY)
        );
        let count: i64 = sqlx::query_scalar(&sql).fetch_one(&world.app.read_pool).await.unwrap();
        if count > 0 {
            found.push(format!("{schema}.{name}"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shredded_person_is_gone_and_the_rest_is_unchanged_also_after_a_rebuild() {
    let world = World::new().await;
    let (leaves, stays) = (world.person("leaves").await, world.person("stays").await);
    let projectors = Projectors::start(&world.app.read_pool, &world.app.source());
    log_something(&leaves, CANARY).await;
    log_something(&stays, "steady").await;
    caught_up(&world).await;
    let before = of_person(&world, &stays).await;
    assert!(before.len() >= 4, "the drill has something to lose: {before:?}");
    assert!(!tables_with_canary(&world).await.is_empty(), "the canary can be found while it lives");
    let leaves_before: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT leaf_hash FROM events ORDER BY position")
            .fetch_all(&world.app.read_pool)
            .await
            .unwrap();

    let metadata = Metadata::system("drill", ids::new_id());
    shred(&world.app.store, leaves.user, &Purpose::ALL, "drill", &metadata).await.unwrap();
    caught_up(&world).await;

    // Their token answers "gone", and no new account takes its place.
    for path in ["/api/v1/users/me", "/api/v1/health/freshness"] {
        let answer = Answer::of(leaves.get(path)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (410, "ACCOUNT_ERASED"), "{path}");
    }
    assert_eq!(of_person(&world, &stays).await, before);
    assert_eq!(tables_with_canary(&world).await, Vec::<String>::new());
    // What is left of them: which keys there were, and that they are destroyed.
    let theirs = of_person(&world, &leaves).await;
    assert!(theirs.iter().all(|row| row.contains("\"subject\"")), "{theirs:?}");

    for model in ReadModel::ALL {
        let source = world.app.source();
        let rebuilt = rebuild::rebuild(&world.app.read_pool, &source, model, ids::new_id(), |_| {});
        let rebuilt = rebuilt.await.unwrap();
        assert_eq!(rebuilt.comparison.differences, vec![], "{model:?}");
    }
    assert_eq!(of_person(&world, &stays).await, before);
    let leaves_after: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT leaf_hash FROM events WHERE position <= $1 ORDER BY position")
            .bind(i64::try_from(leaves_before.len()).unwrap())
            .fetch_all(&world.app.read_pool)
            .await
            .unwrap();
    assert_eq!(leaves_after, leaves_before, "the log itself has not changed");
    projectors.stop().await;
}
