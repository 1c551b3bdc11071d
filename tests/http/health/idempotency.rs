//! The same request again, the same samples again, and both at once.

use futures_util::future::join_all;

use super::*;
use crate::support;
use crate::world::World;

#[tokio::test]
async fn health_02_a_repeated_request_is_answered_as_before() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let samples = [heart_rate("a", MARCH, 61), heart_rate("b", MARCH, 100_000)];
    let request = body(ids::new_id(), &samples, &[deletion("c", None)]);
    let first = ann.send(&request).await;
    ann.upload(&[heart_rate("a", MARCH, 75)], &[]).await;
    let between = (ann.stored().await, world.position().await);
    let again = ann.send(&request).await;
    assert_eq!(lasting(&first), lasting(&again));

    // Neither the order of items nor what is not content makes it another request.
    let mut reordered = request.clone();
    reordered["samples"].as_array_mut().unwrap().reverse();
    reordered["deleted"][0]["deletedAt"] = json!(iso(MARCH));
    reordered["leaseId"] = json!(ids::new_id());
    let reordered = ann.send(&reordered).await;
    assert_eq!(lasting(&first), lasting(&reordered));
    assert_eq!((ann.stored().await, world.position().await), between);
    ann.verify().await;
}

#[tokio::test]
async fn health_02_concurrent_repeats_execute_once() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let samples: Vec<Value> =
        (0..50).map(|n| heart_rate(&format!("r-{n}"), MARCH + n * MINUTE, 61)).collect();
    let request = body(ids::new_id(), &samples, &[deletion("x", None)]);
    let before = world.position().await;
    // More than there are connections: who waits must not keep the one who works from them.
    let answers = join_all((0..40).map(|_| ann.send(&request))).await;
    for answer in &answers {
        assert_eq!(lasting(answer), lasting(&answers[0]));
    }
    assert_eq!(answers[0].status, 207);
    assert_eq!(world.position().await, before + 1);
    assert_eq!((ann.stored().await.active(), ann.stored().await.health_seq), (50, 1));
    ann.verify().await;
}

#[tokio::test]
async fn health_01_05_the_same_samples_under_many_ids_are_stored_once() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let samples: Vec<Value> =
        (0..50).map(|n| heart_rate(&format!("r-{n}"), MARCH + n * MINUTE, 61)).collect();
    let answers = join_all((0..12).map(|_| ann.upload(&samples, &[]))).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), answer.header("x-health-watermark")), (200, "1"));
        assert_eq!(answer.body["data"]["successful"], answers[0].body["data"]["successful"]);
    }
    let batches = ann.batches().await;
    assert_eq!(batches.len(), 12, "each request has its event");
    assert_eq!(batches.iter().filter(|batch| batch.facts.changed).count(), 1);
    assert_eq!(ann.stored().await.active(), 50);
    ann.verify().await;
}

#[tokio::test]
async fn health_01_02_two_servers_order_one_person() {
    let world = World::new().await;
    let other = world.another().await;
    let (here, there) = (world.person("ann").await, other.person("ann").await);
    assert_eq!(here.user, there.user);
    let request = body(ids::new_id(), &[heart_rate("a", MARCH, 61)], &[deletion("x", None)]);
    let uploads = (0..10).map(|n| {
        let person = [&here, &there][n % 2];
        let samples = [heart_rate(&format!("r-{}", n / 2), MARCH + n as i64 % 2, 61)];
        let request = &request;
        async move {
            let upload = person.upload(&samples, &[]).await;
            assert_eq!(upload.status, 200, "{}", upload.body);
            person.send(request).await
        }
    });
    let answers = join_all(uploads).await;
    for answer in &answers {
        assert_eq!(lasting(answer), lasting(&answers[0]));
    }
    let stored = here.stored().await;
    assert_eq!((stored.active(), stored.health_seq), (11, 11));
    assert_eq!(here.batches().await.len(), 11);
    here.verify().await;
}

