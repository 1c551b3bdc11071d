use std::collections::BTreeMap;

use aggregates::entity::{Created, Deleted, Edit, EntityEvent, EntityFact, Fields, Updated};
use aggregates::session::{CONTRACT as SESSION, SessionEnded, SessionEvent, SessionStarted};
use aggregates::subject::KeyDestroyed;
use aggregates::{Content, Metadata};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const USER: UserId = UserId(Uuid::from_u128(7));

/// What happens to one of a few consumptions, or to the person.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create(u8),
    Annotate(u8, u8),
    Delete(u8),
    Erase(Purpose),
}

fn edit(at_ms: i64) -> Edit {
    Edit { at_ms, edited_at_ms: at_ms, origin: None }
}

fn recorded(position: i64, stream: StreamId, event: impl Into<AnyEvent>) -> Recorded {
    let event = event.into();
    Recorded {
        position,
        committed_ms: position,
        event_id: Uuid::from_u128(position.unsigned_abs().into()),
        stream,
        sequence: position,
        user: USER,
        event_type: event.descriptor().name.to_owned(),
        recorded_at_ms: position,
        content: Content::Open {
            event: Box::new(event),
            metadata: Metadata::system("test", Uuid::nil()),
        },
    }
}

/// The log of these acts, as far as they make sense one after the other.
fn log_of(acts: &[Act]) -> Vec<Recorded> {
    let contract = &aggregates::consumption::CONTRACT;
    // Whether each consumption that was created is still there.
    let mut there: BTreeMap<u8, bool> = BTreeMap::new();
    let mut log = Vec::new();
    for act in acts {
        let position = log.len() as i64 + 1;
        let (id, fact) = match *act {
            Act::Create(n) if !there.contains_key(&n) => {
                there.insert(n, true);
                let fields: Fields = [
                    ("clientConsumptionId", json!(n.to_string())),
                    ("timestamp", json!("2026-02-03T10:00:00.000Z")),
                ]
                .map(|(name, value)| (name.to_owned(), value))
                .into();
                (n, EntityFact::Created(Created { fields, edit: edit(position) }))
            }
            Act::Annotate(n, text) if there.get(&n) == Some(&true) => {
                let set: Fields = [("notes".to_owned(), json!(text.to_string()))].into();
                (n, EntityFact::Updated(Updated { set, resolution: None, edit: edit(position) }))
            }
            Act::Delete(n) if there.insert(n, false) == Some(true) => {
                (n, EntityFact::Deleted(Deleted { edit: edit(position) }))
            }
            Act::Erase(purpose) => {
                let destroyed =
                    KeyDestroyed { key_id: Uuid::nil(), purpose, reason: "drill".to_owned() };
                let stream = StreamId::new(aggregates::subject::TYPE, USER);
                log.push(recorded(position, stream, SubjectEvent::KeyDestroyed(destroyed)));
                // Nothing sealed under a dead key is ever edited.
                if purpose == Purpose::Activity {
                    there.values_mut().for_each(|there| *there = false);
                }
                continue;
            }
            _ => continue,
        };
        let stream = StreamId::new(contract.aggregate_type, Uuid::from_u128(id.into()));
        log.push(recorded(position, stream, EntityEvent { contract, fact }));
    }
    log
}

fn fold(log: &[Recorded]) -> Fold {
    let mut fold = Fold::default();
    log.iter().for_each(|event| fold.apply(event));
    fold
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let purpose = prop::sample::select(&Purpose::ALL[..]);
    let act = prop_oneof![
        6 => (0u8..6).prop_map(Act::Create),
        6 => (0u8..6, any::<u8>()).prop_map(|(n, text)| Act::Annotate(n, text)),
        2 => (0u8..6).prop_map(Act::Delete),
        1 => purpose.prop_map(Act::Erase),
    ];
    prop::collection::vec(act, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn projections_01_incremental_equals_rebuild(acts in acts(), page in 1usize..9) {
        let log = log_of(&acts);
        let mut rows: BTreeMap<(&str, Uuid), EntityRow> = BTreeMap::new();
        let mut done = 0;
        for events in log.chunks(page) {
            done += events.len();
            let scope = scope(events);
            rows.retain(|_, row| row.purpose.is_none_or(|purpose| !scope.wiped.contains(&purpose)));
            // Current state, after the page.
            let state = fold(&log[..done]);
            for stream in &scope.streams {
                let row = state.entity(stream).and_then(Entity::row).unwrap();
                rows.insert((row.entity_type, row.id), row);
            }
        }
        let mut shredded = log.clone();
        let erased = log.iter().rposition(|event| {
            matches!(event.event(), Some(AnyEvent::Subject(SubjectEvent::KeyDestroyed(key)))
                if key.purpose == Purpose::Activity)
        });
        for event in &mut shredded[..erased.unwrap_or(0)] {
            if event.stream.aggregate_type != aggregates::subject::TYPE {
                event.content = Content::Shredded;
            }
        }
        let rows: Vec<EntityRow> = rows.into_values().collect();
        prop_assert_eq!(&rows, &fold(&log).rows());
        prop_assert_eq!(&rows, &fold(&shredded).rows());
    }
}

#[test]
fn a_session_row_shows_what_lists_filter_by() {
    let id = Uuid::from_u128(1);
    let stream = StreamId::new(SESSION.aggregate_type, id);
    let product = Uuid::from_u128(2).to_string();
    let fields: Fields = [
        ("sessionStartTimestamp", json!("2026-02-03T10:00:00.000Z")),
        ("primaryProductId", json!(product)),
        ("status", json!("ACTIVE")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let started = SessionStarted { fields, ended_at_ms: None, edit: edit(1_770_112_800_000) };
    let ended = SessionEnded {
        ended_at_ms: 1_770_116_400_000,
        reason: aggregates::session::EndReason::Requested,
        set: Fields::new(),
        resolution: None,
        edit: edit(1_770_116_400_000),
    };
    let log = [
        recorded(4, stream.clone(), SessionEvent::Started(started)),
        recorded(9, stream, SessionEvent::Ended(ended)),
    ];
    let row = &fold(&log).rows()[0];
    assert_eq!((row.entity_type, row.id), ("sessions", id));
    assert_eq!((row.version, row.position, row.deleted), (2, 9, false));
    assert_eq!(row.status.as_deref(), Some("COMPLETED"));
    assert_eq!(row.product_id, Some(Uuid::from_u128(2)));
    assert_eq!(row.at_ms, 1_770_112_800_000);
    let data: serde_json::Value = serde_json::from_str(&row.data).unwrap();
    assert_eq!(data["sessionEndTimestamp"], "2026-02-03T11:00:00.000Z");
}
