//! Sessions over REST. Numbers of invariants are those of sync.

use aggregates::{AnyEvent, Content};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidemark::store::Filter;
use uuid::Uuid;

use crate::rest::{
    DAY, HOUR, MINUTE, call, consumption, data, delete, get, id, ids, iso, logged, now, ok, patch,
    post, refused, serving, session, started,
};
use crate::world::{Answer, Person, World};

async fn status_of(person: &Person<'_>, session: &Value) -> Value {
    ok(get(person, &format!("/sessions/{}", id(session))).await)["status"].clone()
}

/// The types of a person's session and consumption events, in order.
async fn events(world: &World, person: &Person<'_>) -> Vec<String> {
    let filter = Filter { user: Some(person.user), ..Filter::default() };
    let events = world.app.store.page(0, i64::MAX, 500, &filter).await.unwrap();
    let about_entities = |event: &aggregates::Recorded| {
        matches!(&event.content, Content::Open { event, .. }
            if matches!(**event, AnyEvent::Session(_) | AnyEvent::Entity(_)))
    };
    events.into_iter().filter(about_entities).map(|event| event.event_type).collect()
}

#[tokio::test]
async fn a_session_has_both_spellings_and_its_idle_deadline_as_end() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let start = now() - MINUTE;
    let mut body = session("s-1", start);
    body["notes"] = "after work".into();
    body["plannedDuration"] = 30.into();
    body["unknown"] = true.into();
    let made = data(post(&ann, "/sessions", body).await, StatusCode::CREATED);
    assert_eq!(made["userId"], ann.user.to_string());
    assert_eq!(made["clientSessionId"], "s-1");
    assert_eq!(made["status"], "ACTIVE");
    assert_eq!(made["version"], 1);
    assert_eq!(made["notes"], "after work");
    assert_eq!(made["sessionStartTimestamp"], iso(start));
    assert_eq!(made["sessionEndTimestamp"], iso(start + HOUR));
    for (name, alias) in [("eventCount", "hitCount"), ("avgEventDurationMs", "avgHitDurationMs")] {
        assert_eq!(made[name], 0);
        assert_eq!(made[alias], 0);
    }
    assert_eq!(made["purchaseId"], Value::Null);
    assert!(made.get("unknown").is_none());
    assert_eq!(ok(get(&ann, &format!("/sessions/{}", id(&made))).await), made);

    let at = now() - 30_000;
    let dose = logged(&ann, consumption("c-1", at)).await;
    assert_eq!(dose["sessionId"], made["id"], "it fell into the session");
    let seen = ok(get(&ann, &format!("/sessions/{}", id(&made))).await);
    assert_eq!((&seen["eventCount"], &seen["hitCount"]), (&json!(1), &json!(1)));
    assert_eq!(seen["totalDurationMs"], 5000);
    assert_eq!(seen["sessionStartTimestamp"], iso(at));
    assert_eq!(seen["sessionEndTimestamp"], iso(at + HOUR));

    let before = now();
    let ended = ok(post(&ann, &format!("/sessions/{}/end", id(&made)), json!({})).await);
    let end = ended["sessionEndTimestamp"].as_str().unwrap();
    assert!(*end >= *iso(before) && *end <= *iso(now()), "it ended when it was ended");
    assert_eq!(ended["status"], "COMPLETED");
}

#[tokio::test]
async fn starting_is_refused_with_every_field_that_is_wrong() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let refusal = post(&ann, "/sessions", json!({ "clientSessionId": "s" })).await;
    refused(&refusal, 400, "VALIDATION_ERROR");
    assert_eq!(refusal.body["error"]["details"][0]["field"], "/sessionStartTimestamp");
    let mut body = session("s", now());
    body["notes"] = "n".repeat(2001).into();
    body["purchaseId"] = "no uuid".into();
    let refusal = post(&ann, "/sessions", body).await;
    refused(&refusal, 400, "VALIDATION_ERROR");
    let fields = refusal.body["error"]["details"].as_array().unwrap().len();
    assert_eq!(fields, 2, "{}", refusal.body);
    refused(&post(&ann, "/sessions", json!([])).await, 400, "VALIDATION_ERROR");
    let text = ann.post("/api/v1/sessions").body("text").send().await.unwrap();
    assert_eq!(text.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(events(&world, &ann).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_session_without_a_client_id_gets_one() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let body = json!({ "sessionStartTimestamp": iso(now()) });
    let made = data(post(&ann, "/sessions", body).await, StatusCode::CREATED);
    assert!(Uuid::parse_str(made["clientSessionId"].as_str().unwrap()).is_ok());
}

#[tokio::test]
async fn sync_11_starting_again_under_the_same_id_finds_the_session() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let client_id = Uuid::from_u128(0xa11ce).to_string();
    let first = started(&ann, &client_id).await;
    assert_eq!(id(&first), client_id, "the client's UUID is the server's");
    let mut other = session(&client_id, now() - 9 * MINUTE);
    other["notes"] = "another body".into();
    let again = data(post(&ann, "/sessions", other).await, StatusCode::CREATED);
    assert_eq!(again, first);

    let phones = join_all((0..6).map(|_| world.person("ann"))).await;
    let body = session("at once", now());
    let starts = join_all(phones.iter().map(|phone| post(phone, "/sessions", body.clone()))).await;
    let made: Vec<Value> = starts.into_iter().map(|one| data(one, StatusCode::CREATED)).collect();
    assert!(made.iter().all(|one| id(one) == id(&made[0])), "{made:?}");
    let started = events(&world, &ann).await;
    assert_eq!(started.iter().filter(|event| *event == "session.started").count(), 2);
}

