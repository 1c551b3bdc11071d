//! When things go wrong on our side.

use super::*;
use crate::http::Timing;

#[tokio::test]
async fn unknown_paths_and_methods_answer_in_the_envelope() {
    let app = App::new();
    let missing = app.get("/api/v1/nowhere", &[]).await;
    assert_eq!((missing.status.as_u16(), missing.code().as_str()), (404, "NOT_FOUND"));
    let wrong = app.get("/orders", &[]).await;
    assert_eq!((wrong.status.as_u16(), wrong.code().as_str()), (405, "METHOD_NOT_ALLOWED"));
    assert_eq!(wrong.header("allow"), "POST");
}

#[tokio::test]
async fn a_panic_is_an_error_that_says_nothing() {
    let app = App::new();
    let answer = app.get("/panics", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "INTERNAL_SERVER_ERROR"));
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("ann"));
    let health = app.get("/api/v1/health/panics", &[]).await;
    assert_eq!(health.code(), "SERVER_ERROR");
    assert_eq!(health.json()["error"]["retryable"], true);
}

#[tokio::test]
async fn a_failure_shows_its_generic_text_only() {
    let answer = App::new().get("/fails", &[]).await;
    assert_eq!(answer.json()["error"]["message"], code::INTERNAL_SERVER_ERROR.message);
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("hunter2"));
}

#[tokio::test]
async fn a_handler_that_hangs_is_given_up_on() {
    let answer = App::hasty().get("/hangs", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "SERVICE_UNAVAILABLE"));
    assert_eq!(answer.header("retry-after"), "2");
}

#[tokio::test]
async fn load_beyond_the_limit_is_shed_but_operators_still_get_in() {
    let app = App::with(Limits { concurrent_requests: 1, ..Limits::default() }, true);
    let mut hanging = Box::pin(app.get("/hangs", &[]));
    assert!(futures_util::poll!(hanging.as_mut()).is_pending());
    let shed = app.get("/large", &[]).await;
    assert_eq!((shed.status.as_u16(), shed.code().as_str()), (503, "SERVICE_UNAVAILABLE"));
    assert_eq!(shed.header("retry-after"), "2");
    assert_eq!(app.get("/livez", &[]).await.status, 200);
    assert_eq!(app.get("/readyz", &[]).await.status, 200);
    drop(hanging);
    assert_eq!(app.get("/large", &[]).await.status, 200, "the slot is free again");
}

#[tokio::test]
async fn readiness_lists_its_checks_either_way() {
    let ready = App::new().get("/readyz", &[]).await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["data"]["checks"][0], json!({ "name": "database", "ok": true }));
    let not = App::with(Limits::default(), false).get("/readyz", &[]).await;
    assert_eq!((not.status.as_u16(), not.code().as_str()), (503, "SERVICE_UNAVAILABLE"));
    assert_eq!(not.json()["error"]["details"]["checks"][0]["ok"], false);
    assert_eq!(not.header("retry-after"), "5");
}

#[tokio::test]
async fn metrics_are_labelled_by_route_and_never_by_path() {
    let app = App::new();
    let id = Uuid::nil();
    app.get(&format!("/orders/{id}"), &[]).await;
    app.get("/secret-path", &[]).await;
    app.send(request("BREW", "/orders", &[], Body::empty())).await;
    let text = String::from_utf8(app.get("/metrics", &[]).await.bytes).unwrap();
    let line = r#"http_requests_total{route="/orders/{id}",method="GET",status="200"}"#;
    assert!(text.contains(line), "{text}");
    assert!(text.contains(r#"route="unmatched",method="GET",status="404""#));
    assert!(text.contains(r#"method="other""#));
    assert!(!text.contains("secret-path") && !text.contains(&id.to_string()));
    assert!(text.contains("http_request_seconds_bucket"));
}

#[tokio::test]
async fn the_document_describes_routes_errors_and_tokens() {
    let document = App::new().get("/openapi.json", &[]).await.json();
    assert_eq!(document["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    assert!(document["components"]["schemas"]["ErrorBody"].is_object());
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
}

#[tokio::test]
async fn stopping_lets_running_requests_finish() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = App::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let signal = async move {
        let _ = stopped.await;
    };
    let timing = Timing::from(&Limits::default());
    let server = tokio::spawn(crate::http::serve(listener, app.router.clone(), signal, timing));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    use tokio::io::AsyncWriteExt;
    let app = App::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /hangs HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let slots = app.slots.clone();
    let signal = async move {
        while slots.available_permits() == Limits::default().concurrent_requests {
            tokio::task::yield_now().await;
        }
    };
    let timing = Timing { head: Duration::from_secs(5), grace: Duration::from_millis(50) };
    let serving = crate::http::serve(listener, app.router.clone(), signal, timing);
    let ended = tokio::time::timeout(Duration::from_secs(10), serving).await;
    ended.expect("the request that hangs is left behind").unwrap();
}

#[tokio::test]
async fn who_dawdles_over_the_head_of_a_request_is_disconnected() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = App::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let timing = Timing { head: Duration::from_millis(50), grace: Duration::ZERO };
    let signal = std::future::pending();
    let server = tokio::spawn(crate::http::serve(listener, app.router.clone(), signal, timing));
    let whole = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    for sent in ["", &whole[..25], whole] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let reading = stream.read_to_end(&mut received);
        let closed = tokio::time::timeout(Duration::from_secs(10), reading).await;
        assert!(closed.is_ok(), "the connection is closed after {} bytes", sent.len());
        assert_eq!(received.starts_with(b"HTTP/1.1 200"), sent == whole);
    }
    server.abort();
}
