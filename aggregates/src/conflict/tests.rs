use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Base, Basis, Merge, Nulls, Policy, TwoWayReason, Winner, resolve};
use crate::EventType;
use crate::entity::{
    ChangeKind, ChangeOutcome, Context, Edit, EntityChange, EntityContract, EntityState, Field,
    Fields, Kind, SupersededChange, SupersededReason, decide_change, entity_event_types,
};

/// One field for each policy.
static THINGS: EntityContract = EntityContract {
    entity_type: "things",
    aliases: &[],
    aggregate_type: "thing",
    purpose: None,
    client_id_field: None,
    sync_order: 0,
    plain: true,
    fields: &[
        Field::new("local", NUMBER, Policy::LocalWins(Nulls::Count)),
        Field::new("localUnlessNull", NUMBER, Policy::LocalWins(Nulls::Lose)),
        Field::new("server", NUMBER, Policy::ServerWins),
        Field::new("latest", NUMBER, Policy::LastWriteWins(Nulls::Count)),
        Field::new("latestUnlessNull", NUMBER, Policy::LastWriteWins(Nulls::Lose)),
        Field::new("words", Kind::TextList { max_items: 9, max_len: 9 }, Policy::MergeArrays),
        Field::new(
            "level",
            Kind::Enum(&["LOW", "MID", "HIGH", "DONE"]),
            Policy::Monotonic { order: &["LOW", "MID", "HIGH", "DONE"], terminal: &[] },
        ),
        Field::new("most", NUMBER, Policy::MaxValue),
        Field::new("least", NUMBER, Policy::MinValue),
        Field::new("mine", NUMBER, Policy::ServerIfLocalNull),
        Field::new("first", NUMBER, Policy::LocalIfServerNull),
        Field::new("keys", Kind::Object, Policy::DeepMerge),
    ],
    events: &TYPES,
};
const NUMBER: Kind = Kind::Int { min: 0, max: 1000 };
static TYPES: [EventType; 3] =
    entity_event_types("thing", None, ["thing.created", "thing.updated", "thing.deleted"], [""; 3]);

fn fields(value: Value) -> Fields {
    serde_json::from_value(value).unwrap()
}

fn phone(n: u128) -> Option<Uuid> {
    Some(Uuid::from_u128(n))
}

fn ctx(origin: u128, edited_at_ms: i64) -> Context {
    Context { now_ms: 1_000_000, edited_at_ms, origin: phone(origin) }
}

fn created(value: Value) -> EntityState {
    let mut state = EntityState::default();
    let edit = Edit { at_ms: 1, edited_at_ms: 1, origin: None };
    state.create(&fields(value), &edit);
    state
}

fn base(state: &EntityState) -> Base {
    Base::At { version: state.version, fields: state.fields.clone() }
}

fn update(value: Value) -> EntityChange {
    EntityChange::new(ChangeKind::Update, fields(value))
}

/// Decides and folds.
fn apply(
    state: &mut EntityState,
    change: &EntityChange,
    base: &Base,
    ctx: &Context,
) -> ChangeOutcome<crate::entity::EntityEvent> {
    let outcome = decide_change(&THINGS, state, change, base, ctx).unwrap();
    if let Some(event) = outcome.event() {
        state.fold(event);
    }
    outcome
}

/// Both sides change one field; what remains of it and whose it is.
fn meet(
    field: &str,
    origin: &Value,
    stored: &Value,
    incoming: &Value,
    newer: bool,
) -> (Value, Winner) {
    let mut state = created(json!({ field: origin }));
    let seen = base(&state);
    apply(&mut state, &update(json!({ field: stored })), &seen, &ctx(1, 100));
    let at = if newer { 200 } else { 50 };
    let incoming = fields(json!({ field: incoming }));
    let merge = Merge {
        contract: &THINGS,
        base: &seen,
        stored: &state.fields,
        stamps: &state.stamps,
        stored_version: state.version,
        incoming: &incoming,
        changed: None,
        edit: &ctx(2, at).edit(),
    };
    let resolution = resolve(&merge).resolution;
    let field = &resolution.fields[field];
    (field.result.clone(), field.winner)
}