/// What each command does in each state: the status after it, or a conflict.
const STEPS: [(&str, [Option<&str>; 4]); 5] = [
    ("pause", [Some("PAUSED"), Some("PAUSED"), None, None]),
    ("resume", [Some("ACTIVE"), Some("ACTIVE"), None, None]),
    ("end", [Some("COMPLETED"), Some("COMPLETED"), Some("COMPLETED"), None]),
    ("complete", [Some("COMPLETED"), Some("COMPLETED"), Some("COMPLETED"), None]),
    ("cancel", [Some("CANCELLED"), Some("CANCELLED"), None, Some("CANCELLED")]),
];
const STATES: [(&str, Option<&str>); 4] = [
    ("ACTIVE", None),
    ("PAUSED", Some("pause")),
    ("COMPLETED", Some("end")),
    ("CANCELLED", Some("cancel")),
];

#[tokio::test]
async fn the_state_table_holds() {
    let world = serving().await;
    let ann = world.person("ann").await;
    for (command, after) in STEPS {
        for ((from, way), after) in STATES.into_iter().zip(after) {
            let made = started(&ann, &format!("{command} {from}")).await;
            let path = |step: &str| format!("/sessions/{}/{step}", id(&made));
            if let Some(way) = way {
                ok(post(&ann, &path(way), json!({})).await);
            }
            let before = ok(get(&ann, &format!("/sessions/{}", id(&made))).await);
            assert_eq!(before["status"], from);
            let answer = post(&ann, &path(command), json!({})).await;
            match after {
                Some(after) => assert_eq!(ok(answer)["status"], after, "{command} when {from}"),
                None => refused(&answer, 409, "CONFLICT"),
            }
            let seen = ok(get(&ann, &format!("/sessions/{}", id(&made))).await);
            assert_eq!(seen["status"], after.unwrap_or(from));
            if after.is_none_or(|after| after == from) {
                assert_eq!(seen, before, "{command} when {from} changes nothing");
            }
        }
    }
}

#[tokio::test]
async fn what_is_said_at_the_end_is_kept() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let made = started(&ann, "s").await;
    let path = format!("/sessions/{}/end", id(&made));
    let said = json!({ "summary": { "highlights": ["calm"] }, "rating": 4, "wouldRepeat": true });
    let ended = ok(post(&ann, &path, said).await);
    assert_eq!(ended["rating"], 4);
    assert_eq!(ended["summary"]["highlights"][0], "calm");
    refused(&post(&ann, &path, json!({ "rating": 9 })).await, 400, "VALIDATION_ERROR");
    let bare = started(&ann, "bare").await;
    let bare = post(&ann, &format!("/sessions/{}/end", id(&bare)), Value::Null).await;
    assert_eq!(ok(bare)["status"], "COMPLETED", "no body is needed");
}

