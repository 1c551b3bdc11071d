use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;

const AT: &str = "2026-03-01T10:00:00.000Z";

fn phone() -> Phone {
    Phone::new(Uuid::from_u128(9))
}

fn fields(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn page(changes: Value) -> ChangesPage {
    let mut page = json!({"cursor": "opaque", "hasMore": false});
    page["changes"] = changes;
    serde_json::from_value(page).unwrap()
}

fn row(id: &str, notes: &str, version: i64) -> Value {
    json!({"entityType": "sessions", "operation": "UPDATE", "serverId": id,
        "timestamp": AT, "data": {"id": id, "notes": notes, "version": version}})
}

fn cursor(at: &str, id: u128) -> String {
    let json = json!({"lastCreatedAt": at, "lastId": Uuid::from_u128(id)});
    STANDARD.encode(json.to_string())
}

fn accept(change: &Change, server_id: &str, version: i64) -> PushResult {
    serde_json::from_value(json!({"successful": [{"clientId": change.entity_id,
        "serverId": server_id, "entityType": change.entity_type,
        "requestId": change.request_id, "version": version}], "failed": [], "conflicts": []}))
    .unwrap()
}

#[test]
fn edits_of_an_unpushed_entity_travel_in_its_creation() {
    let mut phone = phone();
    let id = phone.create("sessions", fields(json!({"notes": "a"})), AT);
    phone.update("sessions", &id, fields(json!({"notes": "b"})), AT);
    let request = phone.push_request().unwrap();
    assert_eq!(request.changes.len(), 1);
    let change = &request.changes[0];
    assert_eq!(change.change_type, Operation::Create);
    assert_eq!(change.data, json!({"notes": "b", "clientSessionId": id}));
    assert_eq!(phone.push_request().unwrap(), request, "a repeated push is the same request");
    let json = serde_json::to_value(change).unwrap();
    assert_eq!((json["changeType"].as_str(), json["version"].as_i64()), (Some("CREATE"), Some(1)));
}

#[test]
fn an_edit_says_which_version_the_person_saw() {
    let mut phone = phone();
    phone.apply_changes(&page(json!([row("s", "server", 4)])));
    phone.update("sessions", "s", fields(json!({"notes": "mine"})), AT);
    let change = &phone.push_request().unwrap().changes[0];
    assert_eq!((change.version, change.base_version), (5, Some(4)));
    // A newer row does not move the base of an edit already made, and does not hide the edit.
    phone.apply_changes(&page(json!([row("s", "theirs", 7)])));
    assert_eq!(phone.row("sessions", "s").unwrap().data["notes"], "mine");
    let change = phone.push_request().unwrap().changes[0].clone();
    assert_eq!(change.base_version, Some(4));
    phone.apply_push(&accept(&change, "s", 8));
    assert_eq!(phone.row("sessions", "s").unwrap().version, 8);
    // The page that was already on its way is older than what the push brought.
    phone.apply_changes(&page(json!([row("s", "theirs", 7)])));
    assert_eq!(phone.row("sessions", "s").unwrap().data["notes"], "mine");
    phone.apply_changes(&page(json!([row("s", "merged", 8)])));
    assert_eq!(phone.row("sessions", "s").unwrap().data["notes"], "merged");
}

#[test]
fn a_replaced_id_is_replaced_everywhere() {
    let mut phone = phone();
    let session = phone.create("sessions", Map::new(), AT);
    let dose = phone.create("consumptions", fields(json!({"sessionId": session})), AT);
    let request = phone.push_request().unwrap();
    assert_eq!(request.changes[0].entity_type, "sessions", "parents go first");
    phone.apply_push(&accept(&request.changes[0], "srv-1", 1));
    assert_eq!(phone.row("consumptions", &dose).unwrap().data["sessionId"], "srv-1");
    assert_eq!(phone.push_request().unwrap().changes[0].data["sessionId"], "srv-1");
    phone.update("sessions", &session, fields(json!({"notes": "n"})), AT);
    let ids: Vec<_> =
        phone.push_request().unwrap().changes.into_iter().map(|c| c.entity_id).collect();
    assert!(ids.contains(&"srv-1".to_owned()));
    assert!(phone.row("sessions", &session).is_some(), "the old id still finds the row");
}

#[test]
fn refusals_leave_the_outbox_only_when_they_are_final() {
    let mut phone = phone();
    phone.create("sessions", Map::new(), AT);
    phone.create("sessions", Map::new(), AT);
    let changes = phone.push_request().unwrap().changes;
    let fail = |change: &Change, retryable: bool| {
        json!({"clientId": change.entity_id, "requestId": change.request_id, "error": "e",
            "errorCode": "VALIDATION_ERROR", "retryable": retryable})
    };
    let result = json!({"successful": [], "conflicts": [],
        "failed": [fail(&changes[0], true), fail(&changes[1], false)]});
    phone.apply_push(&serde_json::from_value(result).unwrap());
    assert_eq!((phone.pending(), phone.dead_letters().len()), (1, 1));
    assert_eq!(phone.dead_letters()[0].0.request_id, changes[1].request_id);
}

#[test]
fn a_deletion_supersedes_local_edits_and_a_pulled_one_removes_the_row() {
    let mut phone = phone();
    phone.apply_changes(&page(json!([row("s", "a", 1), row("t", "b", 2)])));
    phone.update("sessions", "s", fields(json!({"notes": "mine"})), AT);
    phone.delete("sessions", "s", AT);
    let changes = phone.push_request().unwrap().changes;
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].change_type, &changes[0].data), (Operation::Delete, &json!({})));
    phone.apply_changes(&page(json!([row("s", "a", 3)])));
    assert!(phone.row("sessions", "s").is_none(), "a pending deletion is not undone");
    phone.apply_changes(&page(json!([{"entityType": "sessions", "operation": "DELETE",
        "serverId": "t", "timestamp": AT, "data": {"id": "t", "version": 3}}])));
    assert_eq!(phone.rows("sessions").count(), 0);
}

