//! Two phones that edit the same thing.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidemark::ids::new_id;

use super::{Replica, consumption, item, push, pushed, session};
use crate::world::{Answer, Person, World};

async fn explain(person: &Person<'_>, entity_type: &str, id: impl std::fmt::Display) -> Value {
    let answer = Answer::of(person.get(&format!("/api/v1/sync/explain/{entity_type}/{id}"))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body["data"].clone()
}

fn update(id: uuid::Uuid, version: i64, data: Value) -> Value {
    let mut item = item("UPDATE", "consumptions", id, data);
    item["version"] = json!(version);
    item
}

#[tokio::test]
async fn edits_of_different_fields_both_survive_and_of_one_field_are_explained() {
    let world = World::new().await;
    let phone = world.person("ada").await;
    let tablet = phone.other_phone();
    let c = new_id();
    pushed(&phone, &[consumption(c, json!({ "notes": "old", "intensity": 1 }))]).await;
    let (mut a, mut b) = (Replica::default(), Replica::default());
    for _ in 0..2 {
        a.pull(&phone, 10).await;
        b.pull(&tablet, 10).await;
    }
    // Both edit version 1; each sends the whole entity, as the app does.
    let mut mine = a.data("consumptions", c).clone();
    mine["notes"] = json!("phone");
    let mut theirs = b.data("consumptions", c).clone();
    theirs["notes"] = json!("tablet");
    theirs["intensity"] = json!(7);
    pushed(&phone, &[update(c, 2, mine)]).await;
    let answers = pushed(&tablet, &[update(c, 2, theirs)]).await;
    assert_eq!(answers[0]["outcome"], "merged");

    a.pull(&phone, 10).await;
    assert_eq!(a.data("consumptions", c)["intensity"], 7, "only one side changed it");
    assert_eq!(a.data("consumptions", c)["notes"], "tablet");
    let explained = explain(&phone, "consumptions", c).await;
    let field = &explained["changes"][2]["resolution"]["fields"]["notes"];
    assert_eq!(field["base"], "old");
    assert_eq!(field["stored"], "phone");
    assert_eq!(field["incoming"], "tablet");
    assert_eq!(field["policy"], "LOCAL_WINS");
    assert_eq!(explained["changes"][2]["resolution"]["base_version"], 1);
}

#[tokio::test]
async fn an_edit_of_what_was_seen_is_no_conflict() {
    let world = World::new().await;
    let phone = world.person("ada").await;
    let tablet = phone.other_phone();
    let c = new_id();
    pushed(&phone, &[consumption(c, json!({ "notes": "old" }))]).await;
    let mut b = Replica::default();
    b.pull(&tablet, 10).await;
    b.pull(&tablet, 10).await;
    let answers = pushed(&tablet, &[update(c, 2, json!({ "notes": "new" }))]).await;
    assert_eq!(answers[0]["outcome"], "updated");
    let explicit = json!({ "notes": "newer" });
    let mut explicit = update(c, 9, explicit);
    explicit["baseVersion"] = json!(2);
    let answers = pushed(&phone, &[explicit]).await;
    assert_eq!(answers[0]["outcome"], "updated");
    assert_eq!(answers[0]["version"], 3);
}

#[tokio::test]
async fn a_phone_that_has_seen_nothing_overwrites_nothing_in_silence() {
    let world = World::new().await;
    let phone = world.person("ada").await;
    let tablet = phone.other_phone();
    let c = new_id();
    pushed(&phone, &[consumption(c, json!({ "notes": "old" }))]).await;
    // Its version says that it saw everything; it never pulled.
    let answers = pushed(&tablet, &[update(c, 99, json!({ "notes": "blind" }))]).await;
    assert_eq!(answers[0]["outcome"], "merged");
}

#[tokio::test]
async fn sync_11_a_delete_is_final_and_what_comes_late_is_kept() {
    let world = World::new().await;
    let phone = world.person("ada").await;
    let tablet = phone.other_phone();
    let c = new_id();
    let create = consumption(c, json!({ "notes": "old" }));
    pushed(&phone, std::slice::from_ref(&create)).await;
    // A tombstone of version 1 deletes, whatever happened since.
    pushed(&tablet, &[update(c, 2, json!({ "notes": "new" }))]).await;
    let gone = pushed(&phone, &[item("DELETE", "consumptions", c, json!({}))]).await;
    assert_eq!(gone[0]["outcome"], "deleted");
    let late = pushed(&tablet, &[update(c, 3, json!({ "notes": "late" }))]).await;
    assert_eq!(late[0]["outcome"], "superseded");
    let mut again = create;
    again["requestId"] = json!("another");
    pushed(&phone, &[again]).await;
    let mut replica = Replica::default();
    replica.pull(&phone, 10).await;
    assert_eq!(replica.rows.values().next().unwrap()["operation"], "DELETE");
    assert_eq!(explain(&phone, "consumptions", c).await["deleted"], true);
}

#[tokio::test]
async fn sync_28_and_27_client_ids_are_known_for_ever() {
    let world = World::new().await;
    let phone = world.person("ada").await;
    let (c, s) = (new_id(), new_id());
    pushed(&phone, &[consumption(c, json!({ "sessionId": s }))]).await;
    // The app was installed anew and made another id for the same thing.
    let renamed = new_id();
    let mut again = consumption(c, json!({ "sessionId": s }));
    again["entityId"] = json!(renamed);
    again["clientId"] = json!(renamed);
    let answers = pushed(&phone, &[again]).await;
    assert_eq!(answers[0]["serverId"], json!(c));
    let update = update(renamed, 2, json!({ "notes": "known" }));
    assert_eq!(pushed(&phone, &[update]).await[0]["serverId"], json!(c));
    // The session arrives after its consumption.
    pushed(&phone, &[session(s)]).await;
    let mut replica = Replica::default();
    replica.pull(&phone, 10).await;
    assert_eq!(replica.data("sessions", s)["eventCount"], 1);
}

#[tokio::test]
async fn a_client_id_need_not_be_a_uuid() {
    let world = World::new().await;
    let phone = world.person("ada").await;
    let create = json!({ "entityType": "Consumption", "entityId": "local-1", "changeType": "CREATE",
        "requestId": 1, "timestamp": super::minutes_ago(1),
        "data": { "timestamp": super::minutes_ago(1), "durationMs": 5 } });
    let done = push(&phone, &[create]).await;
    let server_id = done["successful"][0]["serverId"].as_str().unwrap().to_owned();
    assert_eq!(done["successful"][0]["requestId"], 1);
    let delete = json!({ "entityType": "consumptions", "entityId": "local-1",
        "changeType": "DELETE", "requestId": 2, "timestamp": super::minutes_ago(0) });
    let done = push(&phone, &[delete]).await;
    assert_eq!(done["successful"][0]["serverId"], server_id.as_str());
    assert_eq!(done["successful"][0]["outcome"], "deleted");
    assert_eq!(explain(&phone, "consumptions", "local-1").await["id"], server_id.as_str());
}
