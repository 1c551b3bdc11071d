//! Requests that are refused as a whole leave the log as it was.

use super::*;
use crate::world::World;

#[tokio::test]
async fn a_faulty_envelope_appends_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    let before = (ann.stored().await, world.position().await);
    let good = body(ids::new_id(), &[heart_rate("s", MARCH, 61)], &[]);
    let many: Vec<Value> =
        (0..501).map(|n| heart_rate(&format!("r-{n}"), MARCH + n * MINUTE, 61)).collect();
    let faulty = [
        json!([]),
        json!({}),
        with(good.clone(), "requestId", "no uuid"),
        with(good.clone(), "payloadHash", "F".repeat(64)),
        with(good.clone(), "surprise", 1),
        with(good.clone(), "samples", json!([])),
        with(good.clone(), "samples", json!(many)),
        with(good.clone(), "samples", json!([1])),
        with(good.clone(), "samples", json!([with(heart_rate("s", MARCH, 61), "startAt", "noon")])),
        with(good.clone(), "samples", json!([with(heart_rate("s", MARCH, 61), "sourceId", "")])),
        with(good.clone(), "deleted", json!([{ "sourceId": "s" }])),
    ];
    for request in &faulty {
        let answer = ann.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_ERROR"));
        assert_eq!(answer.body["error"]["retryable"], false);
    }
    let newer = ann.send(&with(good.clone(), "configVersion", 99)).await;
    assert_eq!((newer.status.as_u16(), newer.code()), (503, "SERVICE_UNAVAILABLE"));
    assert_eq!(newer.body["error"]["retryable"], true);

    let raw = |request: reqwest::RequestBuilder| request.header("content-type", "application/json");
    for bytes in [&b""[..], b"{", b"\xff\xfe", b"null", b"{\"samples\": [NaN]}"] {
        let answer = Answer::of(raw(ann.post(UPSERT)).body(bytes.to_vec())).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_ERROR"));
    }
    let deep = format!("{{\"samples\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(Answer::of(raw(ann.post(UPSERT)).body(deep)).await.status, 400);
    assert_eq!((ann.stored().await, world.position().await), before);
}

#[tokio::test]
async fn strangers_and_nameless_phones_are_refused() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let before = world.position().await;
    let good = body(ids::new_id(), &[heart_rate("s", MARCH, 61)], &[]);
    let stranger = world.request(reqwest::Method::POST, UPSERT).json(&good);
    let answer = Answer::of(stranger).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "UNAUTHORIZED"));
    let forged = world.request(reqwest::Method::POST, UPSERT).bearer_auth("a.b.c").json(&good);
    let answer = Answer::of(forged).await;
    assert_eq!(answer.code(), "UNAUTHORIZED", "a bad token must not read as bad data");
    let nameless = || ann.nameless(reqwest::Method::POST, UPSERT).json(&good);
    for request in [nameless(), nameless().header("x-device-id", "my phone")] {
        let answer = Answer::of(request).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_ERROR"));
    }
    assert_eq!(world.position().await, before);
}

#[tokio::test]
async fn bodies_have_limits_packed_and_unpacked() {
    use std::io::Write;
    let world = World::new().await;
    let ann = world.person("ann").await;
    let before = world.position().await;
    let post = || ann.post(UPSERT).header("content-type", "application/json");
    let large = " ".repeat(7 * 1024 * 1024);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(large.as_bytes()).unwrap();
    let bomb = post().header("content-encoding", "gzip").body(gzip.finish().unwrap());
    let answer = Answer::of(bomb).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(answer.body["error"]["retryable"], true, "the client halves its batch then");
    let odd = post().header("content-encoding", "br").body("{}");
    assert_eq!(Answer::of(odd).await.status, 415);
    assert_eq!(world.position().await, before);
}

#[tokio::test]
async fn a_batch_too_large_for_one_event_is_to_be_sent_in_parts() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let before = (ann.stored().await, world.position().await);
    let noise = |n: i64| -> String {
        (0..50).map(|_| ids::new_id().simple().to_string()).collect::<String>() + &n.to_string()
    };
    let samples: Vec<Value> = (0..500)
        .map(|n| {
            let sample = heart_rate(&format!("r-{n}"), MARCH + n * MINUTE, 61);
            let text = noise(n);
            with(sample, "metadata", json!({ "deviceModel": text, "osName": text }))
        })
        .collect();
    let answer = ann.upload(&samples, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(answer.body["error"]["retryable"], true);
    assert_eq!((ann.stored().await, world.position().await), before);
    for part in samples.chunks(200) {
        assert_eq!(ann.upload(part, &[]).await.status, 200);
    }
    assert_eq!(ann.stored().await.active(), 500);
    ann.verify().await;
}

#[tokio::test]
async fn health_routes_count_as_sync_and_are_documented() {
    let world = World::with(tidemark::http::state::Limits::default()).await;
    let ann = world.person("ann").await;
    let answer = ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    assert_eq!(answer.header("x-ratelimit-limit"), "200");
    let document = Answer::of(world.request(reqwest::Method::GET, "/openapi.json")).await.body;
    assert!(document["paths"][UPSERT]["post"].is_object());
    let cursor = &document["paths"]["/api/v1/health/samples/cursor"]["get"]["parameters"];
    let names: BTreeSet<&str> =
        cursor.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cursor", "endTime", "limit", "metricCode", "startTime"].into());
}
