//! Against a real HTTP listener that answers from a script.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::IntoResponse;
use serde_json::json;

use super::wire::{Deletion, Sample, ValueKind};
use super::*;

struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Status, `Retry-After` and body.
type Answer = (u16, Option<&'static str>, Value);

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

async fn answer(
    State(script): State<Script>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    script.seen.lock().unwrap().push(Seen { method, uri, headers, body });
    let (status, retry_after, body) = script.answers.lock().unwrap().pop_front().unwrap();
    let mut headers = HeaderMap::new();
    if let Some(value) = retry_after {
        headers.insert("retry-after", value.parse().unwrap());
    }
    (StatusCode::from_u16(status).unwrap(), headers, axum::Json(body))
}

async fn server(answers: impl IntoIterator<Item = Answer>) -> (ApiClient, Script) {
    let script = Script::default();
    script.answers.lock().unwrap().extend(answers);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut client = ApiClient::new(&url, "secret-token", Uuid::from_u128(7)).unwrap();
    client.patience.pause = Duration::from_millis(1);
    client.patience.longest = Duration::from_millis(2);
    (client, script)
}

fn batch(n: usize) -> Batch {
    let sample = |i: usize| Sample {
        source_id: "apple_healthkit".into(),
        source_record_id: format!("r{i}"),
        metric_code: "heart_rate".into(),
        value_kind: ValueKind::ScalarNum,
        value: Some(61.0),
        unit: Some("bpm".into()),
        category_code: None,
        start_at: "2026-03-01T06:15:00.000Z".into(),
        end_at: "2026-03-01T06:15:00.000Z".into(),
        duration_seconds: Some(0),
        timezone_offset_minutes: None,
        metadata: None,
    };
    Batch::of_content((0..n).map(sample).collect(), Vec::new())
}

fn done() -> Value {
    json!({"success": true, "data": {"successful": [], "failed": [], "metrics": {}}})
}

#[tokio::test]
async fn a_queued_batch_is_asked_about_under_the_same_id() {
    let busy = json!({"success": false, "error": {"code": "SERVER_ERROR", "message": "m",
        "retryable": true, "retryAfterMs": 90_000}});
    let queued = json!({"success": true, "data": {"processing": true, "retryAfterMs": 60_000}});
    let (client, script) =
        server([(202, None, queued), (409, None, busy), (207, None, done())]).await;
    let batch = batch(1);
    client.batch_upsert(&batch).await.unwrap();
    let seen = script.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for request in seen.iter() {
        assert_eq!(request.uri.path(), "/api/v1/health/samples/batch-upsert");
        let body: Batch = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body, batch);
    }
}

#[tokio::test]
async fn large_bodies_travel_compressed_and_small_ones_do_not() {
    let (mut client, script) = server([(200, None, done()), (200, None, done())]).await;
    client.timezone_offset_minutes = Some(-300);
    client.batch_upsert(&batch(1)).await.unwrap();
    client.batch_upsert(&batch(50)).await.unwrap();
    let seen = script.seen.lock().unwrap();
    assert!(!seen[0].headers.contains_key("content-encoding"));
    assert_eq!(seen[0].headers["x-timezone-offset"], "-300");
    assert_eq!(seen[0].headers["authorization"], "Bearer secret-token");
    assert_eq!(seen[1].headers["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&seen[1].body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Batch>(&text).unwrap(), batch(50));
}

#[tokio::test]
async fn an_unavailable_server_is_tried_again_a_bounded_number_of_times() {
    let down = || (503, Some("1"), json!({"error": {"code": "SERVICE_UNAVAILABLE"}}));
    let (client, script) = server([down(), down(), (200, None, json!({"data": [1]}))]).await;
    assert_eq!(client.get(&["sessions"], &[("limit", "5")]).await.unwrap(), json!([1]));
    assert_eq!(script.seen.lock().unwrap()[0].uri.query(), Some("limit=5"));

    let (client, script) = server((0..20).map(|_| down())).await;
    let error = client.get(&["sessions"], &[]).await.unwrap_err();
    assert_eq!((error.status(), error.code()), (Some(503), Some("SERVICE_UNAVAILABLE")));
    assert_eq!(script.seen.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn a_refusal_is_answered_once_with_its_code() {
    let no = json!({"success": false, "error": {"code": "FORBIDDEN", "message": "off",
        "retryable": false, "details": {"reason": "HEALTH_UPLOAD_DISABLED"}}});
    let (client, script) = server([(403, None, no)]).await;
    let error = client.batch_upsert(&batch(1)).await.unwrap_err();
    let ClientError::Api(error) = error else { panic!("{error}") };
    assert_eq!((error.status, error.code.as_str(), error.retryable), (403, "FORBIDDEN", false));
    assert_eq!(error.details["reason"], "HEALTH_UPLOAD_DISABLED");
    assert_eq!(script.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn ids_in_paths_and_cursors_in_queries_are_escaped() {
    let page = json!({"data": {"changes": [], "cursor": null, "hasMore": false}});
    let (client, script) =
        server([(200, None, page), (204, None, Value::Null), (200, None, json!({"a": 1}))]).await;
    client.changes(Some("a+b/c="), &["sessions", "consumptions"]).await.unwrap();
    client.delete(&["sessions", "a/../b"]).await.unwrap();
    assert_eq!(client.freshness().await.unwrap(), json!({"a": 1}), "a body without envelope");
    let seen = script.seen.lock().unwrap();
    let query = seen[0].uri.query().unwrap();
    assert_eq!(query, "limit=700&entityTypes=sessions%2Cconsumptions&cursor=a%2Bb%2Fc%3D");
    assert_eq!(seen[1].method, Method::DELETE);
    assert_eq!(seen[1].uri.path(), "/api/v1/sessions/a%2F..%2Fb");
}

#[tokio::test]
async fn nobody_listening_is_a_connection_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut client = ApiClient::new(&url, "t", Uuid::nil()).unwrap();
    client.patience.pause = Duration::from_millis(1);
    assert!(matches!(client.freshness().await, Err(ClientError::Connection(_))));
    assert!(matches!(ApiClient::new("nonsense", "t", Uuid::nil()), Err(ClientError::BadUrl)));
    assert!(!format!("{client:?}").contains("\"t\""), "tokens stay out of debug output");
}

#[test]
fn the_same_content_is_the_same_request() {
    let deletion = |at: &str| Deletion {
        source_id: "s".into(),
        source_record_id: "r".into(),
        start_at: None,
        deleted_at: Some(at.into()),
    };
    let one = Batch::of_content(Vec::new(), vec![deletion("2026-03-01T06:15:00.000Z")]);
    let two = Batch::of_content(Vec::new(), vec![deletion("2026-03-01T07:15:00.000Z")]);
    assert_eq!((one.request_id, &one.payload_hash), (two.request_id, &two.payload_hash));
    assert_ne!(one.request_id, batch(1).request_id);
}
