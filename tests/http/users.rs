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
async fn a_user_name_belongs_to_one_person() {
    let world = serving().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let rename = |name: &str| json!({ "username": name });
    ok(patch(&ann, "/users/me", rename("Ann")).await);
    for taken in ["Ann", "ann", "ANN"] {
        let refusal = patch(&ben, "/users/me", rename(taken)).await;
        refused(&refusal, 409, "DUPLICATE_ENTRY");
        assert_eq!(refusal.body["error"]["details"][0]["field"], "/username");
    }
    let own = ok(patch(&ann, "/users/me", rename("aNN")).await);
    assert_eq!(own["username"], "aNN", "in another case it is still hers");
    ok(patch(&ann, "/users/me", rename("Anna")).await);
    ok(patch(&ben, "/users/me", rename("ann")).await);
    refused(&patch(&ann, "/users/me", rename("ann")).await, 409, "DUPLICATE_ENTRY");
    ok(patch(&ann, "/users/me", rename("Anna")).await);

    let (name_a, name_b) = (rename("Zoe"), rename("zoe"));
    let (a, b) = tokio::join!(patch(&ann, "/users/me", name_a), patch(&ben, "/users/me", name_b));
    let won = [&a, &b].into_iter().filter(|answer| answer.status == StatusCode::OK).count();
    let lost = [&a, &b].into_iter().filter(|answer| answer.status == StatusCode::CONFLICT).count();
    assert_eq!((won, lost), (1, 1), "{} {}", a.body, b.body);
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
