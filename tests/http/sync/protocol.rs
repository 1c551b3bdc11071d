//! What the protocol promises about requests and answers.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidemark::ids::new_id;

use super::{body, consumption, item, page, push, pushed, session};
use crate::world::{Answer, World};

#[tokio::test]
async fn sync_23_a_repeated_push_is_answered_alike_and_writes_nothing() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let (s, c) = (new_id(), new_id());
    let items = [
        session(s),
        consumption(c, json!({ "sessionId": s })),
        item("DELETE", "consumptions", new_id(), json!({})),
    ];
    let first = push(&ada, &items).await;
    let position = world.position().await;
    let again = push(&ada, &items).await;
    assert_eq!(first, again);
    assert_eq!(world.position().await, position);
    assert_eq!(first["successful"][0]["outcome"], "created");
    assert_eq!(first["successful"][0]["serverId"], json!(s));
}

#[tokio::test]
async fn sync_29_the_same_request_with_other_content_is_evaluated() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let c = new_id();
    let mut create = consumption(c, json!({ "notes": "first" }));
    pushed(&ada, &[create.clone()]).await;
    // The app folds a later edit into a creation whose answer was lost.
    create["data"]["notes"] = json!("second");
    let answers = pushed(&ada, &[create]).await;
    assert_eq!(answers[0]["outcome"], "updated");
    assert_eq!(answers[0]["version"], 2);
    let rows = page(&ada, None, 100).await;
    assert_eq!(rows["changes"][0]["data"]["notes"], "second");
}

#[tokio::test]
async fn sync_22_and_26_a_bad_item_fails_alone() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let (a, b) = (new_id(), new_id());
    let unicorn = item("CREATE", "unicorns", new_id(), json!({}));
    let bad = consumption(b, json!({ "durationMs": -4 }));
    let orphan = item("UPDATE", "sessions", new_id(), json!({ "notes": "?" }));
    let items = [unicorn, bad, consumption(a, json!({})), orphan.clone(), json!({ "x": 1 })];
    let data = push(&ada, &items).await;
    assert_eq!(data["successful"].as_array().unwrap().len(), 1);
    let failed = data["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 4);
    for failure in failed {
        let is_orphan = failure["requestId"] == orphan["requestId"];
        assert_eq!(failure["retryable"], is_orphan, "{failure}");
        let code = if is_orphan { "NOT_FOUND" } else { "VALIDATION_ERROR" };
        assert_eq!(failure["errorCode"], code);
    }
}

#[tokio::test]
async fn sync_22_good_items_that_are_too_much_for_one_write_all_succeed() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let s = new_id();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut note = || -> String {
        let mut letter = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            char::from_u32(0x4E00 + u32::try_from(random % 20_000).unwrap()).unwrap()
        };
        (0..2000).map(|_| letter()).collect()
    };
    let mut items = vec![session(s)];
    items.extend(
        (0..650).map(|_| consumption(new_id(), json!({ "sessionId": s, "notes": note() }))),
    );
    pushed(&ada, &items).await;
    let rows = page(&ada, None, 1000).await;
    let rows = rows["changes"].as_array().unwrap();
    assert_eq!(rows.len(), items.len());
    let commits: BTreeSet<String> = rows.iter().map(|row| row["timestamp"].to_string()).collect();
    assert!(commits.len() > 1, "it was too much for one write");
    let whole = rows.iter().find(|row| row["serverId"] == json!(s)).unwrap();
    assert_eq!(whole["data"]["eventCount"], 650);
}

#[tokio::test]
async fn what_is_no_push_is_refused_as_a_whole() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let many: Vec<Value> = (0..1001).map(|n| json!(n)).collect();
    for broken in [
        json!({}),
        json!({ "deviceId": "d", "syncOperationId": "s", "changes": "none" }),
        json!({ "deviceId": "d", "changes": [] }),
        json!({ "deviceId": "x".repeat(101), "syncOperationId": "s", "changes": [] }),
        json!({ "deviceId": "d", "syncOperationId": "s", "changes": many }),
    ] {
        let answer = Answer::of(ada.post("/api/v1/sync/push").json(&broken)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"));
    }
    let nobody = world.request(Method::POST, "/api/v1/sync/push").json(&body(&ada, &[]));
    assert_eq!(Answer::of(nobody).await.status, StatusCode::UNAUTHORIZED);
    let empty = push(&ada, &[]).await;
    assert_eq!(empty["serverChanges"], Value::Null);
}

