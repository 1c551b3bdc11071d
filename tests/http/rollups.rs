//! Daily statistics and their freshness over HTTP.

use aggregates::metric::{Metric, ValueKind};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::history::{batch, sample};
use crate::rest::{DAY, HOUR, MINUTE, call, get, iso, ok, post, refused, serving};
use crate::world::{Answer, Person, World};

/// 2026-03-01T00:00:00Z.
const MARCH: i64 = 1_772_323_200_000;
const ROLLUPS: &str = "/health/rollups?metricCode=heart_rate&startDate=2026-03-01";

/// Uploads readings of the heart rate; the watermark after them.
async fn upload(person: &Person<'_>, number: u128, readings: &[(i64, f64)]) -> String {
    let samples: Vec<Value> = readings
        .iter()
        .map(|(at, value)| {
            json!({
                "sourceId": "apple_healthkit", "sourceRecordId": format!("r-{at}"),
                "metricCode": "heart_rate", "valueKind": "SCALAR_NUM", "value": value,
                "unit": "bpm", "startAt": iso(*at), "endAt": iso(*at), "durationSeconds": 0,
                "timezoneOffsetMinutes": 60,
            })
        })
        .collect();
    let body = json!({ "requestId": Uuid::from_u128(number), "payloadHash": "0".repeat(64),
        "configVersion": 3, "samples": samples, "deleted": [] });
    let request = person.post("/api/v1/health/samples/batch-upsert").json(&body);
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.header("x-health-watermark").to_owned()
}

#[tokio::test]
async fn a_page_of_days_has_the_wire_s_shape() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let noon = MARCH + 12 * HOUR;
    let readings = [(noon, 60.0), (noon + MINUTE, 80.5), (noon + DAY, 70.0)];
    let watermark = upload(&ann, 1, &readings).await;
    assert_eq!(watermark, "1");
    let path = format!("{ROLLUPS}&endDate=2026-03-31&minWatermark={watermark}&waitMs=2000");
    let answer = get(&ann, &path).await;
    assert_eq!(answer.header("x-health-watermark"), "1");
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    let page = ok(answer.clone());
    let summary = json!({ "state": "READY", "totalItems": 2, "statusCounts":
        { "ready": 2, "computing": 0, "noData": 0, "failed": 0, "stale": 0 } });
    assert_eq!(page["summary"], summary);
    let pagination = json!({ "nextCursor": null, "hasMore": false, "returnedCount": 2 });
    assert_eq!(page["pagination"], pagination);
    let mut day = page["items"][0].clone();
    let made = day["freshness"]["computedAtIso"].take();
    assert!(made.as_str().unwrap().ends_with('Z'));
    assert!(Uuid::parse_str(day["id"].take().as_str().unwrap()).is_ok());
    let expected = json!({
        "id": null, "metricCode": "heart_rate", "dayUtc": "2026-03-01",
        "valueKind": "SCALAR_NUM", "sumVal": 140.5, "countVal": 2, "minVal": 60, "maxVal": 80.5,
        "avgVal": 70.25, "timezoneOffsetMin": 60, "dataQuality": "FULL",
        "freshness": { "status": "READY", "computedAtIso": null, "sourceWatermark": "1",
            "computeVersion": 1 },
    });
    assert_eq!(day, expected);

    let tag = answer.header("etag").to_owned();
    let again = ann.get(&format!("/api/v1{path}")).header("if-none-match", &tag);
    let again = Answer::of(again).await;
    assert_eq!((again.status, again.header("etag")), (StatusCode::NOT_MODIFIED, tag.as_str()));
    let next = upload(&ann, 2, &[(noon + 2 * MINUTE, 90.0)]).await;
    let path = format!("{ROLLUPS}&endDate=2026-03-31&minWatermark={next}&waitMs=2000");
    let changed = ann.get(&format!("/api/v1{path}")).header("if-none-match", &tag);
    assert_eq!(ok(Answer::of(changed).await)["items"][0]["countVal"], 3);
}

/// A metric is a row of the catalogue and nothing else: whatever is in it can be uploaded, is read
/// back, and makes a day.
#[tokio::test]
async fn every_metric_of_the_catalogue_goes_all_the_way() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let middle = |metric: Metric| {
        let (least, greatest) = metric.definition().range;
        (least.to_decimal() + greatest.to_decimal()) / rust_decimal::Decimal::TWO
    };
    let samples: Vec<Value> = Metric::all()
        .map(|metric| {
            let value = middle(metric).try_into().unwrap();
            sample(&format!("r-{metric}"), metric.code(), MARCH + 12 * HOUR, value)
        })
        .collect();
    let uploaded = post(&ann, "/health/samples/batch-upsert", batch(1, &samples, &[])).await;
    assert_eq!(uploaded.status, StatusCode::OK, "{}", uploaded.body);
    for metric in Metric::all() {
        let range = "startTime=2026-03-01T00:00:00Z&endTime=2026-03-02T00:00:00Z";
        let path = format!("/health/samples/cursor?metricCode={metric}&{range}");
        let items = ok(get(&ann, &path).await)["items"].take();
        assert_eq!(items.as_array().map(Vec::len), Some(1), "{metric}: {items}");
        assert_eq!(items[0]["unit"], json!(metric.definition().unit), "{metric}");
        let range = "startDate=2026-03-01&endDate=2026-03-01&minWatermark=1&waitMs=2000";
        let days = ok(get(&ann, &format!("/health/rollups?metricCode={metric}&{range}")).await);
        // Stages of sleep are no numbers: they make nights.
        let expected = usize::from(metric.kind() != ValueKind::Category);
        assert_eq!(days["items"].as_array().map(Vec::len), Some(expected), "{metric}: {days}");
    }
}

