//! What every response carries.

use chrono::DateTime;

use super::*;

fn assert_complete(answer: &Answer, what: &str) {
    let time = answer.header("server-time");
    assert!(time.ends_with('Z') && time.len() == 24, "{what}: Server-Time {time:?}");
    assert!(DateTime::parse_from_rfc3339(time).is_ok(), "{what}");
    assert!(!answer.header("x-request-id").is_empty(), "{what}");
    assert_eq!(answer.header("x-request-id"), answer.header("x-correlation-id"), "{what}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(answer.header("x-frame-options"), "DENY", "{what}");
}

#[tokio::test]
async fn every_answer_tells_the_time_and_its_request() {
    let app = App::hasty();
    for (method, path, status) in [
        ("GET", "/livez", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/me", 405),
        ("GET", "/me", 401),
        ("POST", "/orders", 415),
        ("GET", "/panics", 500),
        ("GET", "/fails", 500),
        ("GET", "/hangs", 503),
    ] {
        let answer = app.send(request(method, path, &[], Body::empty())).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_complete(&answer, path);
    }
    assert_complete(&app.post("/orders", &[], vec![b' '; 2_000_000]).await, "413");
}

#[tokio::test]
async fn a_request_keeps_the_id_it_came_with() {
    let app = App::new();
    let answer = app.get("/correlation", &[("x-correlation-id", "upload-7")]).await;
    assert_eq!(answer.header("x-correlation-id"), "upload-7");
    let body = answer.json();
    assert_eq!(body["metadata"]["requestId"], "upload-7");
    assert_eq!(body["metadata"]["correlationId"], "upload-7");
    assert!(body["metadata"]["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(Uuid::parse_str(body["data"].as_str().unwrap()).unwrap().get_version_num(), 5);
    let id = "018f2c6e-0000-7000-8000-000000000001";
    let answer = app.get("/correlation", &[("x-request-id", id)]).await;
    assert_eq!(answer.json()["data"], id);
}

#[tokio::test]
async fn large_answers_are_compressed_and_small_ones_are_not() {
    let app = App::new();
    let gzip = [("accept-encoding", "gzip")];
    assert_eq!(app.get("/large", &gzip).await.header("content-encoding"), "gzip");
    assert_eq!(app.get("/large", &[]).await.header("content-encoding"), "");
    assert_eq!(app.get("/livez", &gzip).await.header("content-encoding"), "");
}

#[tokio::test]
async fn only_listed_origins_may_call_from_a_browser() {
    let origins = vec!["https://app.example".to_owned(), "*".to_owned()];
    let app = App::with(Limits { cors_origins: origins, ..Limits::default() }, true);
    for (origin, allowed) in
        [("https://app.example", "https://app.example"), ("https://evil.example", "")]
    {
        let asks = [("origin", origin), ("access-control-request-method", "POST")];
        let answer = app.send(request("OPTIONS", "/orders", &asks, Body::empty())).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        assert_complete(&answer, "preflight");
        assert!(answer.header("access-control-allow-headers").contains("idempotency-key"));
    }
    let answer = app.get("/livez", &[("origin", "https://app.example")]).await;
    let exposed = answer.header("access-control-expose-headers");
    for name in ["x-health-watermark", "x-ratelimit-window", "retry-after"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}