#[tokio::test]
async fn one_session_is_open_and_a_finished_one_ends_no_other() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let first = started(&ann, "first").await;
    let mut past = session("past", now() - 5 * HOUR);
    past["sessionEndTimestamp"] = iso(now() - 4 * HOUR).into();
    let past = data(post(&ann, "/sessions", past).await, StatusCode::CREATED);
    assert_eq!(past["status"], "COMPLETED");
    assert_eq!(past["sessionEndTimestamp"], iso_field(&past, "sessionStartTimestamp", HOUR));
    assert_eq!(status_of(&ann, &first).await, "ACTIVE");
    ok(post(&ann, &format!("/sessions/{}/pause", id(&first)), json!({})).await);
    let second = started(&ann, "second").await;
    assert_eq!(status_of(&ann, &first).await, "COMPLETED", "a paused one is closed too");
    assert_eq!(id(&ok(get(&ann, "/sessions/active").await)), id(&second));

    let phones = join_all((0..5).map(|_| world.person("ann"))).await;
    join_all(
        phones
            .iter()
            .enumerate()
            .map(|(number, phone)| async move { started(phone, &format!("phone {number}")).await }),
    )
    .await;
    let open = get(&ann, "/sessions?status=active").await;
    assert_eq!(open.body["pagination"]["total"], 1, "{}", open.body);
}

fn iso_field(session: &Value, field: &str, later: i64) -> String {
    let at = chrono::DateTime::parse_from_rfc3339(session[field].as_str().unwrap()).unwrap();
    iso(at.timestamp_millis() + later)
}

#[tokio::test]
async fn an_idle_session_is_hidden_at_once_and_ended_by_the_next_command() {
    let world = serving().await;
    let ann = world.person("ann").await;
    refused(&get(&ann, "/sessions/active").await, 404, "NOT_FOUND");
    let idle =
        data(post(&ann, "/sessions", session("idle", now() - 2 * HOUR)).await, StatusCode::CREATED);
    let position = world.position().await;
    refused(&get(&ann, "/sessions/active").await, 404, "NOT_FOUND");
    assert_eq!(world.position().await, position, "reading writes nothing");
    let path = format!("/sessions/{}/pause", id(&idle));
    refused(&post(&ann, &path, json!({})).await, 409, "CONFLICT");
    let ended = ok(get(&ann, &format!("/sessions/{}", id(&idle))).await);
    assert_eq!(ended["status"], "COMPLETED");
    assert_eq!(ended["sessionEndTimestamp"], iso_field(&idle, "sessionStartTimestamp", HOUR));
}

#[tokio::test]
async fn fields_are_changed_but_never_the_status() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let made = started(&ann, "s").await;
    let path = format!("/sessions/{}", id(&made));
    let status = json!({ "status": "COMPLETED", "notes": "x" });
    refused(&patch(&ann, &path, status).await, 400, "VALIDATION_ERROR");
    let ignored = json!({ "eventCount": 9, "hitCount": 9, "sessionEndTimestamp": iso(now()) });
    assert_eq!(ok(patch(&ann, &path, ignored).await), made);
    let changed = ok(patch(&ann, &path, json!({ "notes": "n", "observationFeature": 0.5 })).await);
    assert_eq!((&changed["notes"], &changed["version"]), (&json!("n"), &json!(2)));
    let put = call(&ann, Method::PUT, &path, json!({ "sessionTypeHeuristic": "evening" })).await;
    let put = ok(put);
    assert_eq!((&put["notes"], &put["observationFeature"]), (&json!("n"), &json!(0.5)));
    assert_eq!(ok(patch(&ann, &path, json!({ "notes": null })).await)["notes"], Value::Null);
}

/// Lets the time between two versions be longer than what counts as the same.
async fn a_moment(person: &Person<'_>) {
    let until = now() + 2;
    while now() < until {
        get(person, "/sessions/active").await;
    }
}

#[tokio::test]
async fn two_phones_do_not_write_over_each_other() {
    let world = serving().await;
    let phone = world.person("ann").await;
    let tablet = world.person("ann").await;
    let made = started(&phone, "s").await;
    let path = format!("/sessions/{}", id(&made));
    let read = made["updatedAt"].clone();
    let known = json!({ "notes": "by phone", "lastKnownUpdatedAt": read });
    a_moment(&phone).await;
    let first = ok(patch(&phone, &path, known).await);
    let stale = json!({ "notes": "by tablet", "lastKnownUpdatedAt": read });
    refused(&patch(&tablet, &path, stale.clone()).await, 409, "CONFLICT");
    assert_eq!(ok(get(&tablet, &path).await)["notes"], "by phone");
    let fresh = json!({ "notes": "by tablet", "lastKnownUpdatedAt": first["updatedAt"] });
    assert_eq!(ok(patch(&tablet, &path, fresh).await)["notes"], "by tablet");
    let wrong = json!({ "notes": "x", "lastKnownUpdatedAt": "yesterday" });
    refused(&patch(&tablet, &path, wrong).await, 400, "VALIDATION_ERROR");
}