#[tokio::test]
async fn days_are_read_page_by_page() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let readings: Vec<(i64, f64)> = (0..5).map(|day| (MARCH + DAY * day + HOUR, 60.0)).collect();
    let watermark = upload(&ann, 1, &readings).await;
    let path = format!("{ROLLUPS}&endDate=2026-03-31&limit=2");
    let (mut days, mut cursor) = (Vec::new(), format!("&minWatermark={watermark}&waitMs=2000"));
    loop {
        let page = ok(get(&ann, &format!("{path}{cursor}")).await);
        assert_eq!(page["summary"]["totalItems"], 5, "of the whole range");
        let items = page["items"].as_array().unwrap();
        days.extend(items.iter().map(|item| item["dayUtc"].as_str().unwrap().to_owned()));
        let Some(next) = page["pagination"]["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let expected: Vec<String> = (1..=5).map(|day| format!("2026-03-0{day}")).collect();
    assert_eq!(days, expected);
}

#[tokio::test]
async fn wrong_parameters_are_refused() {
    let world = serving().await;
    let ann = world.person("ann").await;
    for query in [
        "startDate=2026-03-01&endDate=2026-03-02",
        "metricCode=nothing&startDate=2026-03-01&endDate=2026-03-02",
        "metricCode=heart_rate&startDate=2026-03-02&endDate=2026-03-01",
        "metricCode=heart_rate&startDate=2026-3-1&endDate=2026-03-02",
        "metricCode=heart_rate&startDate=2026-01-01&endDate=2027-01-02",
        "metricCode=heart_rate&startDate=2026-03-01&endDate=2026-03-02&limit=0",
        "metricCode=heart_rate&startDate=2026-03-01&endDate=2026-03-02&limit=1001",
        "metricCode=heart_rate&startDate=2026-03-01&endDate=2026-03-02&cursor=x",
        "metricCode=heart_rate&startDate=2026-03-01&endDate=2026-03-02&waitMs=2001",
        "metricCode=heart_rate&startDate=2026-03-01&endDate=2026-03-02&minWatermark=-1",
    ] {
        let refusal = get(&ann, &format!("/health/rollups?{query}")).await;
        refused(&refusal, 400, "QUERY_VALIDATION_ERROR");
        assert!(refusal.body["error"]["details"][0]["field"].is_string(), "{}", refusal.body);
    }
    let refusal = get(&ann, "/health/freshness?waitMs=soon").await;
    refused(&refusal, 400, "QUERY_VALIDATION_ERROR");
}

#[tokio::test]
async fn what_is_not_folded_yet_is_never_called_empty() {
    // Nobody runs the projectors here, but their tables are there.
    let world = World::new().await;
    let ann = world.person("ann").await;
    let first = get(&ann, &format!("{ROLLUPS}&endDate=2026-03-31")).await;
    refused(&first, 503, "SERVICE_UNAVAILABLE");
    drop(serving_on(&world));
    let empty = upload(&ann, 1, &[(MARCH + HOUR, 60.0)]).await;
    let freshness = format!("/health/freshness?minWatermark={empty}&waitMs=2000");
    let report = ok(get(&ann, &freshness).await);
    let model = json!({ "watermark": "1", "state": "READY", "lagMs": 0 });
    assert_eq!(report, json!({ "watermark": "1", "projections": { "health-rollup": model } }));

    let eve = world.person("eve").await;
    let path = format!("{ROLLUPS}&endDate=2026-03-31");
    // Her keys concern every read model, so nothing is said before the projector has met them.
    let page = loop {
        let page = ok(get(&eve, &path).await);
        if page["summary"]["state"] != "COMPUTING" {
            break page;
        }
    };
    assert_eq!((&page["summary"]["state"], &page["items"]), (&json!("EMPTY"), &json!([])));
}

#[tokio::test]
async fn who_does_not_allow_aggregation_sees_no_statistics() {
    let world = serving().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let path = format!("{ROLLUPS}&endDate=2026-03-31&minWatermark=1&waitMs=2000");
    for (number, person) in [(1, &ann), (2, &ben)] {
        upload(person, number, &[(MARCH + HOUR, 60.0)]).await;
        assert_eq!(ok(get(person, &path).await)["summary"]["totalItems"], 1);
    }
    let allow =
        |allowed: bool| json!({ "privacySettings": { "health": { "allowAggregation": allowed } } });
    let shown = get(&ann, &path).await.header("etag").to_owned();
    ok(call(&ann, Method::PUT, "/users/preferences", allow(false)).await);
    let hidden = Answer::of(ann.get(&format!("/api/v1{path}")).header("if-none-match", &shown));
    let page = ok(hidden.await);
    assert_eq!((&page["summary"]["state"], &page["items"]), (&json!("EMPTY"), &json!([])));
    assert_eq!(page["summary"]["totalItems"], 0);
    let report = ok(get(&ann, "/health/freshness").await);
    assert_eq!(report["projections"]["health-rollup"]["state"], "EMPTY");
    assert_eq!(ok(get(&ben, &path).await)["summary"]["totalItems"], 1, "others see theirs");
    ok(call(&ann, Method::PUT, "/users/preferences", allow(true)).await);
    assert_eq!(ok(get(&ann, &path).await)["summary"]["totalItems"], 1);
}

fn serving_on(world: &World) -> tidemark::projector::service::Projectors {
    let app = &world.app;
    tidemark::projector::service::Projectors::start(&app.read_pool, &app.source())
}
