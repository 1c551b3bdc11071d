use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::to_bytes;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::context::{Correlation, RequestContext};
use super::*;

/// Status and body of the error as answered under `path`.
async fn answer(path: &str, error: ApiError) -> (u16, Value) {
    let correlation = Correlation { text: "r-1".to_owned(), id: Uuid::nil() };
    let context =
        RequestContext { correlation, dialect: Dialect::of_path(path), quota: Default::default() };
    let response = context.scope(async { error.into_response() }).await;
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn codes_are_unique_and_found_by_name() {
    let names: BTreeSet<_> = code::ALL.iter().map(|code| code.name).collect();
    assert_eq!(names.len(), code::ALL.len());
    assert_eq!(code::find("VERSION_CONFLICT"), Some(code::VERSION_CONFLICT));
    assert_eq!(code::find("version_conflict"), None);
    assert!(
        code::ALL.iter().all(|code| code.status.is_client_error() || code.status.is_server_error())
    );
}

#[tokio::test]
async fn the_standard_shape_holds_what_was_given_and_nothing_else() {
    let error = ApiError::new(code::CONFLICT)
        .with_message("Someone was faster.")
        .with_details(json!({ "id": 1 }));
    let expected = json!({ "success": false, "error": { "code": "CONFLICT",
        "message": "Someone was faster.", "details": { "id": 1 }, "requestId": "r-1" } });
    assert_eq!(answer("/api/v1/sessions", error).await, (409, expected));
}

#[tokio::test]
async fn the_health_shape_always_says_whether_to_retry() {
    const KNOWN: [&str; 10] = [
        "UNAUTHORIZED",
        "FORBIDDEN",
        "VALIDATION_ERROR",
        "RATE_LIMITED",
        "SERVICE_UNAVAILABLE",
        "SERVER_ERROR",
        "TIMEOUT",
        "GATEWAY_TIMEOUT",
        "PAYLOAD_TOO_LARGE",
        "QUERY_VALIDATION_ERROR",
    ];
    for (raised, wire, retryable, wait) in [
        (code::VALIDATION_ERROR, "VALIDATION_ERROR", false, Value::Null),
        (code::PAYLOAD_HASH_MISMATCH, "VALIDATION_ERROR", false, Value::Null),
        (code::INVALID_DEVICE_ID, "VALIDATION_ERROR", false, Value::Null),
        (code::TOKEN_EXPIRED, "UNAUTHORIZED", false, Value::Null),
        (code::FORBIDDEN, "FORBIDDEN", false, Value::Null),
        (code::CONFLICT, "SERVER_ERROR", true, json!(90_000)),
        (code::RATE_LIMIT_EXCEEDED, "RATE_LIMITED", true, json!(60_000)),
        (code::CONFIG_VERSION_TOO_NEW, "SERVICE_UNAVAILABLE", true, json!(30_000)),
        (code::INTERNAL_SERVER_ERROR, "SERVER_ERROR", true, Value::Null),
        (code::DATABASE_ERROR, "SERVER_ERROR", true, Value::Null),
    ] {
        let (status, body) = answer("/api/v1/health/x", raised.into()).await;
        assert_eq!(status, raised.status.as_u16());
        let error = &body["error"];
        assert_eq!(error["code"], wire, "{raised:?}");
        assert!(KNOWN.contains(&wire));
        assert_eq!(error["retryable"], retryable, "{raised:?}");
        assert_eq!(error["retryAfterMs"], wait, "{raised:?}");
    }
    let (status, body) = answer("/api/v1/health/x", code::MALFORMED_TOKEN.into()).await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("UNAUTHORIZED")));
    assert_eq!(answer("/api/v1/sessions", code::MALFORMED_TOKEN.into()).await.0, 400);
    let repeatable = ApiError::new(code::VALIDATION_ERROR).with_retryable(true);
    assert_eq!(answer("/api/v1/health/x", repeatable).await.1["error"]["retryable"], true);
    let sooner = ApiError::new(code::CONFLICT).with_retry_after(Duration::from_millis(1500));
    let (_, body) = answer("/api/v1/health/x", sooner).await;
    assert_eq!(body["error"]["retryAfterMs"], 1500);
}

#[tokio::test]
async fn what_is_unavailable_always_says_for_how_long() {
    for code in code::ALL.iter().filter(|code| code.status == StatusCode::SERVICE_UNAVAILABLE) {
        let response = ApiError::new(*code).into_response();
        assert_eq!(response.headers()["retry-after"], "30", "{}", code.name);
    }
    let odd = ApiError::unavailable("x").with_retry_after(Duration::from_millis(1001));
    assert_eq!(odd.into_response().headers()["retry-after"], "2", "rounded up");
}
