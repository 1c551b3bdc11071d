//! Many requests of one person at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidemark::ids::new_id;

use super::{Replica, consumption, item, push, pushed, session};
use crate::world::World;

#[tokio::test]
async fn sync_24_identical_requests_at_once_have_one_effect() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let (s, c) = (new_id(), new_id());
    let items =
        [session(s), consumption(c, json!({ "sessionId": s })), consumption(new_id(), json!({}))];
    let answers = join_all((0..6).map(|_| push(&ada, &items))).await;
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
        assert_eq!(answer["failed"], json!([]));
    }
    let mut replica = Replica::default();
    replica.pull(&ada, 100).await;
    assert_eq!(replica.rows.len(), 3);
    assert_eq!(
        replica.data("sessions", s)["eventCount"],
        replica.data("sessions", s)["version"].as_i64().unwrap() - 1
    );
}

#[tokio::test]
async fn everything_lands_in_one_session() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let s = new_id();
    pushed(&ada, &[session(s)]).await;
    let phones: Vec<_> = (0..6).map(|_| ada.other_phone()).collect();
    let pushes = phones.iter().map(|phone| async move {
        let items: Vec<Value> =
            (0..3).map(|_| consumption(new_id(), json!({ "sessionId": s }))).collect();
        let mut open = items;
        // What is busy is sent again, as the app does.
        while !open.is_empty() {
            let data = push(phone, &open).await;
            let failed: BTreeSet<String> = data["failed"]
                .as_array()
                .unwrap()
                .iter()
                .inspect(|failure| assert_eq!(failure["retryable"], true, "{failure}"))
                .map(|failure| failure["requestId"].to_string())
                .collect();
            open.retain(|item| failed.contains(&item["requestId"].to_string()));
        }
    });
    join_all(pushes).await;
    let mut replica = Replica::default();
    replica.pull(&ada, 100).await;
    assert_eq!(replica.data("sessions", s)["eventCount"], 18);
    assert_eq!(replica.data("sessions", s)["totalDurationMs"], 18_000);
}

#[tokio::test]
async fn sync_28_one_client_id_at_once_makes_one_entity() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let client_id = new_id();
    let pushes = (0..5).map(|_| async {
        let mut item = consumption(client_id, json!({}));
        let other = new_id();
        item["entityId"] = json!(other);
        item["clientId"] = json!(other);
        pushed(&ada, &[item]).await[0]["serverId"].clone()
    });
    let ids: BTreeSet<String> = join_all(pushes).await.iter().map(Value::to_string).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn sync_27_a_parent_and_its_children_at_once_find_each_other() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    for _ in 0..4 {
        let s = new_id();
        let parent = [session(s)];
        let children: Vec<_> =
            (0..3).map(|_| [consumption(new_id(), json!({ "sessionId": s }))]).collect();
        let mut pushes: Vec<_> = children.iter().map(|child| pushed(&ada, child)).collect();
        pushes.push(pushed(&ada, &parent));
        join_all(pushes).await;
        let mut replica = Replica::default();
        replica.pull(&ada, 100).await;
        assert_eq!(replica.data("sessions", s)["eventCount"], 3);
    }
}

#[tokio::test]
async fn one_session_is_open_whoever_starts_one() {
    let world = World::new().await;
    let ada = world.person("ada").await;
    let starts: Vec<_> = (0..4).map(|_| [session(new_id())]).collect();
    join_all(starts.iter().map(|start| pushed(&ada, start))).await;
    let mut replica = Replica::default();
    replica.pull(&ada, 100).await;
    let open = replica.rows.values().filter(|row| row["data"]["status"] == "ACTIVE").count();
    assert_eq!((replica.rows.len(), open), (4, 1));
    let all: Vec<Value> = replica
        .rows
        .values()
        .map(|row| {
            item(
                "DELETE",
                "sessions",
                row["serverId"].as_str().unwrap().parse().unwrap(),
                json!({}),
            )
        })
        .collect();
    pushed(&ada, &all).await;
    // The place is free again.
    let next = new_id();
    pushed(&ada, &[session(next)]).await;
    replica.pull(&ada, 100).await;
    assert_eq!(replica.data("sessions", next)["status"], "ACTIVE");
}
