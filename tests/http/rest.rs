//! What the tests of resources share: a server with its projectors, and short ways to call it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidemark::clock;
use tidemark::projector::service::Projectors;

use crate::world::{Answer, Person, World};

pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// A server whose projectors run as they do in production.
pub async fn serving() -> World {
    let world = World::new().await;
    // They live as long as the test's runtime.
    drop(Projectors::start(&world.app.read_pool, &world.app.source()));
    world
}

pub fn iso(at_ms: i64) -> String {
    tidemark::http::time::iso_ms(chrono::DateTime::from_timestamp_millis(at_ms).unwrap())
}

pub fn now() -> i64 {
    clock::now_ms()
}

/// Calls a path of version 1, with a body unless it is null.
pub async fn call(person: &Person<'_>, method: Method, path: &str, body: Value) -> Answer {
    let request = person.request(method, &format!("/api/v1{path}"));
    Answer::of(if body.is_null() { request } else { request.json(&body) }).await
}

pub async fn get(person: &Person<'_>, path: &str) -> Answer {
    call(person, Method::GET, path, Value::Null).await
}

pub async fn post(person: &Person<'_>, path: &str, body: Value) -> Answer {
    call(person, Method::POST, path, body).await
}

pub async fn patch(person: &Person<'_>, path: &str, body: Value) -> Answer {
    call(person, Method::PATCH, path, body).await
}

pub async fn delete(person: &Person<'_>, path: &str) -> Answer {
    call(person, Method::DELETE, path, Value::Null).await
}

pub fn session(client_id: &str, start_ms: i64) -> Value {
    json!({ "clientSessionId": client_id, "sessionStartTimestamp": iso(start_ms) })
}

pub fn consumption(client_id: &str, at_ms: i64) -> Value {
    json!({ "clientConsumptionId": client_id, "timestamp": iso(at_ms), "durationMs": 5000 })
}

/// Starts a session that begins now; its wire form.
pub async fn started(person: &Person<'_>, client_id: &str) -> Value {
    data(post(person, "/sessions", session(client_id, now())).await, StatusCode::CREATED)
}

/// Logs a consumption; its wire form.
pub async fn logged(person: &Person<'_>, body: Value) -> Value {
    data(post(person, "/consumptions", body).await, StatusCode::CREATED)
}

/// The data of an answer with this status.
pub fn data(mut answer: Answer, status: StatusCode) -> Value {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.body["success"], true, "{}", answer.body);
    answer.body["data"].take()
}

pub fn ok(answer: Answer) -> Value {
    data(answer, StatusCode::OK)
}

/// Checks a refusal's status and code.
pub fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.body);
}

pub fn id(entity: &Value) -> &str {
    entity["id"].as_str().unwrap()
}

/// Ids of the rows of a page.
pub fn ids(page: &Answer) -> Vec<String> {
    page.body["data"].as_array().unwrap().iter().map(|row| id(row).to_owned()).collect()
}