#[test]
fn every_policy_decides_as_declared() {
    use Winner::{Both, Incoming, Stored};
    let cases: Vec<(&str, Value, Value, Value, bool, Value, Winner)> = vec![
        ("local", json!(1), json!(2), json!(3), false, json!(3), Incoming),
        ("local", json!(1), json!(2), json!(null), false, json!(null), Incoming),
        ("localUnlessNull", json!(1), json!(2), json!(null), true, json!(2), Stored),
        ("server", json!(1), json!(2), json!(3), true, json!(2), Stored),
        ("latest", json!(1), json!(2), json!(3), true, json!(3), Incoming),
        ("latest", json!(1), json!(2), json!(3), false, json!(2), Stored),
        ("latest", json!(1), json!(2), json!(null), true, json!(null), Incoming),
        ("latestUnlessNull", json!(1), json!(2), json!(null), true, json!(2), Stored),
        ("latestUnlessNull", json!(1), json!(null), json!(3), false, json!(3), Incoming),
        (
            "words",
            json!(["a"]),
            json!(["a", "b"]),
            json!(["c"]),
            true,
            json!(["a", "b", "c"]),
            Both,
        ),
        ("level", json!("LOW"), json!("HIGH"), json!("MID"), true, json!("HIGH"), Stored),
        ("level", json!("LOW"), json!("MID"), json!("HIGH"), false, json!("HIGH"), Incoming),
        ("most", json!(1), json!(5), json!(9), false, json!(9), Incoming),
        ("most", json!(1), json!(5), json!(null), true, json!(5), Stored),
        ("least", json!(9), json!(5), json!(3), false, json!(3), Incoming),
        ("least", json!(9), json!(null), json!(3), false, json!(3), Incoming),
        ("mine", json!(1), json!(2), json!(null), true, json!(2), Stored),
        ("first", json!(1), json!(2), json!(3), true, json!(2), Stored),
        ("first", json!(1), json!(null), json!(3), false, json!(3), Incoming),
        (
            "keys",
            json!({"a": 1, "b": 1}),
            json!({"a": 2, "b": 1}),
            json!({"a": 1, "b": 3}),
            true,
            json!({"a": 2, "b": 3}),
            Both,
        ),
    ];
    for (field, origin, stored, incoming, newer, result, winner) in cases {
        let met = meet(field, &origin, &stored, &incoming, newer);
        assert_eq!(met, (result, winner), "{field}, incoming newer: {newer}");
    }
}

#[test]
fn a_field_that_only_one_side_changed_survives_under_every_policy() {
    let mut state = created(json!({"local": 1, "server": 1, "latest": 1, "first": 1}));
    let seen = base(&state);
    apply(&mut state, &update(json!({"local": 2, "first": 2})), &seen, &ctx(1, 900));
    // The second phone sends everything it holds; it changed `server` and `latest` only.
    let whole = update(json!({"local": 1, "first": 1, "server": 7, "latest": 7}));
    let outcome = apply(&mut state, &whole, &seen, &ctx(2, 10));
    assert_eq!(state.fields, fields(json!({"local": 2, "server": 7, "latest": 7, "first": 2})));
    let resolution = outcome.event().unwrap().resolution().unwrap().clone();
    assert_eq!(resolution.basis, Basis::ThreeWay);
    assert_eq!((resolution.base_version, resolution.stored_version), (Some(1), 2));
    assert_eq!(resolution.kept, ["first", "local"]);
    assert_eq!(resolution.taken, ["latest", "server"]);
    assert!(resolution.fields.is_empty());
}

