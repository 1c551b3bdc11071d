//! Who gets in.

use super::*;
use crate::auth::dev::{AUDIENCE, ISSUER};
use crate::http::rate::{Rate, RateClass};

#[tokio::test]
async fn each_failure_of_a_token_has_its_code() {
    let app = App::new();
    let good = app.bearer("ann", &[]);
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": 1_700_000_000 });
    let expired = format!("Bearer {}", app.dev.sign(&claims).unwrap());
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    for (header, status, expected) in [
        ("", 401, "UNAUTHORIZED"),
        ("Basic YTpi", 401, "UNAUTHORIZED"),
        ("Bearer nonsense", 400, "MALFORMED_TOKEN"),
        (expired.as_str(), 401, "TOKEN_EXPIRED"),
        (forged.as_str(), 401, "INVALID_TOKEN"),
    ] {
        let answer = app.get("/me", &[("authorization", header)]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, expected));
        assert_eq!(answer.header("www-authenticate") == "Bearer", status == 401);
    }
    let twice = app.get("/me", &[("authorization", &good), ("authorization", &good)]).await;
    assert_eq!(twice.code(), "MALFORMED_TOKEN");
}

#[tokio::test]
async fn a_caller_is_mapped_to_their_own_id() {
    let app = App::new();
    let ann = app.get("/me", &[("authorization", &app.bearer("ann", &[]))]).await;
    let bob = app.get("/me", &[("authorization", &app.bearer("bob", &[]))]).await;
    assert_eq!(ann.status, 200);
    assert_ne!(ann.json()["data"], bob.json()["data"]);
    let erased = app.get("/me", &[("authorization", &app.bearer("erased", &[]))]).await;
    assert_eq!((erased.status.as_u16(), erased.code().as_str()), (410, "ACCOUNT_ERASED"));
}

#[tokio::test]
async fn a_failing_directory_is_503_with_retry_after_and_no_detail() {
    let app = App::new();
    let answer = app.get("/me", &[("authorization", &app.bearer("broken", &[]))]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "SERVICE_UNAVAILABLE"));
    assert_eq!(answer.header("retry-after"), "30");
    assert_eq!(answer.json()["error"]["retryAfterMs"], 30_000);
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("postgres"));
}

/// Routes by who may use them. Each resource adds its rows here.
#[tokio::test]
async fn every_route_admits_exactly_its_roles() {
    let everybody: &[Role] = &Role::ALL;
    let table: &[(&str, &[Role])] =
        &[("/me", everybody), ("/audit", &[Role::Auditor, Role::Admin])];
    let app = App::new();
    for (path, admitted) in table {
        assert_eq!(app.get(path, &[]).await.status, 401, "{path} without a token");
        for role in Role::ALL {
            let answer = app.get(path, &[("authorization", &app.bearer("ann", &[role]))]).await;
            let expected = if admitted.contains(&role) { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{path} as {role}");
        }
    }
}

/// Deny by default: what the document lists beyond the routes for operators needs a token.
#[tokio::test]
async fn every_documented_route_needs_a_token() {
    const PUBLIC: [&str; 3] = ["/livez", "/readyz", "/metrics"];
    let app = App::new();
    let document = app.get("/openapi.json", &[]).await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        if PUBLIC.contains(&path.as_str()) {
            continue;
        }
        for method in methods.as_object().unwrap().keys() {
            let id = Uuid::nil().to_string();
            let concrete: Vec<&str> = path
                .split('/')
                .map(|part| if part.starts_with('{') { id.as_str() } else { part })
                .collect();
            let method = method.to_uppercase();
            let answer = app.send(request(&method, &concrete.join("/"), &[], Body::empty())).await;
            assert_eq!(answer.status, 401, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_device_id_is_a_uuid_or_an_error() {
    let app = App::new();
    let id = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8";
    let given = app.get("/device", &[("x-device-id", id)]).await;
    assert_eq!(given.json()["data"], id.to_lowercase());
    assert_eq!(app.get("/device", &[]).await.code(), "DEVICE_ID_REQUIRED");
    for bad in ["phone", "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}"] {
        for path in ["/device", "/maybe-device"] {
            let answer = app.get(path, &[("x-device-id", bad)]).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (400, "INVALID_DEVICE_ID")
            );
        }
    }
    assert_eq!(app.get("/maybe-device", &[]).await.json()["data"], Value::Null);
    let ann = app.bearer("ann", &[]);
    let wrong = app.get("/me", &[("authorization", &ann), ("x-device-id", "phone")]).await;
    assert_eq!((wrong.status.as_u16(), wrong.code().as_str()), (400, "INVALID_DEVICE_ID"));
    assert_eq!(app.get("/me", &[("authorization", &ann)]).await.status, 200);
    let stranger = app.get("/me", &[("x-device-id", "phone")]).await;
    assert_eq!(stranger.code(), "UNAUTHORIZED", "who calls comes first");
}

#[tokio::test]
async fn an_unusable_timezone_offset_is_ignored() {
    let app = App::new();
    for (header, expected) in [
        ("330", json!(330)),
        ("-720", json!(-720)),
        ("840", json!(840)),
        ("841", Value::Null),
        ("-721", Value::Null),
        ("5.5", Value::Null),
        ("east", Value::Null),
        ("", Value::Null),
    ] {
        let answer = app.get("/offset", &[("x-timezone-offset", header)]).await;
        assert_eq!(answer.json()["data"], expected, "{header}");
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_others_are_not_affected() {
    let rate = Rate { requests: 2, window: Duration::from_secs(3600) };
    let rates = [(RateClass::Standard, rate), (RateClass::Sync, rate)].into();
    let app = App::with(Limits { rates, ..Limits::default() }, true);
    let (ann, bob) = (app.bearer("ann", &[]), app.bearer("bob", &[]));
    for left in ["1", "0"] {
        let answer = app.get("/me", &[("authorization", &ann)]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit"), "2");
        assert_eq!(answer.header("x-ratelimit-remaining"), left);
        assert_eq!(answer.header("x-ratelimit-window"), "3600");
    }
    let refused = app.get("/me", &[("authorization", &ann)]).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "RATE_LIMIT_EXCEEDED"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1790..=1800).contains(&wait), "{wait}");
    assert_eq!(refused.json()["error"]["details"]["retryAfter"], wait, "an integer");
    assert_eq!(refused.header("x-ratelimit-limit"), "2");
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert_eq!(refused.header("x-ratelimit-window"), "3600");
    assert!(refused.header("x-ratelimit-reset").ends_with('Z'));
    assert_eq!(app.get("/me", &[("authorization", &bob)]).await.status, 200);
    let health = "/api/v1/health/me";
    for status in [200, 200, 429] {
        assert_eq!(app.get(health, &[("authorization", &ann)]).await.status, status);
    }
    let refused = app.get(health, &[("authorization", &ann)]).await;
    assert_eq!(refused.code(), "RATE_LIMITED");
    assert_eq!(refused.json()["error"]["retryable"], true);
}