#[test]
fn a_pull_starts_at_the_least_cursor_with_all_of_them_inside() {
    let mut phone = phone();
    assert_eq!(phone.composite_cursor(), None);
    let early = cursor("2026-03-01T10:00:00.000Z", 2);
    let late = cursor("2026-03-01T10:00:00.000Z", 5);
    let both = BTreeMap::from([("sessions".to_owned(), late.clone()), ("goals".to_owned(), early)]);
    phone.commit(&both).unwrap();
    let composite = STANDARD.decode(phone.composite_cursor().unwrap()).unwrap();
    let composite: Value = serde_json::from_slice(&composite).unwrap();
    assert_eq!(composite["lastCreatedAt"], "2026-03-01T10:00:00.000Z");
    assert_eq!(composite["lastId"], Uuid::from_u128(2).to_string());
    assert_eq!(composite["version"], 1);
    let inside = &composite["entityCursors"]["sessions"];
    assert_eq!(
        EntityCursor::decode(inside.as_str().unwrap()),
        EntityCursor::decode(&late),
        "each type keeps its own position"
    );
}

#[test]
fn cursors_never_move_backwards_and_are_kept_together_or_not_at_all() {
    let mut phone = phone();
    let at = |id| cursor("2026-03-01T10:00:00.000Z", id);
    phone.commit(&BTreeMap::from([("sessions".to_owned(), at(5))])).unwrap();
    let before = phone.composite_cursor();
    let back = BTreeMap::from([("consumptions".to_owned(), at(9)), ("sessions".to_owned(), at(4))]);
    assert!(matches!(phone.commit(&back), Err(PhoneError::CursorBackward(t)) if t == "sessions"));
    assert_eq!(phone.composite_cursor(), before);
    for bad in [
        "",
        "!",
        &STANDARD.encode("{}"),
        &STANDARD.encode(r#"{"lastCreatedAt":"2026-03-01T10:00:00.000Z","lastId":"7"}"#),
    ] {
        let bad = BTreeMap::from([("sessions".to_owned(), bad.to_owned())]);
        assert!(matches!(phone.commit(&bad), Err(PhoneError::BadCursor(_))));
    }
}

#[test]
fn phones_with_the_same_rows_agree() {
    let (mut one, mut two) = (phone(), Phone::new(Uuid::from_u128(10)));
    assert!(one.agrees_with(&two));
    one.apply_changes(&page(json!([row("s", "a", 1)])));
    assert!(!one.agrees_with(&two));
    two.apply_changes(&page(json!([row("s", "a", 1), row("t", "a", 1)])));
    two.apply_changes(&page(json!([{"entityType": "sessions", "operation": "DELETE",
        "serverId": "t", "timestamp": AT, "data": {"id": "t", "version": 2}}])));
    assert!(one.agrees_with(&two));
}
