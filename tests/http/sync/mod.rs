//! Synchronisation over HTTP.

mod concurrency;
mod merging;
mod protocol;
mod pulling;

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answer, Person};

/// An item of a push. Times are an hour ago, so that nothing is in the future.
pub fn item(kind: &str, entity_type: &str, id: Uuid, data: Value) -> Value {
    json!({ "entityType": entity_type, "entityId": id, "clientId": id, "changeType": kind,
        "requestId": tidemark::ids::new_id(), "data": data, "version": 1, "timestamp": minutes_ago(0) })
}

/// A time in the past, as the wire has it.
pub fn minutes_ago(minutes: i64) -> String {
    let at = tidemark::clock::now_ms() - minutes * 60_000;
    aggregates::entity::time::format_instant(at)
}

pub fn session(id: Uuid) -> Value {
    item(
        "CREATE",
        "sessions",
        id,
        json!({ "clientSessionId": id,
        "sessionStartTimestamp": minutes_ago(10) }),
    )
}

pub fn consumption(id: Uuid, data: Value) -> Value {
    let mut fields = json!({ "clientConsumptionId": id, "durationMs": 1000,
        "timestamp": minutes_ago(5) });
    fields.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    item("CREATE", "consumptions", id, fields)
}

pub fn body(person: &Person<'_>, items: &[Value]) -> Value {
    json!({ "deviceId": person.device(), "syncOperationId": "sync-1", "changes": items })
}

/// Pushes, and expects an answer with lists.
pub async fn push(person: &Person<'_>, items: &[Value]) -> Value {
    let request = person.post("/api/v1/sync/push").json(&body(person, items));
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let data = answer.body["data"].clone();
    let count = |list: &str| data[list].as_array().unwrap().len();
    assert_eq!(count("successful") + count("failed") + count("conflicts"), items.len(), "{data}");
    data
}

/// Pushes items that must all succeed; returns their answers by request id.
pub async fn pushed(person: &Person<'_>, items: &[Value]) -> Vec<Value> {
    let data = push(person, items).await;
    assert_eq!(data["failed"], json!([]), "{data}");
    let done = data["successful"].as_array().unwrap();
    let of =
        |item: &Value| done.iter().find(|done| done["requestId"] == item["requestId"]).cloned();
    items.iter().map(|item| of(item).unwrap()).collect()
}

pub async fn page(person: &Person<'_>, cursor: Option<&str>, limit: usize) -> Value {
    let mut path = format!("/api/v1/sync/changes?limit={limit}");
    if let Some(cursor) = cursor {
        let cursor = cursor.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        path.push_str(&format!("&cursor={cursor}"));
    }
    let request = person.get(&path);
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body["data"].clone()
}

/// What a phone keeps between runs.
#[derive(Default)]
pub struct Replica {
    pub rows: BTreeMap<(String, String), Value>,
    pub cursors: BTreeMap<String, String>,
}

impl Replica {
    /// One run of pages, begun with the stored cursors as the app does it.
    pub async fn pull(&mut self, person: &Person<'_>, limit: usize) -> Vec<Value> {
        let mut cursor = self.composite();
        let mut rows = Vec::new();
        loop {
            let page = page(person, cursor.as_deref(), limit).await;
            let changes = page["changes"].as_array().unwrap();
            assert_eq!(page["recordsReturned"], changes.len());
            for change in changes {
                let text = |key: &str| change[key].as_str().unwrap().to_owned();
                self.rows.insert((text("entityType"), text("serverId")), change.clone());
                rows.push(change.clone());
            }
            for (entity_type, cursor) in page["entityCursors"].as_object().unwrap() {
                self.cursors.insert(entity_type.clone(), cursor.as_str().unwrap().to_owned());
            }
            if page["hasMore"] == false {
                return rows;
            }
            cursor = page["cursor"].as_str().map(str::to_owned);
        }
    }

    fn composite(&self) -> Option<String> {
        use base64::Engine;
        let engine = base64::engine::general_purpose::STANDARD;
        let pair = |cursor: &String| -> Value {
            serde_json::from_slice(&engine.decode(cursor).unwrap()).unwrap()
        };
        let key = |pair: &Value| {
            let text = |key: &str| pair[key].as_str().unwrap().to_owned();
            (text("lastCreatedAt"), text("lastId"))
        };
        let mut least = self.cursors.values().map(pair).min_by_key(key)?;
        least["entityCursors"] = json!(self.cursors);
        least["version"] = json!(1);
        Some(engine.encode(least.to_string()))
    }

    pub fn data(&self, entity_type: &str, id: Uuid) -> &Value {
        &self.rows[&(entity_type.to_owned(), id.to_string())]["data"]
    }
}
