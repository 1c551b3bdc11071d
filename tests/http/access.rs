//! Who may see what, on every documented route.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidemark::auth::dev::{self, DevIssuer};
use uuid::Uuid;

use crate::rest::{call, consumption, get, id, ids, logged, now, refused, serving, started};
use crate::world::{Answer, Person, World};

/// Every documented route of the API, with `{…}` in its path.
async fn documented(world: &World) -> Vec<(Method, String)> {
    let document = Answer::of(world.request(Method::GET, "/openapi.json")).await.body;
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes())
                && path.starts_with("/api/")
            {
                routes.push((method, path.clone()));
            }
        }
    }
    assert!(routes.len() > 25, "{routes:?}");
    routes
}

fn filled(path: &str, id: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { id } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn no_route_answers_without_a_token() {
    let world = serving().await;
    for (method, path) in documented(&world).await {
        let path = filled(&path, &Uuid::from_u128(1).to_string());
        let request = world.request(method.clone(), &path).json(&json!({}));
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}: {}", answer.body);
        assert_eq!(answer.code(), "UNAUTHORIZED", "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(world.position().await, 0, "nobody left a trace");
}

#[tokio::test]
async fn tokens_that_are_expired_malformed_or_forged_are_told_apart() {
    let world = serving().await;
    let data_dir = &world.app.data_dir;
    let issuer = DevIssuer::open(data_dir).unwrap();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |expires: u64| {
        json!({ "iss": dev::ISSUER, "aud": dev::AUDIENCE, "sub": "ann", "token_use": "id",
            "iat": at - 7200, "exp": expires })
    };
    let key = EncodingKey::from_ed_der(&std::fs::read(data_dir.join("dev-issuer.pk8")).unwrap());
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = issuer.jwks()["keys"][0]["kid"].as_str().map(str::to_owned);
    let expired = encode(&header, &claims(at - 3600), &key).unwrap();
    let foreign = tempfile::tempdir().unwrap();
    let foreign = DevIssuer::open(foreign.path()).unwrap();
    let forged =
        foreign.issue("ann", &BTreeSet::new(), std::time::Duration::from_secs(60)).unwrap();
    let valid = encode(&header, &claims(at + 3600), &key).unwrap();
    for path in ["/api/v1/sessions", "/api/v1/users/me", "/api/v1/consumptions"] {
        for (token, status, code) in [
            (&expired, 401, "TOKEN_EXPIRED"),
            (&forged, 401, "INVALID_TOKEN"),
            (&"nonsense".to_owned(), 400, "MALFORMED_TOKEN"),
        ] {
            let answer = Answer::of(world.request(Method::GET, path).bearer_auth(token)).await;
            refused(&answer, status, code);
        }
        let answer = Answer::of(world.request(Method::GET, path).bearer_auth(&valid)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    }
}

/// An answer without what differs from request to request.
fn lasting(answer: &Answer) -> (u16, Value) {
    let mut body = answer.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("metadata");
        if let Some(error) = body.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("requestId");
        }
    }
    (answer.status.as_u16(), body)
}

async fn with_id(person: &Person<'_>, method: &Method, path: &str, id: &str) -> Answer {
    let path = filled(path, id);
    let body = if *method == Method::GET { Value::Null } else { json!({}) };
    call(person, method.clone(), path.trim_start_matches("/api/v1"), body).await
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_as_if_it_were_not_there() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let eve = world.person("eve").await;
    let session = started(&ann, "s").await;
    let dose = logged(&ann, consumption("c", now())).await;
    let missing = Uuid::from_u128(404).to_string();
    let position = world.position().await;
    let mut tried = 0;
    for (method, path) in documented(&world).await {
        let theirs = match &path {
            path if path.starts_with("/api/v1/sessions/{") => id(&session),
            path if path.starts_with("/api/v1/consumptions/{") => id(&dose),
            _ => continue,
        };
        tried += 1;
        let foreign = with_id(&eve, &method, &path, theirs).await;
        refused(&foreign, 404, "NOT_FOUND");
        let absent = with_id(&eve, &method, &path, &missing).await;
        assert_eq!(lasting(&foreign), lasting(&absent), "{method} {path}");
    }
    assert_eq!(tried, 13);
    refused(&get(&eve, "/sessions/active").await, 404, "NOT_FOUND");
    assert_eq!(ids(&get(&eve, "/sessions").await), Vec::<String>::new());
    let of_session = format!("/consumptions?sessionId={}", id(&session));
    assert_eq!(ids(&get(&eve, &of_session).await), Vec::<String>::new());
    assert_eq!(world.position().await, position, "and nothing was written");
}

#[tokio::test]
async fn the_ids_of_others_are_nothing_special() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let eve = world.person("eve").await;
    let client_id = Uuid::from_u128(0xbeef).to_string();
    let anns = started(&ann, &client_id).await;
    assert_eq!(id(&anns), client_id);
    let eves = started(&eve, &client_id).await;
    assert_ne!(id(&eves), client_id, "the id is taken, and nothing says so");
    assert_eq!(eves["clientSessionId"], anns["clientSessionId"]);
    assert_eq!(eves["userId"], eve.user.to_string());

    let mut body = consumption("c", now());
    body["sessionId"] = client_id.clone().into();
    let dose = logged(&eve, body).await;
    assert_eq!(dose["sessionId"], eves["id"], "her own name for her own session");
    let seen = get(&ann, &format!("/sessions/{client_id}")).await;
    assert_eq!(seen.body["data"]["eventCount"], 0);
}