#[test]
fn changed_back_and_forth_by_others_is_still_changed() {
    let mut state = created(json!({"latest": 1}));
    let seen = base(&state);
    apply(&mut state, &update(json!({"latest": 2})), &Base::Current, &ctx(1, 10));
    apply(&mut state, &update(json!({"latest": 1})), &Base::Current, &ctx(1, 30));
    let outcome = apply(&mut state, &update(json!({"latest": 5})), &seen, &ctx(2, 20));
    assert!(matches!(outcome, ChangeOutcome::Superseded(_)));
}

#[test]
fn edits_of_one_installation_apply_in_edit_order_whatever_order_they_arrive_in() {
    let mut state = created(json!({"server": 1, "latest": 1}));
    let seen = base(&state);
    apply(&mut state, &update(json!({"server": 3})), &seen, &ctx(1, 30));
    let late = apply(&mut state, &update(json!({"server": 2, "latest": 2})), &seen, &ctx(1, 20));
    assert_eq!(state.fields, fields(json!({"server": 3, "latest": 2})));
    let resolution = late.event().unwrap().resolution().unwrap();
    assert_eq!(resolution.fields["server"].lost(), Some(&json!(2)));
    // Back to the value of the base is an edit like any other.
    apply(&mut state, &update(json!({"server": 1})), &seen, &ctx(1, 40));
    assert_eq!(state.fields["server"], json!(1));
}

#[test]
fn an_edit_that_saw_a_later_one_counts_as_no_earlier() {
    let mut state = created(json!({"latest": 1}));
    let first = base(&state);
    apply(&mut state, &update(json!({"latest": 2})), &first, &ctx(1, 20));
    // The second phone saw that edit; its clock is slow. The third did not.
    let seen = base(&state);
    apply(&mut state, &update(json!({"latest": 3})), &seen, &ctx(2, 10));
    let third = apply(&mut state, &update(json!({"latest": 4})), &first, &ctx(3, 15));
    assert!(matches!(third, ChangeOutcome::Superseded(_)));
    // The second phone's next edit is in order by its own clock.
    apply(&mut state, &update(json!({"latest": 5})), &seen, &ctx(2, 12));
    assert_eq!(state.fields["latest"], json!(5));
}

#[test]
fn a_combined_value_is_not_taken_for_the_senders_own() {
    let mut state = created(json!({"words": ["a"]}));
    let seen = base(&state);
    apply(&mut state, &update(json!({"words": ["a", "b"]})), &seen, &ctx(1, 10));
    apply(&mut state, &update(json!({"words": ["a", "c"]})), &seen, &ctx(2, 20));
    // The second phone has not pulled and knows nothing of "b".
    apply(&mut state, &update(json!({"words": ["a", "c", "d"]})), &seen, &ctx(2, 30));
    assert_eq!(state.fields["words"], json!(["a", "b", "c", "d"]));
}

#[test]
fn a_field_the_client_lists_as_changed_counts_even_with_its_old_value() {
    let mut state = created(json!({"local": 1}));
    let seen = base(&state);
    apply(&mut state, &update(json!({"local": 2})), &seen, &ctx(1, 10));
    let mut change = update(json!({"local": 1}));
    let unlisted = apply(&mut state.clone(), &change, &seen, &ctx(2, 20));
    assert!(matches!(unlisted, ChangeOutcome::Superseded(_)));
    change.changed = Some(BTreeSet::new());
    assert_eq!(apply(&mut state.clone(), &change, &seen, &ctx(2, 20)), ChangeOutcome::Unchanged);
    change.changed = Some(BTreeSet::from(["local".to_owned()]));
    apply(&mut state, &change, &seen, &ctx(2, 20));
    assert_eq!(state.fields["local"], json!(1));
}

#[test]
fn without_a_base_every_difference_is_a_conflict_and_says_so() {
    let mut state = created(json!({"server": 1, "latest": 1}));
    let unknown = Base::Unknown { reason: TwoWayReason::BaseTooOld };
    let outcome =
        apply(&mut state, &update(json!({"server": 2, "latest": 2})), &unknown, &ctx(1, 10));
    assert_eq!(state.fields, fields(json!({"server": 1, "latest": 2})));
    let resolution = outcome.event().unwrap().resolution().unwrap();
    assert_eq!(resolution.basis, Basis::TwoWay { reason: TwoWayReason::BaseTooOld });
}

