//! Accounts over HTTP.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::rest::{call, get, ok, patch, refused, serving};

#[tokio::test]
async fn an_account_is_made_at_the_first_request_and_changed_by_its_owner() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let account = ok(get(&ann, "/users/me").await);
    assert_eq!(account["id"], ann.user.to_string());
    assert_eq!(ok(get(&ann, "/users/profile").await), account);
    let changed = ok(patch(&ann, "/users/me", json!({ "username": "ann1" })).await);
    assert_eq!(changed["username"], "ann1");
    assert_eq!(ok(get(&ann, "/users/me").await), changed);
    refused(&patch(&ann, "/users/me", json!({})).await, 400, "VALIDATION_ERROR");
    refused(&patch(&ann, "/users/me", json!({ "username": 5 })).await, 400, "VALIDATION_ERROR");
    let ben = world.person("ben").await;
    assert_ne!(ok(get(&ben, "/users/me").await)["username"], "ann1");
}

#[tokio::test]
async fn preferences_are_merged_whatever_the_verb() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let before = ok(get(&ann, "/users/preferences").await);
    assert!(before["privacySettings"].is_object(), "{before}");
    let wrong = json!({ "privacySettings": { "noSuchSetting": true } });
    let refusal = call(&ann, Method::PUT, "/users/preferences", wrong).await;
    refused(&refusal, 400, "VALIDATION_ERROR");
    assert_eq!(ok(get(&ann, "/users/preferences").await), before);
    let gone = get(&ann, "/users/nobody").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}
