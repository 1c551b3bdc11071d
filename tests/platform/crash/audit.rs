//! What must be true whenever everything is answered.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tidemark::read_models::ReadModel;
use uuid::Uuid;

use super::people::Person;
use crate::served::{Answer, Client};

/// How long projectors may take to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each person has exactly what they were answered; the log, the state beside it and the read
/// models agree with each other. `program` is the one that serves, for commands beside it.
pub async fn audit(log: &PgConnectOptions, program: Command, base: &str, people: &[Person]) {
    let mut db = PgConnection::connect_with(log).await.expect("Postgres answers");
    projectors_are_at_the_head(&mut db).await;
    for person in people {
        let client = person.client.at(base);
        let me = ok(&client, "/users/me").await;
        let user = me["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        if let Some(name) = &person.known.name {
            assert_eq!(me["name"], **name);
        }
        let consumptions = feed(&client, "consumptions", "clientConsumptionId").await;
        assert_eq!(consumptions, person.known.consumptions);
        statistics_count_each_sample_once(&client, person).await;
        rows_are_there_once(&mut db, user, person).await;
    }
    db.close().await.expect("closed");
    everything_verifies(program, people.len());
}

async fn ok(client: &Client, path: &str) -> Value {
    let answer = client.send(reqwest::Method::GET, &format!("/api/v1{path}"), None).await;
    let Some(Answer { status: 200, mut body, .. }) = answer else {
        let told = answer.map(|answer| (answer.status, answer.body));
        panic!("{path}: {told:?}");
    };
    body["data"].take()
}

/// The client ids of a type that a fresh phone is sent, each of which it is sent once.
async fn feed(client: &Client, entity_type: &str, id: &str) -> BTreeSet<String> {
    let (mut ids, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = ok(client, &format!("/sync/changes?limit=100{cursor}")).await;
        for change in page["changes"].as_array().expect("changes") {
            if change["entityType"] == entity_type {
                let id = change["data"][id].as_str().expect("the client's id").to_owned();
                assert!(ids.insert(id), "{change} comes twice");
            }
        }
        if page["hasMore"] == false {
            return ids;
        }
        let next = page["cursor"].as_str().expect("a cursor");
        let next = next.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        cursor = format!("&cursor={next}");
    }
}

async fn statistics_count_each_sample_once(client: &Client, person: &Person) {
    let path = "/health/rollups?metricCode=heart_rate&startDate=2026-03-01&endDate=2026-03-02";
    let page = ok(client, path).await;
    let days = page["items"].as_array().expect("days");
    let total = |column: &str| days.iter().filter_map(|day| day[column].as_i64()).sum::<i64>();
    let samples = &person.known.samples;
    let expected = (i64::try_from(samples.len()).expect("a count"), samples.values().sum::<i64>());
    assert_eq!((total("countVal"), total("sumVal")), expected, "{page}");
}

async fn rows_are_there_once(db: &mut PgConnection, user: Uuid, person: &Person) {
    let query = "SELECT \
         (SELECT count(*) FROM events WHERE user_id = $1 AND event_type = 'health_batch.applied'), \
         (SELECT coalesce(max(received_seq), 0) FROM user_heads WHERE user_id = $1), \
         (SELECT count(*) FROM events WHERE user_id = $1 AND event_type = 'consumption.created')";
    let row: (i64, i64, i64) =
        sqlx::query_as(query).bind(user).fetch_one(db).await.expect("counts");
    let count = |n: usize| i64::try_from(n).expect("a count");
    let batches = i64::try_from(person.known.batches).expect("a count");
    assert_eq!(row, (batches, batches, count(person.known.consumptions.len())));
}

async fn projectors_are_at_the_head(db: &mut PgConnection) {
    let behind = "SELECT count(*) FILTER (WHERE c.position < (SELECT position FROM log_head)) \
         + greatest($1 - count(DISTINCT c.projector), 0) \
         FROM projector.checkpoints c JOIN projector.generations g USING (projector, generation) \
         WHERE g.state = 'live'";
    // On a restored log each has to be made first.
    let projectors = i64::try_from(ReadModel::ALL.len()).expect("a count");
    let began = Instant::now();
    loop {
        let behind: i64 =
            sqlx::query_scalar(behind).bind(projectors).fetch_one(&mut *db).await.expect("a count");
        if behind == 0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{behind} shards do not catch up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As an operator would check it, beside the running server.
fn everything_verifies(mut program: Command, people: usize) {
    let output = program.args(["verify", "all", "--json"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let parts = report["parts"].as_array().expect("parts");
    let compared: Vec<&Value> =
        parts.iter().filter(|part| part["checked"]["behind"].is_u64()).collect();
    assert!(!compared.is_empty(), "{report}");
    for part in compared {
        // Nobody is left out of the comparison with a rebuild.
        assert_eq!(part["checked"]["behind"], 0, "{report}");
        assert!(part["checked"]["people_equal"].as_u64() >= Some(people as u64), "{report}");
    }
}
