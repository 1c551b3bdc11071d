//! What a pull delivers.

use base64::Engine;
use serde_json::{Value, json};
use tidemark::ids::new_id;
use uuid::Uuid;

use super::{Replica, consumption, item, page, pushed, session};
use crate::world::World;

#[tokio::test]
async fn what_one_phone_pushes_another_pulls() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let tablet = ada.other_phone();
    let (s, c) = (new_id(), new_id());
    pushed(&ada, &[consumption(c, json!({ "sessionId": s, "quantity": 1.5 })), session(s)]).await;

    let (mut phone, mut other) = (Replica::default(), Replica::default());
    let own = phone.pull(&ada, 100).await;
    assert!(own.iter().all(|row| row["origin"] == "self"), "the echo of its own changes");
    let rows = other.pull(&tablet, 100).await;
    assert!(rows.iter().all(|row| row.get("origin").is_none()));
    let types: Vec<_> = rows.iter().map(|row| row["entityType"].clone()).collect();
    assert_eq!(types, ["sessions", "consumptions"], "parents first");
    assert_eq!(other.data("sessions", s)["eventCount"], 1);
    assert_eq!(other.data("sessions", s)["hitCount"], 1, "the older spelling too");
    assert_eq!(other.data("consumptions", c)["quantity"], "1.500");
    assert_eq!(other.data("sessions", s)["version"], 2);
    assert_eq!(other.pull(&tablet, 100).await, Vec::<Value>::new(), "nothing twice");

    pushed(&tablet, &[item("DELETE", "sessions", s, json!({}))]).await;
    let rows = phone.pull(&ada, 100).await;
    assert_eq!(rows[0]["operation"], "DELETE");
    let mut keys: Vec<_> = rows[0]["data"].as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["deletedAt", "id", "version"], "a tombstone tells nothing else");
    assert_eq!(phone.data("consumptions", c)["sessionId"], Value::Null, "it lives on by itself");
}

#[tokio::test]
async fn sync_15_pages_of_any_size_hold_the_same_rows() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let s = new_id();
    let mut items = vec![session(s)];
    items.extend((0..9).map(|_| consumption(new_id(), json!({ "sessionId": s }))));
    items.push(session(new_id()));
    pushed(&ada, &items).await;
    let mut whole = Replica::default();
    whole.pull(&ada, 1000).await;
    for limit in [1, 2, 5, 11] {
        let mut small = Replica::default();
        let rows = small.pull(&ada, limit).await;
        assert_eq!(rows.len(), 11);
        assert_eq!(small.rows, whole.rows);
        assert_eq!(small.cursors, whole.cursors);
    }
}

#[tokio::test]
async fn sync_16_types_can_be_pulled_one_by_one() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let s = new_id();
    pushed(&ada, &[session(s), consumption(new_id(), json!({ "sessionId": s }))]).await;
    for (entity_type, count) in [("sessions", 1), ("consumptions", 1), ("goals", 0)] {
        let request = ada.get(&format!("/api/v1/sync/changes?entityTypes={entity_type}"));
        let page = crate::world::Answer::of(request).await.body["data"].clone();
        assert_eq!(page["recordsReturned"], count);
        assert_eq!(page["entityCursors"].as_object().unwrap().len(), count);
    }
}

#[tokio::test]
async fn sync_19_an_old_cursor_still_gets_tombstones() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let (a, b) = (new_id(), new_id());
    pushed(&ada, &[consumption(a, json!({}))]).await;
    let mut phone = Replica::default();
    phone.pull(&ada, 10).await;
    pushed(&ada, &[consumption(b, json!({})), item("DELETE", "consumptions", a, json!({}))]).await;
    let rows = phone.pull(&ada, 10).await;
    let deleted = rows.iter().find(|row| row["serverId"] == json!(a)).unwrap();
    assert_eq!(deleted["operation"], "DELETE");
}

#[tokio::test]
async fn a_cursor_of_another_making_goes_by_its_time() {
    let world = World::new().await;
    let (ada, eve) = (world.person("ada").await, world.person("eve").await);
    let (first, second) = (new_id(), new_id());
    pushed(&eve, &[consumption(new_id(), json!({}))]).await;
    pushed(&ada, &[consumption(first, json!({}))]).await;
    let cursor = page(&eve, None, 10).await["cursor"].as_str().unwrap().to_owned();
    pushed(&ada, &[consumption(second, json!({}))]).await;
    let rows = page(&ada, Some(&cursor), 10).await;
    assert!(rows["recordsReturned"].as_u64().unwrap() >= 1);
    let ids: Vec<_> = rows["changes"].as_array().unwrap().iter().map(|r| &r["serverId"]).collect();
    assert!(ids.contains(&&json!(second)), "nothing later is missed");

    let past = page(&ada, Some(&foreign_cursor("2020-01-01T00:00:00.000Z", new_id())), 10).await;
    assert_eq!(past["recordsReturned"], 2);
}

#[tokio::test]
async fn sync_13_a_cursor_in_the_midst_of_one_commit_skips_nothing_of_it() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let s = new_id();
    pushed(&ada, &[session(s), consumption(new_id(), json!({ "sessionId": s }))]).await;
    let rows = page(&ada, None, 10).await["changes"].clone();
    let at = rows[0]["timestamp"].as_str().unwrap();
    assert_eq!(rows[1]["timestamp"], at, "one commit");
    // The same time, and an id that does not say how far within it.
    let cursor = foreign_cursor(at, new_id());
    assert_eq!(page(&ada, Some(&cursor), 10).await["changes"], rows);
}

#[tokio::test]
async fn a_cursor_from_the_future_means_the_beginning_and_is_not_handed_back() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let future = foreign_cursor("2999-01-01T00:00:00.000Z", new_id());
    let empty = page(&ada, Some(&future), 10).await;
    assert_eq!(empty["cursor"], Value::Null);
    pushed(&ada, &[consumption(new_id(), json!({}))]).await;
    let first = page(&ada, Some(&future), 10).await;
    assert_eq!(first["recordsReturned"], 1);
    pushed(&ada, &[consumption(new_id(), json!({}))]).await;
    let second = page(&ada, first["cursor"].as_str(), 10).await;
    assert_eq!(second["recordsReturned"], 1, "{second}");
}

/// A cursor whose id nobody here made.
fn foreign_cursor(at: &str, id: Uuid) -> String {
    let text = json!({ "lastCreatedAt": at, "lastId": id }).to_string();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test]
async fn a_state_of_an_older_fold_is_folded_anew() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let s = new_id();
    pushed(&ada, &[session(s), consumption(new_id(), json!({ "sessionId": s }))]).await;
    let before = page(&ada, None, 10).await["changes"].clone();
    sqlx::query("UPDATE streams SET state_version = 0")
        .execute(&world.database.pool())
        .await
        .unwrap();
    assert_eq!(page(&ada, None, 10).await["changes"], before);
}