#[test]
fn what_loses_wholly_is_handed_back() {
    let mut state = created(json!({"server": 1}));
    let seen = base(&state);
    apply(&mut state, &update(json!({"server": 2})), &seen, &ctx(1, 10));
    let ChangeOutcome::Superseded(superseded) =
        apply(&mut state, &update(json!({"server": 3})), &seen, &ctx(2, 20))
    else {
        panic!("a lost update must not be accepted");
    };
    assert_eq!(superseded.reason, SupersededReason::LostMerge);
    assert_eq!(superseded.change, SupersededChange::Update);
    assert_eq!((superseded.base_version, superseded.stored_version), (Some(1), 2));
    assert_eq!(superseded.fields, fields(json!({"server": 3})));
    assert_eq!(superseded.resolution.unwrap().fields["server"].policy, "SERVER_WINS");
    assert_eq!(state.version, 2);
}

#[test]
fn sync_12_what_was_typed_back_to_its_old_value_is_handed_back() {
    let mut state = created(json!({"latest": 1, "words": ["a"]}));
    let seen = base(&state);
    let theirs = update(json!({"latest": 2, "words": ["a", "b"]}));
    apply(&mut state, &theirs, &seen, &ctx(1, 10));
    let ChangeOutcome::Superseded(superseded) =
        apply(&mut state, &update(json!({"latest": 1})), &seen, &ctx(2, 20))
    else {
        panic!("a value without effect must not vanish");
    };
    assert_eq!(superseded.reason, SupersededReason::LostMerge);
    assert_eq!(superseded.fields, fields(json!({"latest": 1})));
    assert!(superseded.resolution.unwrap().kept.contains(&"latest".to_owned()));
    // What is there already as part of a combination has not lost.
    let mut change = update(json!({"words": ["b"]}));
    assert_eq!(apply(&mut state.clone(), &change, &seen, &ctx(2, 20)), ChangeOutcome::Unchanged);
    // A change that sets something else says in its resolution what it kept.
    change = update(json!({"latest": 1, "local": 5}));
    let merged = apply(&mut state, &change, &seen, &ctx(2, 20));
    assert!(matches!(merged, ChangeOutcome::Merged(_)));
}

#[test]
fn list_deltas_add_and_remove_without_a_base() {
    let mut state = created(json!({"words": ["a", "b"]}));
    let seen = base(&state);
    apply(&mut state, &update(json!({"words": ["a", "b", "c"]})), &seen, &ctx(1, 10));
    let delta = update(json!({"words": {"$add": ["d", "a"], "$remove": ["b"]}}));
    apply(&mut state, &delta, &seen, &ctx(2, 5));
    assert_eq!(state.fields["words"], json!(["a", "c", "d"]));
}

// ---- properties ----

fn value_of(name: &'static str) -> BoxedStrategy<Value> {
    match name {
        "words" => proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..4)
            .prop_map(|words| json!(words))
            .boxed(),
        "level" => {
            prop::sample::select(vec!["LOW", "MID", "HIGH", "DONE"]).prop_map(Value::from).boxed()
        }
        "keys" => {
            prop::collection::btree_map("[ab]", 0..3_i64, 0..2).prop_map(|keys| json!(keys)).boxed()
        }
        _ => prop_oneof![Just(Value::Null), (0..4_i64).prop_map(Value::from)].boxed(),
    }
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let names: Vec<&'static str> = THINGS.fields.iter().map(|field| field.name).collect();
    proptest::sample::subsequence(names, 1..6).prop_flat_map(|names| {
        names
            .into_iter()
            .map(|name| value_of(name).prop_map(move |value| (name.to_owned(), value)))
            .collect::<Vec<_>>()
            .prop_map(|pairs| pairs.into_iter().collect::<Fields>())
    })
}

