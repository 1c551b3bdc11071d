//! Cursors, pages and items as the wire has them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::consumption::CONTRACT as CONSUMPTIONS;
use crate::entity::{ChangeKind, EntityContract};
use crate::session::CONTRACT as SESSIONS;
use crate::sync::base64;
use crate::sync::cursor::{Composite, CursorError, Paging, Pair, Place, Signer};
use crate::sync::desk::{Ack, AskError};
use crate::sync::pull::{FeedRow, Page, types};
use crate::sync::push::{ahead, order, parse, refused};

/// Signs by writing the position down.
struct Plain;

impl Signer for Plain {
    fn sign(&self, position: i64, _: u8) -> Option<Uuid> {
        Some(Uuid::from_u128(0xABC << 100 | u128::from(position.unsigned_abs())))
    }

    fn read(&self, id: Uuid) -> Option<i64> {
        let own = id.as_u128() >> 100 == 0xABC;
        own.then(|| i64::try_from(id.as_u128() & u128::from(u64::MAX)).ok()).flatten()
    }
}

fn pair(position: i64) -> Pair {
    Pair { at_ms: 1_767_000_000_000 + position, id: Plain.sign(position, 1).expect("an id") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn base64_comes_back_in_either_alphabet(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let text = base64::encode(&bytes);
        let url: String = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
        prop_assert_eq!(base64::decode(&text), Some(bytes.clone()));
        prop_assert_eq!(base64::decode(&url), Some(bytes));
    }

    #[test]
    fn sync_14_cursors_come_back_and_keep_their_order(a in 1..1_i64 << 40, b in 1..1_i64 << 40) {
        prop_assert_eq!(Pair::decode(&pair(a).encode()), Some(pair(a)));
        let text = |position| pair(position).id.to_string();
        prop_assert_eq!(a.cmp(&b), text(a).cmp(&text(b)));
        let composite = Composite {
            global: Some(pair(a)),
            entities: BTreeMap::from([("sessions", pair(b))]),
            has_entities: true,
            paging: Some(Paging { up_to: a, rank: 5 }),
        };
        prop_assert_eq!(Composite::decode(&composite.encode()), Ok(composite));
    }

    #[test]
    fn a_cursor_of_anything_is_refused_without_a_panic(text in ".{0,60}", bytes in any::<Vec<u8>>()) {
        let _ = Composite::decode(&text);
        let _ = Composite::decode(&base64::encode(&bytes));
    }
}

#[test]
fn a_type_starts_at_its_own_cursor_else_at_the_beginning_else_at_the_common_one() {
    let with = Composite {
        global: Some(pair(3)),
        entities: BTreeMap::from([("sessions", pair(9))]),
        has_entities: true,
        paging: None,
    };
    assert_eq!(with.start("sessions", &Plain), Place::Position(9));
    assert_eq!(with.start("consumptions", &Plain), Place::Position(0));
    let without = Composite { global: Some(pair(3)), ..Composite::default() };
    assert_eq!(without.start("consumptions", &Plain), Place::Position(3));
}

#[test]
fn an_id_of_another_making_means_its_time() {
    let foreign = Pair { at_ms: 77, id: Uuid::from_u128(5) };
    let cursor = Composite { global: Some(foreign), ..Composite::default() };
    assert_eq!(cursor.start("sessions", &Plain), Place::Time(77));
}

#[test]
fn what_cannot_be_read_in_a_cursor_means_the_beginning() {
    let damaged = json!({ "lastCreatedAt": "2026-01-02T10:00:00.000Z", "lastId": Uuid::nil(),
        "entityCursors": { "sessions": "%%%", "products": "e30=" }, "version": 1 });
    let cursor = Composite::decode(&base64::encode(damaged.to_string().as_bytes()));
    assert_eq!(cursor.expect("read").start("sessions", &Plain), Place::Position(0));
    let newer = base64::encode(br#"{"version":2,"lastCreatedAt":"x"}"#);
    assert_eq!(Composite::decode(&newer), Err(CursorError::Version));
    assert_eq!(Composite::decode("%"), Err(CursorError::Encoding));
    assert_eq!(Composite::decode("W10="), Err(CursorError::Shape));
    assert_eq!(Composite::decode("e30="), Err(CursorError::Empty));
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct At(i64);

impl FeedRow for At {
    fn position(&self) -> i64 {
        self.0
    }
}

type Feed = BTreeMap<&'static str, Vec<i64>>;

/// All pages of a run over a feed that stands still.
fn run(
    feed: &Feed,
    wanted: Option<&[&'static EntityContract]>,
    limit: usize,
) -> Vec<(&'static str, i64)> {
    let mut rows = Vec::new();
    let mut positions: BTreeMap<&'static str, i64> = BTreeMap::new();
    let mut paging = None;
    loop {
        let mut page: Page<At> = Page::new(types(wanted), positions.clone(), 1000, paging, limit);
        while let Some(fetch) = page.wants() {
            let all = feed.get(fetch.contract.entity_type).into_iter().flatten();
            let found = all.filter(|at| **at > fetch.after && **at <= fetch.upto);
            page = page.give(found.take(fetch.limit).map(|at| At(*at)).collect());
        }
        let end = page.finish();
        assert!(end.rows.len() <= limit);
        rows.extend(end.rows.iter().map(|(contract, row)| (contract.entity_type, row.0)));
        positions = end.positions;
        paging = end.paging;
        if paging.is_none() {
            return rows;
        }
        assert!(!end.rows.is_empty(), "a page that promises more holds something");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sync_15_every_page_size_delivers_the_same_rows(
        sessions in proptest::collection::btree_set(1..500_i64, 0..40),
        consumptions in proptest::collection::btree_set(500..1000_i64, 0..40),
        limit in 1..90_usize,
    ) {
        let feed = Feed::from([
            ("sessions", sessions.into_iter().collect()),
            ("consumptions", consumptions.into_iter().collect()),
        ]);
        let whole = run(&feed, None, 1000);
        prop_assert_eq!(&run(&feed, None, limit), &whole);
        // Sync invariant 16: separately or together.
        let mut apart = run(&feed, Some(&[&SESSIONS]), limit);
        apart.extend(run(&feed, Some(&[&CONSUMPTIONS]), limit));
        prop_assert_eq!(apart, whole);
    }
}

#[test]
fn a_first_page_acknowledges_everything_before_the_first_row_it_brings() {
    let ack =
        |sessions: Vec<i64>, consumptions: Vec<i64>, wanted: Option<&[&'static EntityContract]>| {
            let feed = Feed::from([("sessions", sessions), ("consumptions", consumptions)]);
            let positions = BTreeMap::from([("sessions", 10), ("consumptions", 20)]);
            let mut page: Page<At> = Page::new(types(wanted), positions, 100, None, 50);
            while let Some(fetch) = page.wants() {
                let all = feed.get(fetch.contract.entity_type).into_iter().flatten();
                page = page.give(all.filter(|at| **at > fetch.after).map(|at| At(*at)).collect());
            }
            page.acknowledges()
        };
    assert_eq!(ack(vec![], vec![], None), Some(Ack { position: 100, head: 100 }));
    assert_eq!(ack(vec![31], vec![70], None), Some(Ack { position: 30, head: 100 }));
    assert_eq!(ack(vec![], vec![70], None), Some(Ack { position: 69, head: 100 }));
    assert_eq!(ack(vec![], vec![], Some(&[&SESSIONS])), None, "the other types are not known");
}

#[test]
fn an_acknowledgement_proves_only_what_the_row_showed() {
    // Versions 1 to 3 at positions 5, 10 and 20.
    let changes = [5, 10, 20];
    let ack = |position, head| Ack { position, head };
    assert_eq!(Ack::proven(&[ack(12, 15)], &changes), 2);
    // The row had moved on to 20 when the cursor stood at 12: version 2 was never delivered.
    assert_eq!(Ack::proven(&[ack(12, 30)], &changes), 0);
    assert_eq!(Ack::proven(&[ack(12, 30), ack(7, 8)], &changes), 1);
    assert_eq!(Ack::proven(&[ack(30, 30)], &changes), 3);
    assert_eq!(Ack::proven(&[ack(3, 4), ack(3, 3)], &changes), 0);
    assert_eq!(Ack::proven(&[], &changes), 0);
}

fn item(kind: &str, entity_type: &str, data: &Value) -> Value {
    json!({ "entityType": entity_type, "entityId": "e-1", "changeType": kind, "requestId": 7,
        "data": data, "version": 3, "timestamp": "2026-01-02T10:00:00+02:00" })
}

#[test]
fn sync_22_every_item_fails_by_itself_and_names_its_request() {
    for (broken, code) in [
        (json!({ "requestId": "r" }), "VALIDATION_ERROR"),
        (json!("what"), "VALIDATION_ERROR"),
        (item("CREATE", "unicorns", &json!({})), "VALIDATION_ERROR"),
        (item("UPSERT", "sessions", &json!({})), "VALIDATION_ERROR"),
        (item("UPDATE", "sessions", &json!([])), "VALIDATION_ERROR"),
        (item("UPDATE", "sessions", &json!({ "notes": 5 })), "VALIDATION_ERROR"),
    ] {
        let failed = parse(&broken).expect_err("broken");
        assert_eq!(failed.error_code, code);
        assert!(!failed.retryable);
        assert_eq!(failed.request_id, broken.get("requestId").cloned().unwrap_or(Value::Null));
    }
}

#[test]
fn what_an_older_app_sends_is_understood() {
    let data = json!({ "_offline": true, "hitCount": 5, "id": "x", "userId": "y", "version": 3,
        "notes": "hello", "madeUp": 1 });
    let item = parse(&item("update", "Session", &data)).expect("lenient");
    assert_eq!(item.echo.entity_type, "sessions");
    assert_eq!(item.change.kind, ChangeKind::Update);
    assert_eq!(item.change.fields.keys().collect::<Vec<_>>(), ["notes"]);
    assert_eq!(item.unknown, 1);
    assert_eq!(item.echo.request_text(), "7");
    assert_eq!(item.edited_at(i64::MAX, 0), 1_767_340_800_000, "08:00 UTC");
    assert_eq!(item.edited_at(1000, 0), 1000, "nobody edits in the future");
}

#[test]
fn a_fast_clock_makes_no_edit_younger_than_an_acknowledgement() {
    let at = |time: &str| {
        let mut item = item("UPDATE", "sessions", &json!({ "notes": "a" }));
        item["timestamp"] = json!(time);
        parse(&item).expect("valid")
    };
    let now = 1_767_340_800_000; // 08:00 UTC
    let (first, last) = (at("2026-01-02T08:50:00Z"), at("2026-01-02T09:00:00Z"));
    let ahead_ms = ahead(&[&first, &last], now);
    assert_eq!(ahead_ms, 3_600_000);
    assert_eq!(first.edited_at(now, ahead_ms), now - 600_000);
    assert_eq!(last.edited_at(now, ahead_ms), now);
    let mut aged = at("2026-01-02T08:50:00Z");
    aged.age_ms = Some(5000);
    assert_eq!(aged.edited_at(now, ahead_ms), now - 5000, "an age needs no clock");
    assert_eq!(
        ahead(&[&first], now + 3_600_000),
        0,
        "a slow clock cannot be told from an old edit"
    );
}

#[test]
fn sync_29_content_decides_whether_an_item_is_the_same() {
    let content = |item: &Value| parse(item).expect("valid").content();
    let first = item("UPDATE", "sessions", &json!({ "notes": "a", "version": 1 }));
    let mut again = item("UPDATE", "sessions", &json!({ "version": 9, "notes": "a" }));
    again["timestamp"] = json!("2026-01-03T10:00:00Z");
    again["version"] = json!(4);
    assert_eq!(content(&first), content(&again));
    let rebased = item("UPDATE", "sessions", &json!({ "notes": "b" }));
    assert_ne!(content(&first), content(&rebased));
}

#[test]
fn parents_are_created_first_and_deleted_last() {
    let items: Vec<_> = [
        item("DELETE", "sessions", &Value::Null),
        item("UPDATE", "consumptions", &json!({})),
        item("CREATE", "consumptions", &json!({})),
        item("DELETE", "consumptions", &Value::Null),
        item("CREATE", "sessions", &json!({})),
        item("UPDATE", "sessions", &json!({})),
    ]
    .iter()
    .map(|item| parse(item).expect("valid"))
    .collect();
    assert_eq!(order(&items.iter().collect::<Vec<_>>()), [4, 2, 1, 5, 3, 0]);
}

#[test]
fn an_update_of_nothing_asks_for_a_creation() {
    let update = parse(&item("UPDATE", "sessions", &json!({ "notes": "a" }))).expect("valid");
    let failed = refused(update, &AskError::Unknown);
    assert!(failed.retryable);
    assert_eq!(failed.error_code, "NOT_FOUND");
    assert_eq!(failed.details.expect("details")["orphanUpdate"]["entityId"], "e-1");
}

#[test]
fn what_is_not_kept_yet_may_come_again() {
    for entity_type in ["products", "Purchase", "journals", "InventoryItem", "ai_usage_record"] {
        let failed = parse(&item("CREATE", entity_type, &json!({}))).expect_err("not kept");
        assert_eq!((failed.error_code, failed.retryable), ("SERVICE_UNAVAILABLE", true));
        // Even where something else is wrong: a phone gives up what it must not send again.
        let failed = parse(&json!({ "entityType": entity_type })).expect_err("not kept");
        assert!(failed.retryable);
    }
}