#[tokio::test]
async fn health_05_unchanged_uploads_move_no_reader() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let samples = [heart_rate("a", MARCH, 61), sleep("b", MARCH, MARCH + HOUR)];
    ann.upload(&samples, &[deletion("gone", Some(MARCH))]).await;
    let before = ann.stored().await;
    ann.upload(&samples, &[deletion("gone", Some(MARCH))]).await;
    assert_eq!(ann.stored().await, before);
    let last = ann.batches().await.pop().unwrap();
    assert!(!last.facts.changed && last.rows().is_empty() && last.tombstoned.is_empty());
    ann.verify().await;
}

#[tokio::test]
async fn health_03_a_reused_id_with_other_content_changes_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let request = body(ids::new_id(), &[heart_rate("a", MARCH, 61)], &[]);
    let first = ann.send(&request).await;
    let before = (ann.stored().await, world.position().await);
    for change in 0..3 {
        let mut other = request.clone();
        match change {
            0 => other["samples"][0]["value"] = json!(62),
            1 => other["samples"] = json!([heart_rate("b", MARCH, 61)]),
            _ => other["deleted"] = json!([deletion("a", None)]),
        }
        let answer = ann.send(&other).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_ERROR"));
        assert_eq!(answer.body["error"]["retryable"], true, "the client must not discard");
    }
    assert_eq!((ann.stored().await, world.position().await), before);
    assert_eq!(lasting(&ann.send(&request).await), lasting(&first));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_lock() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let samples: Vec<Value> =
        (0..500).map(|n| heart_rate(&format!("r-{n}"), MARCH + n * MINUTE, 61)).collect();
    let request = body(ids::new_id(), &samples, &[]);
    for wait_ms in [1, 2, 4, 8, 12, 16, 24, 32] {
        let patience = std::time::Duration::from_millis(wait_ms);
        let _ = ann.post(UPSERT).json(&request).timeout(patience).send().await;
    }
    let answer = ann.send(&with(request, "requestId", json!(ids::new_id()))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(ann.stored().await.active(), 500);
    ann.verify().await;
}

#[tokio::test]
async fn a_killed_connection_gives_the_lane_back() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let store = &world.app.store;
    let held = store.lane(ann.user).await.unwrap();
    let samples = [heart_rate("a", MARCH, 61)];
    let upload = ann.upload(&samples, &[]);
    let kill = async {
        let mut admin = support::connect(&world.database.log).await;
        let killed: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_locks \
             WHERE locktype = 'advisory' AND granted AND database = \
             (SELECT oid FROM pg_database WHERE datname = current_database())) k",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(killed, 1);
        held.release().await;
    };
    let (answer, ()) = tokio::join!(upload, kill);
    assert_eq!(answer.status, 200, "{}", answer.body);
    ann.verify().await;
}

#[tokio::test]
async fn health_22_a_connection_killed_in_the_append_leaves_nothing_behind() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let before = (ann.stored().await, world.position().await);
    let samples = [heart_rate("a", MARCH, 61)];
    let request = body(ids::new_id(), &samples, &[deletion("b", None)]);
    let mut blocker = support::connect(&world.database.log).await;
    let mut admin = support::connect(&world.database.log).await;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM log_head FOR UPDATE").execute(&mut blocker).await.unwrap();
    let kill = async {
        // The samples are written by then, and the append waits for the head of the log.
        let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND datname = current_database() AND query LIKE '%FROM append(%'";
        let pid: i32 = loop {
            if let Some(pid) = sqlx::query_scalar(waiting).fetch_optional(&mut admin).await.unwrap()
            {
                break pid;
            }
        };
        let kill = sqlx::query("SELECT pg_terminate_backend($1)").bind(pid);
        kill.execute(&mut admin).await.unwrap();
        sqlx::raw_sql("ROLLBACK").execute(&mut blocker).await.unwrap();
    };
    let (answer, ()) = tokio::join!(ann.send(&request), kill);
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "SERVICE_UNAVAILABLE"));
    assert_eq!(answer.body["error"]["retryable"], true);
    assert_eq!((ann.stored().await, world.position().await), before);

    let again = ann.send(&request).await;
    assert_eq!(again.status, 207, "{}", again.body);
    assert_eq!(ann.stored().await.active(), 1);
    ann.verify().await;
}