/// An edit: origin, edit time, how far back its base lies (`None`: unknown), fields.
#[derive(Clone, Debug)]
struct Step {
    origin: u128,
    at: i64,
    back: Option<i64>,
    kind: ChangeKind,
    fields: Fields,
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        12 => Just(ChangeKind::Update),
        2 => Just(ChangeKind::Create),
        1 => Just(ChangeKind::Delete),
    ];
    (0..3_u128, 1..40_i64, prop::option::weighted(0.9, 0..5_i64), kind, any_fields())
        .prop_map(|(origin, at, back, kind, fields)| Step { origin, at, back, kind, fields })
}

/// Plays steps against one entity and calls `check` for each, with the state before and after.
fn play(
    steps: &[Step],
    mut check: impl FnMut(
        &EntityState,
        &EntityState,
        &EntityChange,
        &Base,
        &Context,
        &ChangeOutcome<crate::entity::EntityEvent>,
    ),
) -> EntityState {
    let mut state = created(json!({"local": 1, "words": ["a"], "level": "LOW", "most": 1}));
    let mut history = vec![EntityState::default(), state.clone()];
    for step in steps {
        let base = step.back.map_or(Base::Unknown { reason: TwoWayReason::BaseUnknown }, |back| {
            base(&history[usize::try_from((state.version - back).max(1)).unwrap()])
        });
        let fields =
            if step.kind == ChangeKind::Delete { Fields::new() } else { step.fields.clone() };
        let change = EntityChange::new(step.kind, fields);
        let ctx = ctx(step.origin + 1, step.at);
        let before = state.clone();
        let outcome = apply(&mut state, &change, &base, &ctx);
        check(&before, &state, &change, &base, &ctx, &outcome);
        if outcome.event().is_some() {
            history.push(state.clone());
        }
    }
    state
}