#[tokio::test]
async fn a_deleted_session_is_gone_for_good_and_its_consumptions_stay() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let made = started(&ann, "s").await;
    let dose = logged(&ann, consumption("c", now())).await;
    assert_eq!(dose["sessionId"], made["id"]);
    let path = format!("/sessions/{}", id(&made));
    let gone = delete(&ann, &path).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(gone.body, Value::Null);
    refused(&get(&ann, &path).await, 404, "NOT_FOUND");
    refused(&delete(&ann, &path).await, 404, "NOT_FOUND");
    refused(&patch(&ann, &path, json!({ "notes": "x" })).await, 404, "NOT_FOUND");
    refused(&post(&ann, &format!("{path}/end"), json!({})).await, 404, "NOT_FOUND");
    refused(&post(&ann, "/sessions", session("s", now())).await, 409, "DUPLICATE_ENTRY");
    refused(&get(&ann, "/sessions/active").await, 404, "NOT_FOUND");
    let left = ok(get(&ann, &format!("/consumptions/{}", id(&dose))).await);
    assert_eq!((&left["sessionId"], &left["version"]), (&Value::Null, &json!(2)));
    assert_eq!(ids(&get(&ann, "/sessions").await), Vec::<String>::new());
    assert_eq!(ids(&get(&ann, "/consumptions").await), [id(&dose)]);
    assert!(events(&world, &ann).await.contains(&"session.deleted".to_owned()));
}

#[tokio::test]
async fn people_read_their_own_writes_in_lists() {
    let world = serving().await;
    let ann = world.person("ann").await;
    for number in 0..8 {
        let made = started(&ann, &number.to_string()).await;
        let page = get(&ann, "/sessions?limit=1").await;
        assert_eq!(page.body["data"][0], made, "the session that was just started comes first");
        let path = format!("/sessions/{}", id(&made));
        let changed = ok(patch(&ann, &path, json!({ "notes": number.to_string() })).await);
        assert_eq!(get(&ann, "/sessions?limit=1").await.body["data"][0], changed);
    }
}

/// Five finished sessions, a day apart, each with so many consumptions.
async fn week(ann: &Person<'_>) -> (i64, Vec<String>) {
    let start = now() - 30 * DAY;
    let mut made = Vec::new();
    for (day, doses) in [3, 1, 0, 4, 2].into_iter().enumerate() {
        let at = start + DAY * day as i64;
        let mut body = session(&format!("day {day}"), at);
        body["sessionEndTimestamp"] = iso(at + HOUR).into();
        let one = data(post(ann, "/sessions", body).await, StatusCode::CREATED);
        for dose in 0..doses {
            let client_id = format!("day {day} dose {dose}");
            let mut body = consumption(&client_id, at + MINUTE * dose);
            body["sessionId"] = one["id"].clone();
            logged(ann, body).await;
        }
        made.push(id(&one).to_owned());
    }
    (start, made)
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let (start, made) = week(&ann).await;
    let days: Vec<&str> = made.iter().map(String::as_str).collect();
    let [d0, d1, d2, d3, d4] = days[..] else { unreachable!() };
    let list = async |query: &str| ids(&get(&ann, &format!("/sessions?{query}")).await);
    assert_eq!(list("").await, [d4, d3, d2, d1, d0]);
    assert_eq!(list("sortOrder=asc").await, [d0, d1, d2, d3, d4]);
    assert_eq!(list("sortBy=duration").await, [d3, d0, d4, d1, d2]);
    assert_eq!(list("sortBy=duration&sortOrder=asc").await, [d2, d1, d4, d0, d3]);
    assert_eq!(list("sortBy=startTime&limit=2").await, [d4, d3]);
    assert_eq!(list("page=2&pageSize=2").await, [d2, d1]);
    assert_eq!(list("offset=4&limit=2").await, [d0]);
    assert_eq!(list("status=completed").await.len(), 5);
    assert_eq!(list("status=ACTIVE").await, Vec::<String>::new());
    let (from, to) = (iso(start + DAY), iso(start + 3 * DAY));
    assert_eq!(list(&format!("startDate={from}&endDate={to}")).await, [d3, d2, d1]);
    let day = &from[..10];
    assert_eq!(list(&format!("startDate={day}&endDate={day}")).await, [d1]);

    let page = get(&ann, "/sessions?limit=2&page=3").await;
    let expected = json!({ "total": 5, "page": 3, "pageSize": 2, "hasMore": false,
        "totalPages": 3 });
    assert_eq!(page.body["pagination"], expected);

    let purchase = Uuid::from_u128(77);
    let path = format!("/sessions/{d2}");
    ok(patch(&ann, &path, json!({ "purchaseId": purchase })).await);
    assert_eq!(list(&format!("purchaseId={purchase}")).await, [d2]);

    for sort in ["", "&sortOrder=asc", "&sortBy=duration", "&sortBy=duration&sortOrder=asc"] {
        let whole = list(sort).await;
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = get(&ann, &format!("/sessions?limit=2{sort}{cursor}")).await;
            seen.extend(ids(&page));
            let Some(next) = page.body["pagination"]["nextCursor"].as_str() else { break };
            assert_eq!(page.body["pagination"]["hasMore"], true);
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, whole, "{sort}");
        assert_eq!(seen.len(), 5);
    }
}

