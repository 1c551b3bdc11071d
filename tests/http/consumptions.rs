//! Consumptions over REST.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidemark::clock;
use uuid::Uuid;

use crate::rest::{
    DAY, HOUR, MINUTE, call, consumption, data, delete, get, id, ids, iso, logged, now, ok, patch,
    post, refused, serving, session, started,
};
use crate::world::{Answer, Person};

async fn hits(person: &Person<'_>, session: &Value) -> Value {
    ok(get(person, &format!("/sessions/{}", id(session))).await)["eventCount"].clone()
}

#[tokio::test]
async fn a_consumption_comes_back_as_it_was_logged() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let at = clock::now_ms() - 3 * HOUR;
    let mut body = consumption("c-1", at);
    body["intensity"] = 7.5.into();
    body["quantity"] = 0.25.into();
    body["estimatedThcMg"] = "12.5".into();
    body["notes"] = "first".into();
    let made = logged(&ann, body).await;
    assert_eq!(made["clientConsumptionId"], "c-1");
    assert_eq!(made["timestamp"], iso(at));
    assert_eq!((&made["durationMs"], &made["intensity"]), (&json!(5000), &json!(7.5)));
    assert_eq!(made["quantity"], "0.250", "decimals are text");
    assert_eq!((&made["dosageMg"], &made["estimatedThcMg"]), (&json!("12.50"), &json!("12.50")));
    assert_eq!((&made["isJournaled"], &made["sessionId"]), (&json!(false), &Value::Null));
    assert_eq!(made["version"], 1);
    assert_eq!(ok(get(&ann, &format!("/consumptions/{}", id(&made))).await), made);
}

#[tokio::test]
async fn wrong_consumptions_are_refused() {
    let world = serving().await;
    let ann = world.person("ann").await;
    for (field, value) in [
        ("clientConsumptionId", Value::Null),
        ("clientConsumptionId", "".into()),
        ("timestamp", "yesterday".into()),
        ("timestamp", Value::Null),
        ("durationMs", 0.into()),
        ("intensity", 11.into()),
        ("quantity", "-1".into()),
        ("sessionId", "s".into()),
        ("notes", "n".repeat(2001).into()),
    ] {
        let mut body = consumption("c", now());
        body[field] = value;
        let refusal = post(&ann, "/consumptions", body).await;
        refused(&refusal, 400, "VALIDATION_ERROR");
        let pointer = format!("/{field}");
        assert_eq!(refusal.body["error"]["details"][0]["field"], pointer, "{}", refusal.body);
    }
    assert_eq!(get(&ann, "/consumptions").await.body["pagination"]["total"], 0);
}

#[tokio::test]
async fn sync_11_logging_again_under_the_same_id_finds_the_consumption() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let session = started(&ann, "s").await;
    let first = logged(&ann, consumption("c", now())).await;
    let mut other = consumption("c", now() - DAY);
    other["notes"] = "other".into();
    assert_eq!(logged(&ann, other).await, first, "nothing changed");
    let phones = join_all((0..6).map(|_| world.person("ann"))).await;
    let body = consumption("at once", now());
    let made = join_all(phones.iter().map(|phone| logged(phone, body.clone()))).await;
    assert!(made.iter().all(|one| id(one) == id(&made[0])));
    assert_eq!(hits(&ann, &session).await, 2);
}