fn json_of(state: &EntityState) -> String {
    serde_json::to_string(state).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn sync_01_04_equal_inputs_give_equal_bytes_and_events_alone_rebuild_the_state(
        steps in prop::collection::vec(any_step(), 1..14)
    ) {
        let mut rebuilt = created(json!({"local": 1, "words": ["a"], "level": "LOW", "most": 1}));
        let last = play(&steps, |before, _, change, base, ctx, outcome| {
            let again = decide_change(&THINGS, before, change, base, ctx).unwrap();
            assert_eq!(&again, outcome);
            if let Some(event) = outcome.event() {
                let stored = crate::StoredEvent::encode(event).payload;
                let twice = crate::StoredEvent::encode(again.event().unwrap()).payload;
                assert_eq!(stored, twice);
                rebuilt.fold(event);
            }
        });
        prop_assert_eq!(json_of(&rebuilt), json_of(&last));
        let read: EntityState = serde_json::from_str(&json_of(&last)).unwrap();
        prop_assert_eq!(read, last);
    }

    #[test]
    fn sync_02_applying_a_change_twice_equals_once(
        steps in prop::collection::vec(any_step(), 1..14)
    ) {
        play(&steps, |_, after, change, base, ctx, _| {
            let again = decide_change(&THINGS, after, change, base, ctx).unwrap();
            assert_eq!(again.event(), None, "{change:?} on {after:?}");
        });
    }

    #[test]
    fn sync_09_version_rises_by_one_per_accepted_change_and_never_else(
        steps in prop::collection::vec(any_step(), 1..14)
    ) {
        play(&steps, |before, after, _, _, _, outcome| {
            let rise = i64::from(outcome.event().is_some());
            assert_eq!(after.version, before.version + rise);
            if rise == 0 {
                assert_eq!(before, after);
            }
        });
    }

    #[test]
    fn sync_11_a_delete_is_final(steps in prop::collection::vec(any_step(), 1..20)) {
        play(&steps, |before, after, _, _, _, outcome| {
            if before.deleted {
                assert!(after.deleted);
                assert_eq!(outcome.event(), None);
            }
        });
    }

    #[test]
    fn sync_12_no_value_disappears_without_a_record(
        steps in prop::collection::vec(any_step(), 1..14)
    ) {
        play(&steps, |before, after, change, base, _, outcome| {
            let none = Value::Null;
            let resolution = outcome.event().and_then(|event| event.resolution());
            let superseded = match outcome {
                ChangeOutcome::Superseded(superseded) => superseded.fields.clone(),
                _ => Fields::new(),
            };
            for (name, incoming) in &change.fields {
                let now = after.fields.get(name).unwrap_or(&none);
                let untouched = match base {
                    Base::At { fields, .. } => fields.get(name).unwrap_or(&none) == incoming,
                    _ => false,
                };
                let recorded = resolution.is_some_and(|r| r.fields.contains_key(name));
                let contained = match (now, incoming) {
                    (Value::Array(now), Value::Array(words)) => {
                        words.iter().all(|word| now.contains(word))
                    }
                    (Value::Object(now), Value::Object(keys)) => {
                        keys.iter().all(|(key, value)| now.get(key) == Some(value))
                    }
                    _ => now == incoming,
                };
                assert!(
                    contained || untouched || recorded || superseded.contains_key(name),
                    "{name} of {change:?} is gone"
                );
            }
            // What was stored gives way only to an edit that saw it, or on the record.
            for (name, stored) in &before.fields {
                let now = after.fields.get(name).unwrap_or(&none);
                let stamp = &before.stamps[name];
                let seen = match base {
                    Base::At { version, .. } => stamp.version <= *version,
                    _ => false,
                };
                let own = stamp.origin.is_some() && stamp.origin == after.origin;
                let recorded = resolution.is_some_and(|r| r.fields.contains_key(name));
                assert!(now == stored || seen || own || recorded, "{name} was overwritten");
            }
        });
    }

    /// Edits of the same base by different phones, in any order of arrival.
    #[test]
    fn sync_03_commutative_policies_do_not_depend_on_arrival(
        edits in prop::collection::vec((1..1000_i64, value_of("words"), value_of("level"),
            0..9_i64, 0..9_i64, value_of("latest")), 2..6),
        shuffle in any::<u64>(),
    ) {
        let edits: Vec<(usize, EntityChange, i64)> = edits
            .into_iter()
            .enumerate()
            .map(|(n, (at, words, level, most, least, latest))| {
                let change = update(json!({
                    "words": words, "level": level, "most": most, "least": least, "latest": latest,
                }));
                // Distinct times, as the invariant asks for.
                (n, change, at * 10 + i64::try_from(n).unwrap())
            })
            .collect();
        let run = |order: &[(usize, EntityChange, i64)]| {
            let mut state = created(json!({"level": "LOW", "words": []}));
            let seen = base(&state);
            for (phone, change, at) in order {
                apply(&mut state, change, &seen, &ctx(*phone as u128 + 1, *at));
            }
            let mut fields = state.fields;
            if let Some(Value::Array(words)) = fields.get_mut("words") {
                words.sort_by_key(ToString::to_string);
            }
            fields
        };
        let mut shuffled = edits.clone();
        shuffled.sort_by_key(|(n, _, _)| (*n as u64 + 1).wrapping_mul(shuffle | 1).rotate_left(17));
        prop_assert_eq!(run(&edits), run(&shuffled));
    }

    #[test]
    fn sync_06_merged_lists_lose_nothing_and_repeat_nothing(
        stored in value_of("words"), incoming in value_of("words")
    ) {
        let mut state = created(json!({"words": ["z"]}));
        let seen = base(&state);
        apply(&mut state, &update(json!({"words": stored})), &seen, &ctx(1, 10));
        apply(&mut state, &update(json!({"words": incoming})), &seen, &ctx(2, 20));
        let words = state.fields["words"].as_array().unwrap();
        for word in stored.as_array().unwrap().iter().chain(incoming.as_array().unwrap()) {
            prop_assert_eq!(words.iter().filter(|have| *have == word).count(), 1);
        }
    }
}