#[tokio::test]
async fn wrong_parameters_of_lists_are_refused() {
    let world = serving().await;
    let ann = world.person("ann").await;
    week(&ann).await;
    for query in [
        "limit=0",
        "limit=101",
        "limit=many",
        "page=0",
        "status=DONE",
        "startDate=soon",
        "endDate=2026-13-01",
        "startDate=2026-02-02&endDate=2026-02-01",
        "purchaseId=7",
        "sortBy=rating",
        "sortOrder=up",
    ] {
        refused(&get(&ann, &format!("/sessions?{query}")).await, 400, "VALIDATION_ERROR");
    }
    let page = get(&ann, "/sessions?limit=2").await;
    let cursor = page.body["pagination"]["nextCursor"].as_str().unwrap().to_owned();
    refused(&get(&ann, "/sessions?cursor=x").await, 400, "INVALID_CURSOR");
    let other = format!("/sessions?sortBy=duration&cursor={cursor}");
    refused(&get(&ann, &other).await, 400, "INVALID_CURSOR");
    let both = format!("/sessions?page=2&cursor={cursor}");
    refused(&get(&ann, &both).await, 400, "VALIDATION_ERROR");
    refused(&get(&ann, "/sessions/no-uuid").await, 400, "VALIDATION_ERROR");
}

async fn keyed(person: &Person<'_>, path: &str, key: &str, body: &Value) -> Answer {
    let request = person.post(&format!("/api/v1{path}")).header("idempotency-key", key);
    Answer::of(request.json(body)).await
}

#[tokio::test]
async fn sync_10_a_key_stands_for_one_request() {
    let world = serving().await;
    let ann = world.person("ann").await;
    let body = json!({ "sessionStartTimestamp": iso(now()) });
    let first = data(keyed(&ann, "/sessions", "k-1", &body).await, StatusCode::CREATED);
    let again = data(keyed(&ann, "/sessions", "k-1", &body).await, StatusCode::CREATED);
    assert_eq!(again, first, "no second session, although the client gave it no id");
    let other = json!({ "sessionStartTimestamp": iso(now() - MINUTE) });
    refused(&keyed(&ann, "/sessions", "k-1", &other).await, 409, "DUPLICATE_REQUEST");
    let end = format!("/sessions/{}/end", id(&first));
    refused(&keyed(&ann, &end, "k-1", &body).await, 409, "DUPLICATE_REQUEST");
    ok(keyed(&ann, &end, "k-2", &json!({})).await);
    let version = ok(keyed(&ann, &end, "k-2", &json!({})).await)["version"].clone();
    assert_eq!(version, 2);
    let long = "k".repeat(201);
    refused(&keyed(&ann, "/sessions", &long, &body).await, 400, "VALIDATION_ERROR");

    let phones = join_all((0..5).map(|_| world.person("ann"))).await;
    let body = json!({ "sessionStartTimestamp": iso(now()), "notes": "once" });
    let starts = phones.iter().map(|phone| keyed(phone, "/sessions", "k-3", &body));
    let made: Vec<Value> =
        join_all(starts).await.into_iter().map(|one| data(one, StatusCode::CREATED)).collect();
    assert!(made.iter().all(|one| id(one) == id(&made[0])));

    let ben = world.person("ben").await;
    let bens = data(keyed(&ben, "/sessions", "k-1", &body).await, StatusCode::CREATED);
    assert_ne!(id(&bens), id(&first), "keys are each person's own");
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_key() {
    let world = serving().await;
    let ann = world.person("ann").await;
    refused(&keyed(&ann, "/sessions", "k", &json!({})).await, 400, "VALIDATION_ERROR");
    let body = json!({ "sessionStartTimestamp": iso(now()) });
    data(keyed(&ann, "/sessions", "k", &body).await, StatusCode::CREATED);
}