#[tokio::test]
async fn sync_12_a_session_follows_its_consumptions() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let at = now() - 40 * MINUTE;
    let first = data(post(&ann, "/sessions", session("s", at)).await, StatusCode::CREATED);
    let early = logged(&ann, consumption("early", at + MINUTE)).await;
    let late = logged(&ann, consumption("late", at + 20 * MINUTE)).await;
    assert_eq!(hits(&ann, &first).await, 2);
    let path = format!("/consumptions/{}", id(&late));
    let moved = json!({ "timestamp": iso(at + 30 * MINUTE), "durationMs": 9000 });
    assert_eq!(ok(patch(&ann, &path, moved).await)["version"], 2);
    let seen = ok(get(&ann, &format!("/sessions/{}", id(&first))).await);
    assert_eq!(seen["totalDurationMs"], 14_000);
    assert_eq!(seen["sessionEndTimestamp"], iso(at + 30 * MINUTE + HOUR));
    assert_eq!(delete(&ann, &path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(hits(&ann, &first).await, 1);
    let path = format!("/consumptions/{}", id(&early));
    let put = call(&ann, Method::PUT, &path, json!({ "sessionId": null })).await;
    assert_eq!(ok(put)["sessionId"], Value::Null);
    assert_eq!(hits(&ann, &first).await, 0);
}

#[tokio::test]
async fn edits_are_refused_when_stale_and_final_when_deleted() {
    let world = serving().await;
    let phone = world.person("ann").await;
    let tablet = world.person("ann").await;
    let made = logged(&phone, consumption("c", now())).await;
    let path = format!("/consumptions/{}", id(&made));
    let read_at = now();
    while now() < read_at + 2 {
        get(&phone, &path).await;
    }
    let read = made["updatedAt"].clone();
    let known = json!({ "notes": "phone", "lastKnownUpdatedAt": read });
    ok(patch(&phone, &path, known).await);
    let stale = json!({ "notes": "tablet", "lastKnownUpdatedAt": read });
    refused(&patch(&tablet, &path, stale).await, 409, "CONFLICT");
    assert_eq!(ok(get(&tablet, &path).await)["notes"], "phone");
    refused(&patch(&tablet, &path, json!({ "durationMs": -1 })).await, 400, "VALIDATION_ERROR");

    assert_eq!(delete(&phone, &path).await.status, StatusCode::NO_CONTENT);
    refused(&get(&phone, &path).await, 404, "NOT_FOUND");
    refused(&delete(&phone, &path).await, 404, "NOT_FOUND");
    refused(&patch(&phone, &path, json!({ "notes": "x" })).await, 404, "NOT_FOUND");
    let whole = consumption("c", now());
    refused(&call(&phone, Method::PUT, &path, whole.clone()).await, 404, "NOT_FOUND");
    refused(&post(&phone, "/consumptions", whole).await, 409, "DUPLICATE_ENTRY");
    assert_eq!(ids(&get(&phone, "/consumptions").await), Vec::<String>::new());
}

#[tokio::test]
async fn an_update_never_creates() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let path = format!("/consumptions/{}", Uuid::from_u128(5));
    let whole = consumption("c", now());
    refused(&patch(&ann, &path, whole).await, 404, "NOT_FOUND");
    assert_eq!(get(&ann, "/consumptions").await.body["pagination"]["total"], 0);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let start = now() - 20 * DAY;
    let product = Uuid::from_u128(9);
    let mut made = Vec::new();
    for day in 0..6 {
        let mut body = consumption(&format!("c{day}"), start + day * DAY);
        if day % 2 == 0 {
            body["productId"] = product.to_string().into();
        }
        made.push(id(&logged(&ann, body).await).to_owned());
    }
    let session = started(&ann, "s").await;
    let inside = logged(&ann, consumption("inside", now())).await;
    let list = async |query: &str| ids(&get(&ann, &format!("/consumptions?{query}")).await);
    let of_session = format!("sessionId={}", id(&session));
    assert_eq!(list(&of_session).await, [id(&inside)]);
    let of_product = list(&format!("productId={product}")).await;
    assert_eq!(of_product, [&made[4], &made[2], &made[0]].map(String::as_str));
    let (from, to) = (iso(start + DAY), iso(start + 2 * DAY));
    assert_eq!(list(&format!("startDate={from}&endDate={to}")).await.len(), 2);

    let first = get(&ann, "/consumptions?limit=3").await;
    assert_eq!(first.body["pagination"]["total"], 7);
    let cursor = first.body["pagination"]["nextCursor"].as_str().unwrap().to_owned();
    // One more at the front moves pages; a cursor it does not move.
    logged(&ann, consumption("newest", now() + MINUTE)).await;
    let rest = list(&format!("limit=10&cursor={cursor}")).await;
    let mut expected = vec![made[3].clone(), made[2].clone(), made[1].clone(), made[0].clone()];
    assert_eq!(rest, expected);
    expected.clear();
    refused(&get(&ann, "/consumptions?limit=500").await, 400, "VALIDATION_ERROR");
    refused(&get(&ann, "/consumptions?sessionId=x").await, 400, "VALIDATION_ERROR");
    let sessions = format!("/sessions?cursor={cursor}");
    refused(&get(&ann, &sessions).await, 400, "INVALID_CURSOR");
}

