use cqrs_es::test::TestFramework;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::conflict::{Base, Basis, Winner};
use crate::entity::time::{format_instant, parse_instant};
use crate::entity::{
    ChangeKind, ChangeOutcome, Context, EntityChange, Fields, Refusal, SupersededReason, normalise,
};

const MINUTE: i64 = 60_000;
/// 2026-03-01T20:00:00Z.
const START: i64 = 1_772_395_200_000;

fn at(minutes: i64) -> Context {
    Context::now(START + minutes * MINUTE)
}

fn phone(n: u128, minutes: i64) -> Context {
    Context { origin: Some(Uuid::from_u128(n)), ..at(minutes) }
}

fn fields(value: Value) -> Fields {
    let Value::Object(map) = value else { panic!("an object") };
    normalise(&CONTRACT, &map).unwrap().fields
}

fn start_fields() -> Fields {
    fields(json!({"clientSessionId": "c-1", "sessionStartTimestamp": format_instant(START)}))
}

fn dose(minutes: i64, product: Option<&str>) -> Dose {
    Dose {
        at_ms: START + minutes * MINUTE,
        duration_ms: 4_000,
        product_id: product.map(str::to_owned),
    }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// A session after these commands, each at its minute.
fn after(commands: Vec<(i64, SessionCommand)>) -> Session {
    let mut session = Session::default();
    for event in session.decide(SessionCommand::Start { fields: start_fields() }, &at(0)).unwrap() {
        session.fold(&event);
    }
    for (minute, command) in commands {
        for event in session.decide(command, &at(minute)).unwrap() {
            session.fold(&event);
        }
    }
    session
}

fn started() -> SessionEvent {
    Session::default()
        .decide(SessionCommand::Start { fields: start_fields() }, &at(0))
        .unwrap()
        .remove(0)
}

fn end() -> SessionCommand {
    SessionCommand::End { fields: Fields::new() }
}

fn attach(n: u128, dose: Dose) -> SessionCommand {
    SessionCommand::AttachConsumption { consumption_id: id(n), dose }
}

#[test]
fn a_start_is_one_event_and_its_repetition_none() {
    let session = after(vec![]);
    assert_eq!(session.status(), Status::Active);
    assert_eq!(session.entity.version, 1);
    assert_eq!(session.end_ms(), START + IDLE_TIMEOUT_MS);
    TestFramework::<Session>::with(at(5))
        .given(vec![started()])
        .when(SessionCommand::Start { fields: start_fields() })
        .then_expect_events(vec![]);
}

#[test]
fn a_start_without_its_time_is_refused_with_the_field() {
    let refused =
        Session::default().decide(SessionCommand::Start { fields: Fields::new() }, &at(0));
    let Err(SessionError::Invalid(errors)) = refused else { panic!("refused") };
    assert_eq!(errors[0].pointer, "/sessionStartTimestamp");
    assert_eq!(errors[0].code, "required");
}

#[test]
fn a_session_that_arrives_with_a_past_end_is_complete() {
    let mut given = start_fields();
    given.insert("sessionEndTimestamp".into(), format_instant(START + 20 * MINUTE).into());
    let start = SessionCommand::Start { fields: given };
    let past = Session::default().decide(start.clone(), &at(30)).unwrap().remove(0);
    let mut session = Session::default();
    session.fold(&past);
    assert_eq!(session.status(), Status::Completed);
    assert_eq!(session.ended_at_ms, Some(START + 20 * MINUTE));
    // An end that is still to come is the phone's idle deadline.
    let mut open = Session::default();
    open.fold(&Session::default().decide(start, &at(10)).unwrap()[0]);
    assert_eq!((open.status(), open.ended_at_ms), (Status::Active, None));
}

#[test]
fn the_state_machine_is_the_declared_table() {
    use Status::{Active, Cancelled, Completed, Paused};
    let reach = |status| match status {
        Active => vec![],
        Paused => vec![(1, SessionCommand::Pause)],
        Completed => vec![(1, end())],
        Cancelled => vec![(1, SessionCommand::Cancel)],
    };
    // For each status: pause, resume, end, cancel. None = refused, Some(same) = no event.
    let table = [
        (Active, [Some(Paused), Some(Active), Some(Completed), Some(Cancelled)]),
        (Paused, [Some(Paused), Some(Active), Some(Completed), Some(Cancelled)]),
        (Completed, [None, None, Some(Completed), None]),
        (Cancelled, [None, None, None, Some(Cancelled)]),
    ];
    for (from, results) in table {
        let session = after(reach(from));
        let commands =
            [SessionCommand::Pause, SessionCommand::Resume, end(), SessionCommand::Cancel];
        for (command, expected) in commands.into_iter().zip(results) {
            let label = format!("{from:?} {command:?}");
            match (session.decide(command, &at(2)), expected) {
                (Err(SessionError::IllegalTransition { from: said, .. }), None) => {
                    assert_eq!(said, from);
                }
                (Ok(events), Some(to)) => {
                    assert_eq!(events.len(), usize::from(to != from), "{label}");
                    let mut next = session.clone();
                    events.iter().for_each(|event| next.fold(event));
                    assert_eq!(next.status(), to, "{label}");
                }
                (result, _) => panic!("{label}: {result:?}"),
            }
        }
    }
}

#[test]
fn the_end_stores_what_the_person_says_in_the_one_event() {
    let said = fields(json!({
        "rating": 4, "wouldRepeat": true, "notes": "calm", "summary": {"highlights": ["quiet"]},
    }));
    let session = after(vec![(10, SessionCommand::End { fields: said })]);
    assert_eq!(session.entity.version, 2);
    assert_eq!(session.ended_at_ms, Some(START + 10 * MINUTE));
    assert_eq!(session.entity.fields["rating"], json!(4));
    assert_eq!(session.entity.fields["summary"]["highlights"][0], "quiet");
    assert_eq!(session.decide(end(), &at(11)), Ok(vec![]));
    let more = SessionCommand::End { fields: fields(json!({"rating": 5})) };
    let events = session.decide(more, &at(12)).unwrap();
    assert!(matches!(events[..], [SessionEvent::Updated(_)]));
}

#[test]
fn an_end_lies_neither_in_the_future_nor_beyond_the_idle_deadline() {
    let with_dose = after(vec![(5, attach(1, dose(5, None))), (10, end())]);
    assert_eq!(with_dose.ended_at_ms, Some(START + 10 * MINUTE));
    let forgotten = after(vec![(5, attach(1, dose(5, None))), (600, end())]);
    assert_eq!(forgotten.ended_at_ms, Some(START + 65 * MINUTE));
}

#[test]
fn activity_deadline_and_end_are_three_things() {
    let open = after(vec![(5, attach(1, dose(5, None)))]);
    let derived = open.derived();
    assert_eq!(derived.last_activity_ms, START + 5 * MINUTE);
    assert_eq!(derived.idle_deadline_ms, START + 65 * MINUTE);
    assert_eq!(open.visible_fields()["sessionEndTimestamp"], format_instant(START + 65 * MINUTE));
    let ended = after(vec![(5, attach(1, dose(5, None))), (20, end())]);
    assert_eq!(ended.visible_fields()["sessionEndTimestamp"], format_instant(START + 20 * MINUTE));
}

#[test]
fn an_idle_end_carries_the_deadline_and_comes_no_earlier() {
    let session = after(vec![]);
    assert_eq!(session.idle_end(START + 59 * MINUTE), None);
    let deadline = session.idle_end(START + 90 * MINUTE).unwrap();
    let command = SessionCommand::EndIdle { ended_at_ms: deadline };
    assert_eq!(session.decide(command.clone(), &at(59)), Err(SessionError::NotIdle));
    let ended = after(vec![(90, command.clone())]);
    assert_eq!(ended.ended_at_ms, Some(START + 60 * MINUTE));
    assert_eq!(ended.end_reason, Some(EndReason::Idle));
    assert_eq!(ended.decide(command, &at(91)), Ok(vec![]));
    // Pausing does not stop the idle clock.
    let paused = after(vec![(1, SessionCommand::Pause)]);
    assert_eq!(paused.idle_end(START + 61 * MINUTE), Some(START + 60 * MINUTE));
}

#[test]
fn late_consumptions_recompute_a_completed_session_without_reopening_it() {
    let deadline = START + 60 * MINUTE;
    let idle = after(vec![
        (90, SessionCommand::EndIdle { ended_at_ms: deadline }),
        (300, attach(1, dose(30, None))),
    ]);
    assert_eq!(idle.status(), Status::Completed);
    assert_eq!(idle.ended_at_ms, Some(START + 90 * MINUTE));
    assert_eq!(idle.derived().event_count, 1);
    let back = after(vec![
        (90, SessionCommand::EndIdle { ended_at_ms: deadline }),
        (300, attach(1, dose(30, None))),
        (301, SessionCommand::DetachConsumption { consumption_id: id(1) }),
    ]);
    assert_eq!(back.ended_at_ms, Some(deadline));
    let requested = after(vec![(10, end()), (300, attach(1, dose(5, None)))]);
    assert_eq!(requested.ended_at_ms, Some(START + 10 * MINUTE));
    let cancelled = after(vec![(1, SessionCommand::Cancel)]);
    assert_eq!(cancelled.decide(attach(1, dose(1, None)), &at(2)), Err(SessionError::Cancelled));
}

#[test]
fn attaching_twice_is_once_and_a_new_dose_is_a_change() {
    let session = after(vec![(5, attach(1, dose(5, None)))]);
    assert_eq!(session.decide(attach(1, dose(5, None)), &at(6)), Ok(vec![]));
    let events = session.decide(attach(1, dose(7, None)), &at(8)).unwrap();
    assert!(matches!(events[..], [SessionEvent::ConsumptionChanged(_)]));
    let unknown = SessionCommand::DetachConsumption { consumption_id: id(9) };
    assert_eq!(session.decide(unknown, &at(6)), Ok(vec![]));
}

#[test]
fn the_primary_product_is_the_most_used_then_the_latest_then_the_chosen() {
    let (a, b) = (id(0xa).to_string(), id(0xb).to_string());
    let chosen = fields(json!({"primaryProductId": id(0xc).to_string()}));
    let set = SessionCommand::Update { fields: chosen, last_known_updated_at_ms: None };
    let session = after(vec![(1, set)]);
    assert_eq!(session.derived().primary_product_id, Some(id(0xc).to_string()));
    let tie = after(vec![(1, attach(1, dose(1, Some(&a)))), (2, attach(2, dose(2, Some(&b))))]);
    assert_eq!(tie.derived().primary_product_id, Some(b.clone()));
    let most = after(vec![
        (1, attach(1, dose(1, Some(&a)))),
        (2, attach(2, dose(2, Some(&b)))),
        (3, attach(3, dose(0, Some(&a)))),
    ]);
    assert_eq!(most.derived().primary_product_id, Some(a));
    // Sent back by a phone, the derived value is not a choice.
    let echo = EntityChange::new(ChangeKind::Update, fields(json!({"primaryProductId": b})));
    assert_eq!(most.decide_change(&echo, &Base::Current, &at(9)), Ok(ChangeOutcome::Unchanged));
}

#[test]
fn an_update_sets_fields_but_not_the_status_and_notices_a_stale_reader() {
    let session = after(vec![]);
    let update = |value, last_known_updated_at_ms| {
        session.decide(
            SessionCommand::Update { fields: fields(value), last_known_updated_at_ms },
            &at(1),
        )
    };
    assert_eq!(update(json!({"status": "PAUSED"}), None), Err(SessionError::StatusNotEditable));
    assert_eq!(update(json!({"notes": "x"}), Some(START - 2)), Err(SessionError::Stale));
    assert_eq!(update(json!({"notes": "x"}), Some(START + 1)).unwrap().len(), 1);
    assert_eq!(update(json!({"notes": null, "eventCount": 99}), None), Ok(vec![]));
}

#[test]
fn a_deleted_session_is_gone_for_every_command() {
    let deleted = after(vec![(1, SessionCommand::Delete)]);
    for command in [SessionCommand::Pause, end(), SessionCommand::Delete, attach(1, dose(1, None))]
    {
        assert_eq!(deleted.decide(command, &at(2)), Err(SessionError::NotFound));
    }
    let restart = SessionCommand::Start { fields: start_fields() };
    assert_eq!(deleted.decide(restart, &at(2)), Ok(vec![]));
}

fn push(
    session: &Session,
    value: Value,
    base: &Base,
    ctx: &Context,
) -> ChangeOutcome<SessionEvent> {
    let change = EntityChange::new(ChangeKind::Update, fields(value));
    session.decide_change(&change, base, ctx).unwrap()
}

fn base_of(session: &Session) -> Base {
    Base::At { version: session.entity.version, fields: session.entity.fields.clone() }
}

#[test]
fn a_pushed_status_with_fields_is_one_lifecycle_event() {
    let session = after(vec![]);
    let outcome = push(
        &session,
        json!({"status": "completed", "notes": "done"}),
        &base_of(&session),
        &phone(1, 10),
    );
    let ChangeOutcome::Accepted(SessionEvent::Ended(ended)) = outcome else {
        panic!("an end: {outcome:?}")
    };
    assert_eq!(ended.set, fields(json!({"notes": "done"})));
    assert_eq!(ended.ended_at_ms, START + 10 * MINUTE);
}

#[test]
fn a_session_ended_offline_ended_when_the_person_ended_it() {
    let session = after(vec![]);
    let late = Context { now_ms: START + 500 * MINUTE, ..phone(1, 15) };
    let outcome = push(&session, json!({"status": "COMPLETED"}), &base_of(&session), &late);
    let Some(SessionEvent::Ended(ended)) = outcome.event() else { panic!("an end") };
    assert_eq!(ended.ended_at_ms, START + 15 * MINUTE);
}

#[test]
fn resuming_is_a_plain_update_and_loses_in_a_merge() {
    let paused = after(vec![(1, SessionCommand::Pause)]);
    let plain = push(&paused, json!({"status": "ACTIVE"}), &base_of(&paused), &phone(1, 2));
    assert!(matches!(plain, ChangeOutcome::Accepted(SessionEvent::Resumed(_))));

    // Another phone paused again meanwhile; this one resumes what it saw paused before.
    let seen = base_of(&paused);
    let mut session = paused;
    for status in ["ACTIVE", "PAUSED"] {
        let outcome = push(&session, json!({"status": status}), &Base::Current, &phone(2, 3));
        session.fold(outcome.event().unwrap());
    }
    let outcome = push(&session, json!({"status": "ACTIVE"}), &seen, &phone(1, 4));
    let ChangeOutcome::Superseded(superseded) = outcome else { panic!("superseded") };
    assert_eq!(superseded.reason, SupersededReason::LostMerge);
    assert_eq!(superseded.resolution.unwrap().fields["status"].winner, Winner::Stored);
}

#[test]
fn the_first_accepted_terminal_status_stays_and_the_rest_of_the_edit_counts() {
    let open = after(vec![]);
    let seen = base_of(&open);
    let mut session = open;
    let outcome = push(&session, json!({"status": "CANCELLED"}), &seen, &phone(1, 5));
    session.fold(outcome.event().unwrap());
    let both = json!({"status": "COMPLETED", "rating": 5});
    let outcome = push(&session, both, &seen, &phone(2, 4));
    let ChangeOutcome::Merged(SessionEvent::Updated(updated)) = &outcome else {
        panic!("merged: {outcome:?}")
    };
    assert_eq!(updated.set, fields(json!({"rating": 5})));
    let resolution = updated.resolution.as_ref().unwrap();
    assert_eq!(resolution.basis, Basis::ThreeWay);
    assert_eq!(resolution.fields["status"].lost(), Some(&json!("COMPLETED")));
    session.fold(outcome.event().unwrap());
    assert_eq!(session.status(), Status::Cancelled);
    // Nor does an edit that saw it reopen it.
    let reopen = push(&session, json!({"status": "ACTIVE"}), &base_of(&session), &phone(1, 9));
    assert!(matches!(reopen, ChangeOutcome::Superseded(_)));
}

#[test]
fn notes_merge_by_the_incoming_text_but_null_erases_only_what_it_saw() {
    let open = after(vec![]);
    let write = SessionCommand::Update {
        fields: fields(json!({"notes": "old"})),
        last_known_updated_at_ms: None,
    };
    let mut session = open;
    session.fold(&session.decide(write, &at(1)).unwrap()[0]);
    let seen = base_of(&session);
    let mut met = session.clone();
    let theirs = push(&met, json!({"notes": "theirs"}), &seen, &phone(2, 2));
    met.fold(theirs.event().unwrap());
    let merged = push(&met, json!({"notes": null}), &seen, &phone(1, 3));
    assert!(matches!(merged, ChangeOutcome::Superseded(_)));
    let plain = push(&session, json!({"notes": null}), &seen, &phone(1, 3));
    assert!(matches!(plain, ChangeOutcome::Accepted(SessionEvent::Updated(_))));
    let mine = push(&met, json!({"notes": "mine"}), &seen, &phone(1, 3));
    let resolution = mine.event().unwrap().resolution().unwrap();
    assert_eq!(resolution.fields["notes"].lost(), Some(&json!("theirs")));
}

#[test]
fn an_update_creates_what_was_never_seen_if_it_can_and_waits_otherwise() {
    let empty = Session::default();
    let whole = EntityChange::new(ChangeKind::Update, start_fields());
    let outcome = empty.decide_change(&whole, &Base::Current, &phone(1, 1)).unwrap();
    assert!(matches!(outcome, ChangeOutcome::Accepted(SessionEvent::Started(_))));
    let part = EntityChange::new(ChangeKind::Update, fields(json!({"notes": "x"})));
    assert_eq!(empty.decide_change(&part, &Base::Current, &phone(1, 1)), Err(Refusal::Orphan));
    let delete = EntityChange::new(ChangeKind::Delete, Fields::new());
    let outcome = empty.decide_change(&delete, &Base::Current, &phone(1, 1));
    assert_eq!(outcome, Ok(ChangeOutcome::Unchanged));
}

#[test]
fn a_repeated_create_is_an_update_by_what_differs_and_never_revives() {
    let mut session = after(vec![]);
    let mut create = EntityChange::new(ChangeKind::Create, start_fields());
    let outcome = session.decide_change(&create, &base_of(&session), &phone(1, 1));
    assert_eq!(outcome, Ok(ChangeOutcome::Unchanged));
    create.fields.extend(fields(json!({"notes": "folded in"})));
    let outcome = session.decide_change(&create, &base_of(&session), &phone(1, 1)).unwrap();
    let Some(SessionEvent::Updated(updated)) = outcome.event() else { panic!("an update") };
    assert_eq!(updated.set, fields(json!({"notes": "folded in"})));
    let delete = session.decide(SessionCommand::Delete, &at(2)).unwrap();
    session.fold(&delete[0]);
    let outcome = session.decide_change(&create, &Base::Current, &phone(1, 3)).unwrap();
    let ChangeOutcome::Superseded(superseded) = outcome else { panic!("superseded") };
    assert_eq!(superseded.reason, SupersededReason::Deleted);
    assert_eq!(superseded.fields, fields(json!({"notes": "folded in"})));
}

// ---- properties ----

#[derive(Clone, Debug)]
enum Act {
    Do(SessionCommand),
    Push { origin: u128, back: i64, kind: ChangeKind, fields: Fields },
}

fn any_act() -> impl Strategy<Value = Act> {
    let product = || prop_oneof![Just(None), (1..4_u128).prop_map(|n| Some(id(n).to_string()))];
    let any_dose = move || {
        (-30..200_i64, 1..9_i64, product()).prop_map(|(minutes, seconds, product_id)| Dose {
            at_ms: START + minutes * MINUTE,
            duration_ms: seconds * 1000,
            product_id,
        })
    };
    let status = prop::sample::select(vec!["ACTIVE", "PAUSED", "COMPLETED", "CANCELLED"]);
    let garbage = json!({
        "eventCount": 77, "hitCount": 78, "totalDurationMs": 1, "avgHitDurationMs": 5,
        "sessionEndTimestamp": "2031-01-01T00:00:00Z",
        "sessionStartTimestamp": "2001-01-01T00:00:00Z",
        "id": "x", "userId": "y", "_pendingSync": 1,
    });
    let pushed = (
        prop::option::of(status),
        prop::option::of("[ab]{1,2}"),
        prop_oneof![6 => Just(ChangeKind::Update), 1 => Just(ChangeKind::Create), 1 => Just(ChangeKind::Delete)],
        (1..3_u128, 0..4_i64),
    )
        .prop_map(move |(status, notes, kind, (origin, back))| {
            let mut payload = garbage.clone();
            if let Some(status) = status {
                payload["status"] = json!(status);
            }
            if let Some(notes) = notes {
                payload["notes"] = json!(notes);
            }
            let fields =
                if kind == ChangeKind::Delete { Fields::new() } else { fields(payload) };
            Act::Push { origin, back, kind, fields }
        });
    prop_oneof![
        3 => pushed,
        1 => Just(Act::Do(SessionCommand::Pause)),
        1 => Just(Act::Do(SessionCommand::Resume)),
        1 => Just(Act::Do(end())),
        1 => Just(Act::Do(SessionCommand::Cancel)),
        1 => Just(Act::Do(SessionCommand::Replace)),
        3 => (0..5_u128, any_dose()).prop_map(|(n, dose)| Act::Do(attach(n, dose))),
        2 => (0..5_u128).prop_map(|n| {
            Act::Do(SessionCommand::DetachConsumption { consumption_id: id(n) })
        }),
    ]
}

/// Plays acts a minute apart; calls `check` with the session before and after each.
fn play(acts: &[Act], mut check: impl FnMut(&Session, &Session, &[SessionEvent])) {
    let mut session = after(vec![]);
    let mut history = vec![Session::default(), session.clone()];
    for (minute, act) in acts.iter().enumerate() {
        let minute = i64::try_from(minute).unwrap() * 7 + 1;
        let before = session.clone();
        let events = match act {
            Act::Do(command) => session.decide(command.clone(), &at(minute)).unwrap_or_default(),
            Act::Push { origin, back, kind, fields } => {
                let seen = (session.entity.version - back).max(1);
                let base = base_of(&history[usize::try_from(seen).unwrap()]);
                let change = EntityChange::new(*kind, fields.clone());
                let outcome =
                    session.decide_change(&change, &base, &phone(*origin, minute)).unwrap();
                outcome.event().cloned().into_iter().collect()
            }
        };
        for event in &events {
            session.fold(event);
            history.push(session.clone());
        }
        check(&before, &session, &events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn sync_05_a_terminal_status_is_never_left(acts in prop::collection::vec(any_act(), 1..16)) {
        play(&acts, |before, after, events| {
            if before.status().is_terminal() {
                assert_eq!(before.status(), after.status());
            }
            let merged = events.iter().filter_map(SessionEvent::resolution);
            let rank = |status: Status| match status {
                Status::Active => 0,
                Status::Paused => 1,
                Status::Cancelled => 2,
                Status::Completed => 3,
            };
            if merged.filter(|merge| merge.fields.contains_key("status")).count() > 0 {
                let closed = before.status().is_terminal();
                assert!(closed || rank(after.status()) >= rank(before.status()));
            }
        });
    }

    #[test]
    fn sync_07_derived_values_follow_the_consumptions_and_nothing_else(
        acts in prop::collection::vec(any_act(), 1..16)
    ) {
        let mut model: std::collections::BTreeMap<Uuid, Dose> = Default::default();
        play(&acts, |_, after, events| {
            for event in events {
                match event {
                    SessionEvent::ConsumptionAttached(ConsumptionAttached { consumption_id, dose, .. })
                    | SessionEvent::ConsumptionChanged(ConsumptionChanged { consumption_id, dose, .. }) => {
                        model.insert(*consumption_id, dose.clone());
                    }
                    SessionEvent::ConsumptionDetached(data) => {
                        model.remove(&data.consumption_id);
                    }
                    _ => {}
                }
            }
            let shown = after.visible_fields();
            let count = i64::try_from(model.len()).unwrap();
            let total: i64 = model.values().map(|dose| dose.duration_ms).sum();
            let start = model.values().map(|dose| dose.at_ms).min().unwrap_or(START);
            assert_eq!(shown["eventCount"], json!(count));
            assert_eq!(shown["totalDurationMs"], json!(total));
            assert_eq!(shown["avgEventDurationMs"], json!(total.checked_div(count).unwrap_or(0)));
            assert_eq!(shown["sessionStartTimestamp"], format_instant(start));
            if after.is_open() {
                let last = model.values().map(|dose| dose.at_ms).max().unwrap_or(START);
                assert_eq!(
                    shown["sessionEndTimestamp"].as_str().and_then(parse_instant),
                    Some(last + IDLE_TIMEOUT_MS)
                );
            }
        });
    }

    #[test]
    fn sync_09_11_one_event_per_accepted_change_and_none_after_a_delete(
        acts in prop::collection::vec(any_act(), 1..16)
    ) {
        let mut rebuilt = after(vec![]);
        play(&acts, |before, after, events| {
            assert!(events.len() <= 1);
            let rise = i64::try_from(events.len()).unwrap();
            assert_eq!(after.entity.version, before.entity.version + rise);
            if before.entity.deleted {
                assert!(events.is_empty() && after.entity.deleted);
            }
            // What is stored and read back folds to the same session.
            for event in events {
                let stored = crate::StoredEvent::encode(event);
                let name = cqrs_es::DomainEvent::event_type(event);
                let read: SessionEvent =
                    crate::StoredEvent::decode(&name, &stored.payload, &[]).unwrap();
                rebuilt.fold(&read);
            }
            assert_eq!(&rebuilt, after);
        });
    }

    #[test]
    fn an_end_is_never_in_the_future(acts in prop::collection::vec(any_act(), 1..16)) {
        play(&acts, |_, after, events| {
            if let (Some(ended_at_ms), Some(event)) = (after.ended_at_ms, events.first()) {
                assert!(ended_at_ms <= event.edit().at_ms);
            }
        });
    }
}