#[tokio::test]
async fn a_pull_names_its_installation_and_its_cursor() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let path = "/api/v1/sync/changes";
    for (query, code) in [
        ("cursor=%25%25", "VALIDATION_ERROR"),
        ("limit=0", "VALIDATION_ERROR"),
        ("limit=1001", "VALIDATION_ERROR"),
        ("entityTypes=unicorns", "VALIDATION_ERROR"),
    ] {
        let answer = Answer::of(ada.get(&format!("{path}?{query}"))).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, code), "{query}");
    }
    let answer = Answer::of(ada.get(&format!("{path}?entityTypes=products,unicorns"))).await;
    assert_eq!(answer.body["data"]["changes"], json!([]));
    assert_eq!(answer.body["data"]["cursor"], Value::Null);
    assert!(!answer.header("server-time").is_empty());
    for (device, code) in [(None, "DEVICE_ID_REQUIRED"), (Some("phone"), "INVALID_DEVICE_ID")] {
        let answer = Answer::of(ada.get_as(path, device)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, code));
    }
}

#[tokio::test]
async fn unchanged_means_304_and_only_then() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let path = "/api/v1/sync/changes";
    let first = Answer::of(ada.get(path)).await;
    let tag = first.header("etag").to_owned();
    let again = Answer::of(ada.get(path).header("if-none-match", &tag)).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    let other = Answer::of(ada.get(path).header("if-none-match", "\"other\"")).await;
    assert_eq!(other.status, StatusCode::OK);
    pushed(&ada, &[consumption(new_id(), json!({}))]).await;
    let changed = Answer::of(ada.get(path).header("if-none-match", &tag)).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.header("vary"), "If-None-Match");
}

#[tokio::test]
async fn a_push_brings_along_what_others_changed() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let id = new_id();
    pushed(&ada, &[consumption(id, json!({}))]).await;
    let phone = ada.other_phone();
    let mut body = body(&phone, &[]);
    body["lastSyncCursor"] = json!("");
    let answer = Answer::of(phone.post("/api/v1/sync/push").json(&body)).await;
    assert_eq!(answer.body["data"]["serverChanges"][0]["serverId"], json!(id));
    body["lastSyncCursor"] = json!("%%%");
    let answer = Answer::of(phone.post("/api/v1/sync/push").json(&body)).await;
    assert_eq!(answer.status, StatusCode::OK, "a push that is done stays done");
    assert_eq!(answer.body["data"]["serverChanges"], Value::Null);
}

#[tokio::test]
async fn sync_20_nobody_sees_or_touches_what_is_anothers() {
    let world = World::new().await;
    let (ada, eve) = (world.person("ada").await, world.person("eve").await);
    let (s, c) = (new_id(), new_id());
    pushed(&ada, &[session(s), consumption(c, json!({ "sessionId": s, "notes": "mine" }))]).await;
    let before = page(&ada, None, 100).await["changes"].clone();

    let steal = [
        item("UPDATE", "consumptions", c, json!({ "notes": "stolen" })),
        item("DELETE", "sessions", s, json!({})),
    ];
    let data = push(&eve, &steal).await;
    assert_eq!(data["failed"][0]["errorCode"], "NOT_FOUND");
    assert_eq!(data["successful"][0]["outcome"], "unchanged");
    // Her own entity under the same id is another entity.
    let own = pushed(&eve, &[consumption(c, json!({ "sessionId": s }))]).await;
    assert_ne!(own[0]["serverId"], json!(c));
    let update = item("UPDATE", "consumptions", c, json!({ "notes": "hers" }));
    let again = pushed(&eve, &[update]).await;
    assert_eq!(again[0]["serverId"], own[0]["serverId"]);

    assert_eq!(page(&ada, None, 100).await["changes"], before);
    let hers = page(&eve, None, 100).await;
    assert_eq!(hers["recordsReturned"], 1);
    assert!(!hers.to_string().contains("mine"));
    let peek = eve.get(&format!("/api/v1/sync/explain/sessions/{s}"));
    assert_eq!(Answer::of(peek).await.status, StatusCode::NOT_FOUND);
}