#[tokio::test]
async fn a_batch_answers_every_consumption() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let session = started(&ann, "s").await;
    let mut wrong = consumption("wrong", now());
    wrong["durationMs"] = 0.into();
    let doses =
        [consumption("a", now()), wrong, consumption("b", now()), consumption("a", now() - DAY)];
    let answer = post(&ann, "/consumptions/batch", json!({ "consumptions": doses })).await;
    let data = data(answer, StatusCode::MULTI_STATUS);
    assert_eq!((&data["succeeded"], &data["failed"]), (&json!(3), &json!(1)));
    let results = data["results"].as_array().unwrap();
    assert_eq!(results[1]["error"]["code"], "VALIDATION_ERROR");
    assert_eq!(results[1]["error"]["details"][0]["field"], "/durationMs");
    assert_eq!(results[1]["clientConsumptionId"], "wrong");
    assert_eq!(results[3]["data"]["id"], results[0]["data"]["id"], "the same id is the same one");
    assert_eq!(hits(&ann, &session).await, 2);

    let doses: Vec<Value> =
        (0..100).map(|number| consumption(&format!("n{number}"), now())).collect();
    let all = post(&ann, "/consumptions/batch", json!({ "consumptions": doses })).await;
    assert_eq!(all.status, StatusCode::CREATED, "{}", all.body);
    assert_eq!(hits(&ann, &session).await, 102);
    let many: Vec<Value> = (0..101).map(|number| consumption(&number.to_string(), 0)).collect();
    for wrong in [json!({ "consumptions": many }), json!({ "consumptions": [] }), json!({})] {
        refused(&post(&ann, "/consumptions/batch", wrong).await, 400, "VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn sync_10_a_batch_under_a_key_is_logged_once() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let send = async |body: &Value| {
        let request = ann.post("/api/v1/consumptions/batch").header("idempotency-key", "k");
        Answer::of(request.json(body)).await
    };
    let body = json!({ "consumptions": [consumption("a", now()), consumption("b", now())] });
    let first = data(send(&body).await, StatusCode::CREATED);
    let position = world.position().await;
    let again = data(send(&body).await, StatusCode::CREATED);
    assert_eq!(again, first);
    assert_eq!(world.position().await, position);
    let other = json!({ "consumptions": [consumption("c", now())] });
    refused(&send(&other).await, 409, "DUPLICATE_REQUEST");
}

#[tokio::test]
async fn by_rest_and_by_push_a_consumption_is_the_same() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let session = started(&ann, "s").await;
    let made = logged(&ann, consumption("c", now())).await;
    let push = json!({ "deviceId": Uuid::from_u128(3), "syncOperationId": "op", "changes": [{
        "requestId": "r-1", "entityType": "consumptions", "entityId": id(&made), "clientId": "c",
        "changeType": "UPDATE", "version": 1, "timestamp": iso(now()),
        "data": { "durationMs": 7000 },
    }] });
    let pushed = ok(post(&ann, "/sync/push", push).await);
    assert_eq!(pushed["successful"].as_array().unwrap().len(), 1, "{pushed}");
    let seen = ok(get(&ann, &format!("/consumptions/{}", id(&made))).await);
    assert_eq!(seen["durationMs"], 7000);
    let page = get(&ann, "/consumptions").await;
    assert_eq!(page.body["data"][0], seen);
    let total = ok(get(&ann, &format!("/sessions/{}", id(&session))).await);
    assert_eq!(total["totalDurationMs"], 7000);
}
