//! Pages of samples.

use super::*;
use crate::world::World;

fn path(from_ms: i64, until_ms: i64, more: &str) -> String {
    let (from, until) = (iso(from_ms), iso(until_ms));
    format!("/api/v1/health/samples/cursor?startTime={from}&endTime={until}{more}")
}

/// All items of a range, page by page; `between` runs after each page.
async fn walk(
    person: &Person<'_>,
    range: (i64, i64),
    more: &str,
    mut between: impl AsyncFnMut(usize),
) -> Vec<Value> {
    let (mut items, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer =
            Answer::of(person.get(&path(range.0, range.1, &format!("{more}{cursor}")))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let data = &answer.body["data"];
        items.extend(data["items"].as_array().unwrap().iter().cloned());
        let pagination = &data["pagination"];
        assert_eq!(pagination["hasMore"], json!(pagination["nextCursor"].is_string()));
        pages += 1;
        between(pages).await;
        match pagination["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

fn identity(item: &Value) -> (String, String) {
    let text = |name: &str| item[name].as_str().unwrap().to_owned();
    (text("startAt"), text("id"))
}

#[tokio::test]
async fn health_30_pages_hold_every_active_sample_once_in_order() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    // Several share a start; some are deleted; two metrics.
    let samples: Vec<Value> = (0..400)
        .map(|n| {
            let start = MARCH + n / 3 * 7 * MINUTE;
            match n % 5 {
                0 => with(sleep(&format!("n-{n}"), start, start + HOUR), "sourceId", "watch"),
                _ => heart_rate(&format!("r-{n}"), start, 60 + n % 50),
            }
        })
        .collect();
    ann.upload(&samples[200..], &[]).await;
    ann.upload(&samples[..200], &[deletion("r-1", None), deletion("r-333", None)]).await;
    let stored = ann.stored().await;
    let range = (MARCH + 10 * 7 * MINUTE, MARCH + 100 * 7 * MINUTE);
    for (more, metric) in
        [("&limit=7", None), ("&limit=50&metricCode=sleep_stage", Some("sleep_stage")), ("", None)]
    {
        let items = walk(&ann, range, more, async |_| {}).await;
        let wanted = stored.rows.values().filter(|row| {
            row.is_active()
                && (range.0..range.1).contains(&row.key.start_ms)
                && metric.is_none_or(|metric| row.metric.code() == metric)
        });
        assert_eq!(items.len(), wanted.count());
        let order: Vec<_> = items.iter().map(identity).collect();
        assert!(order.windows(2).all(|pair| pair[0] > pair[1]), "strictly falling");
    }
    let unlimited = Answer::of(ann.get(&path(range.0, range.1, ""))).await;
    assert_eq!(unlimited.body["data"]["pagination"]["limit"], 100);
    assert_eq!(unlimited.body["data"]["items"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn health_30_uploads_between_pages_cost_and_double_nothing() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let at = |n: i64| MARCH + n * MINUTE;
    let even: Vec<Value> = (0..400).map(|n| heart_rate(&format!("r-{n}"), at(4 * n), 61)).collect();
    ann.upload(&even, &[]).await;
    let items = walk(&ann, (MARCH, at(2000)), "&limit=60", async |page| {
        // Before, between and after what was there, so that segments split and move.
        let more: Vec<Value> = (0..150)
            .map(|n| heart_rate(&format!("p{page}-{n}"), at(n * 13 % 1900) + page as i64, 70))
            .collect();
        ann.upload(&more, &[]).await;
    })
    .await;
    let order: Vec<_> = items.iter().map(identity).collect();
    assert!(order.windows(2).all(|pair| pair[0] > pair[1]), "no duplicates");
    let seen: BTreeSet<&str> =
        items.iter().map(|item| item["sourceRecordId"].as_str().unwrap()).collect();
    assert!((0..400).all(|n| seen.contains(format!("r-{n}").as_str())), "no loss");
    ann.verify().await;
}

#[tokio::test]
async fn an_item_has_the_documented_fields() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let sample = json!({
        "sourceId": "apple_healthkit", "sourceRecordId": "R", "metricCode": "weight",
        "valueKind": "SCALAR_NUM", "value": 154.5, "unit": "lb",
        "startAt": iso(MARCH), "endAt": iso(MARCH), "durationSeconds": 0,
        "deviceId": "scale", "metadata": { "osName": "x", "secret": "dropped" },
    });
    let uploaded = ann.upload(&[sample, sleep("n", MARCH - HOUR, MARCH)], &[]).await;
    assert_eq!(uploaded.status, 200, "{}", uploaded.body);
    let page = Answer::of(ann.get(&path(MARCH - HOUR, MARCH + 1, ""))).await;
    let items = &page.body["data"]["items"];
    let mut item = items[0].clone();
    assert_eq!(item["id"], uploaded.body["data"]["successful"][0]["serverId"]);
    let fields = item.as_object_mut().unwrap();
    fields.remove("id");
    assert!(fields.remove("createdAt").is_some());
    assert_eq!(
        item,
        json!({
            "sourceId": "apple_healthkit", "sourceRecordId": "r", "metricCode": "weight",
            "valueKind": "SCALAR_NUM", "value": 70.080021, "unit": "kg", "categoryCode": null,
            "startAt": iso(MARCH), "endAt": iso(MARCH), "durationSeconds": 0,
            "deviceId": "scale", "externalUuid": null, "metadata": { "osName": "x" },
            "timezoneOffsetMinutes": 60,
        })
    );
    assert_eq!((&items[1]["value"], &items[1]["unit"]), (&Value::Null, &Value::Null));
    assert_eq!(items[1]["categoryCode"], "deep");
}

#[tokio::test]
async fn faulty_questions_are_refused() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let day = 24 * HOUR;
    for (question, code) in [
        ("/api/v1/health/samples/cursor".to_owned(), "QUERY_VALIDATION_ERROR"),
        (path(MARCH + 1, MARCH, ""), "QUERY_VALIDATION_ERROR"),
        (path(MARCH, MARCH + 366 * day + 1, ""), "QUERY_VALIDATION_ERROR"),
        (path(MARCH, MARCH, "&limit=0"), "QUERY_VALIDATION_ERROR"),
        (path(MARCH, MARCH, "&limit=501"), "QUERY_VALIDATION_ERROR"),
        (path(MARCH, MARCH, "&metricCode=aura"), "QUERY_VALIDATION_ERROR"),
        (path(MARCH, MARCH, "&cursor=%%"), "INVALID_CURSOR"),
        (path(MARCH, MARCH, "&cursor=e30"), "INVALID_CURSOR"),
        (path(MARCH, MARCH, "&cursor="), "INVALID_CURSOR"),
    ] {
        let answer = Answer::of(ann.get(&question)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code), "{question}");
    }
    let widest = Answer::of(ann.get(&path(MARCH, MARCH + 366 * day, ""))).await;
    assert_eq!(widest.body["data"]["items"], json!([]));
    let ben = world.person("ben").await;
    ben.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    let foreign = Answer::of(ann.get(&path(MARCH, MARCH + day, ""))).await;
    assert_eq!(foreign.body["data"]["items"], json!([]));
}
