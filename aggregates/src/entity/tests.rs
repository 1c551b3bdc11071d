use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::time::{format_instant, parse_instant};
use super::*;
use crate::conflict::Base;
use crate::consumption::{self, Candidate, Consumption, dose_of, session_for};
use crate::registry::AnyEvent;
use crate::session::{self, Status};
use crate::{StoredEvent, UserId};

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("an object") };
    map
}

fn clean(value: Value) -> Fields {
    normalise(&consumption::CONTRACT, &object(value)).unwrap().fields
}

fn errors(value: Value) -> Vec<(String, &'static str)> {
    let errors = normalise(&consumption::CONTRACT, &object(value)).unwrap_err();
    errors.into_iter().map(|error| (error.pointer, error.code)).collect()
}

fn full() -> Value {
    json!({
        "clientConsumptionId": "c-1", "timestamp": "2026-03-01T20:00:00Z", "durationMs": 4000,
    })
}

#[test]
fn what_is_not_the_clients_to_set_is_ignored_and_only_strangers_are_counted() {
    let payload = object(json!({
        "id": "x", "userId": "y", "serverId": "z", "createdAt": 1, "updatedAt": 2, "version": 9,
        "syncVersion": 1, "syncStatus": "pending", "clientId": "c", "data": {},
        "_offline": true, "_pendingSync": 1, "colour": "red", "notes": "kept",
    }));
    let normalised = normalise(&consumption::CONTRACT, &payload).unwrap();
    assert_eq!(normalised.fields, Fields::from([("notes".to_owned(), json!("kept"))]));
    assert_eq!(normalised.unknown, 1);
}

#[test]
fn both_spellings_are_read_and_the_canonical_one_counts() {
    assert_eq!(clean(json!({"estimatedThcMg": "2.5"}))["dosageMg"], "2.50");
    assert_eq!(clean(json!({"estimatedThcMg": "2.5", "dosageMg": "3"}))["dosageMg"], "3.00");
}

#[test]
fn values_are_brought_into_one_form() {
    let id = "0D6C1F5E-0000-4000-8000-00000000000A";
    let fields = clean(json!({
        "timestamp": "2026-03-01 20:00:00", "quantity": 0.25, "dosageMg": "1.005",
        "intensity": 5.0, "durationMs": 4000.0, "isJournaled": 1, "productId": id,
    }));
    assert_eq!(fields["timestamp"], "2026-03-01T20:00:00.000Z");
    assert_eq!(fields["quantity"], "0.250");
    assert_eq!(fields["dosageMg"], "1.01");
    assert_eq!(fields["intensity"], json!(5));
    assert_eq!(fields["durationMs"], json!(4000));
    assert_eq!(fields["isJournaled"], json!(true));
    assert_eq!(fields["productId"], id.to_lowercase());
    let offset = clean(json!({"timestamp": "2026-03-01T20:00:00.1239+02:00"}));
    assert_eq!(offset["timestamp"], "2026-03-01T18:00:00.123Z");
    assert_eq!(clean(json!({"quantity": "-0.0001"}))["quantity"], "0.000");
}

#[test]
fn every_wrong_value_is_named_by_its_pointer_and_never_quoted() {
    let wrong = json!({
        "timestamp": "yesterday", "durationMs": 0, "intensity": 10.5, "quantity": "-1",
        "dosageMg": "12345678901", "isJournaled": "yes", "notes": "x".repeat(2001),
        "sessionId": "s-1", "clientConsumptionId": "", "clientPurchaseId": "a\u{0}b",
    });
    let found = errors(wrong);
    assert_eq!(
        found,
        [
            ("/clientConsumptionId", "too_short"),
            ("/clientPurchaseId", "invalid_character"),
            ("/dosageMg", "out_of_range"),
            ("/durationMs", "out_of_range"),
            ("/intensity", "out_of_range"),
            ("/isJournaled", "not_a_boolean"),
            ("/notes", "too_long"),
            ("/quantity", "out_of_range"),
            ("/sessionId", "invalid_uuid"),
            ("/timestamp", "invalid_instant"),
        ]
        .map(|(pointer, code)| (pointer.to_owned(), code))
    );
    assert_eq!(errors(json!({"durationMs": null})), [("/durationMs".to_owned(), "not_nullable")]);
    assert_eq!(clean(json!({"notes": null}))["notes"], Value::Null);
    // A device may be known by a name that is no UUID.
    assert_eq!(clean(json!({"deviceId": "ble-17"}))["deviceId"], "ble-17");
}

#[test]
fn the_session_status_is_read_in_any_case() {
    let payload = object(json!({"status": "paused", "hitCount": 3}));
    let fields = normalise(&session::CONTRACT, &payload).unwrap().fields;
    assert_eq!(fields, Fields::from([("status".to_owned(), json!("PAUSED"))]));
}

#[test]
fn the_wire_shows_every_field_in_both_spellings() {
    let mut fields = clean(full());
    fields.insert("dosageMg".to_owned(), json!("2.50"));
    let mut entity = AnyEntity::new(&consumption::CONTRACT);
    let create = EntityChange::new(ChangeKind::Create, fields);
    let ctx = Context::now(1_772_395_200_000);
    let outcome = entity.decide_change(&create, &Base::Current, &ctx).unwrap();
    entity.apply(outcome.event().unwrap());
    let wire = entity.to_wire(Uuid::from_u128(7), UserId(Uuid::from_u128(8)));
    assert_eq!(wire["dosageMg"], "2.50");
    assert_eq!(wire["estimatedThcMg"], "2.50");
    assert_eq!(wire["isJournaled"], json!(false));
    assert_eq!(wire["notes"], Value::Null);
    assert_eq!(wire["version"], json!(1));
    assert_eq!(wire["createdAt"], "2026-03-01T20:00:00.000Z");
    assert_eq!(wire["id"], "00000000-0000-0000-0000-000000000007");
    // What the wire shows is read back as no change at all.
    let again = normalise(&consumption::CONTRACT, &wire).unwrap();
    assert_eq!(again.unknown, 0);
    let echo = EntityChange::new(ChangeKind::Update, again.fields);
    assert_eq!(entity.decide_change(&echo, &Base::Current, &ctx), Ok(ChangeOutcome::Unchanged));
    assert_eq!(AnyEntity::from_json(entity.contract(), &entity.to_json()), Ok(entity));
}

#[test]
fn a_client_id_never_changes() {
    let mut consumption = Consumption::default();
    let ctx = Context::now(10);
    let command = |kind, value| EntityCommand {
        change: EntityChange::new(kind, clean(value)),
        base: Base::Current,
    };
    let created = consumption.decide(&command(ChangeKind::Create, full()), &ctx).unwrap();
    consumption.state.fold(created.event().unwrap());
    let renamed = command(ChangeKind::Update, json!({"clientConsumptionId": "c-2"}));
    assert_eq!(consumption.decide(&renamed, &ctx), Ok(ChangeOutcome::Unchanged));
}

#[test]
fn a_creation_lacks_what_it_lacks_and_an_update_of_the_unknown_waits() {
    let state = EntityState::default();
    let part = clean(json!({"notes": "x"}));
    let decide = |kind| {
        let change = EntityChange::new(kind, part.clone());
        let ctx = Context::now(1);
        decide_change(&consumption::CONTRACT, &state, &change, &Base::Current, &ctx)
    };
    let Err(Refusal::Invalid(missing)) = decide(ChangeKind::Create) else { panic!("refused") };
    let pointers: Vec<&str> = missing.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/clientConsumptionId", "/timestamp", "/durationMs"]);
    assert_eq!(decide(ChangeKind::Update), Err(Refusal::Orphan));
    assert_eq!(decide(ChangeKind::Delete), Ok(ChangeOutcome::Unchanged));
}

#[test]
fn the_consumption_policies_are_the_declared_ones() {
    let policy = |name| consumption::CONTRACT.field(name).unwrap().policy.name();
    for name in ["notes", "intensity", "isJournaled", "durationMs", "quantity", "dosageMg"] {
        assert_eq!(policy(name), "LOCAL_WINS", "{name}");
    }
    for name in ["timestamp", "productId", "purchaseId"] {
        assert_eq!(policy(name), "LAST_WRITE_WINS", "{name}");
    }
    assert_eq!((policy("sessionId"), policy("deviceId")), ("SERVER_WINS", "SERVER_WINS"));
    assert_eq!(policy("clientPurchaseId"), "LOCAL_IF_SERVER_NULL");
}

#[test]
fn contracts_are_found_by_every_name_and_come_parents_first() {
    for name in ["consumptions", "Consumption", "CONSUMPTIONS"] {
        assert_eq!(find_contract(name).unwrap().entity_type, "consumptions");
    }
    assert_eq!(find_contract("Session").unwrap().aggregate_type, "session");
    assert!(find_contract("spaceships").is_none());
    assert!(CONTRACTS.iter().filter(|contract| contract.plain).all(|c| c.events.len() == 3));
    assert!(CONTRACTS.is_sorted_by_key(|contract| contract.sync_order));
    for contract in CONTRACTS {
        assert_eq!(find_contract_of_stream(contract.aggregate_type), Some(contract));
        let mut names: Vec<&str> = contract
            .fields
            .iter()
            .flat_map(|field| std::iter::once(field.name).chain(field.alias))
            .collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{}", contract.entity_type);
    }
}

#[test]
fn what_was_superseded_is_kept_with_its_reason() {
    let superseded = Superseded {
        change: SupersededChange::Update,
        base_version: Some(2),
        stored_version: 3,
        reason: SupersededReason::Deleted,
        fields: clean(json!({"notes": "late"})),
        resolution: None,
    };
    let command = RecoveryCommand {
        entity_type: "consumptions".to_owned(),
        entity_id: Uuid::from_u128(1),
        superseded,
        request_id: Some("ob-1".to_owned()),
    };
    let event = SyncRecovery::default().decide(command, &Context::now(5));
    let any = AnyEvent::from(event);
    let descriptor = any.descriptor();
    assert_eq!(descriptor.name, "sync_recovery.superseded");
    let payload = any.encode().payload;
    assert!(payload.contains(r#""reason":"deleted""#), "{payload}");
    let versions = r#""change":"update","base_version":2,"stored_version":3"#;
    assert!(payload.contains(versions), "what the person saw can be found again: {payload}");
    assert_eq!(AnyEvent::decode(descriptor.name, &payload, &[]), Ok(any));
}

#[test]
fn entity_events_survive_storage_and_tools() {
    let change = EntityChange::new(ChangeKind::Create, clean(full()));
    let state = EntityState::default();
    let ctx = Context { now_ms: 9, edited_at_ms: 12, origin: Some(Uuid::from_u128(3)) };
    let outcome =
        decide_change(&consumption::CONTRACT, &state, &change, &Base::Current, &ctx).unwrap();
    let event = outcome.event().unwrap().clone();
    // No edit is made in the future.
    assert_eq!(event.edit().edited_at_ms, 9);
    let stored = event.encode();
    assert_eq!(EntityEvent::decode("consumption.created", &stored.payload, &[]), Ok(event.clone()));
    let tagged = serde_json::to_string(&event).unwrap();
    assert!(tagged.starts_with(r#"{"type":"consumption.created","data":"#), "{tagged}");
    assert_eq!(serde_json::from_str::<EntityEvent>(&tagged).unwrap(), event);
    assert!(EntityEvent::decode("consumption.eaten", "{}", &[]).is_err());
}

#[test]
fn a_consumption_goes_to_the_session_that_contains_it_and_started_last() {
    let candidate = |n: u128, status, start_ms, end_ms| Candidate {
        session_id: Uuid::from_u128(n),
        status,
        start_ms,
        end_ms,
    };
    let sessions = [
        candidate(1, Status::Completed, 0, 100),
        candidate(2, Status::Active, 50, 150),
        candidate(3, Status::Cancelled, 60, 160),
    ];
    let chosen = |at_ms| session_for(at_ms, sessions).map(|id| id.as_u128());
    assert_eq!(chosen(20), Some(1));
    assert_eq!(chosen(70), Some(2));
    assert_eq!(chosen(150), Some(2));
    assert_eq!(chosen(155), None);
    let mut state = EntityState::default();
    assert_eq!(dose_of(&state), None);
    state.create(&clean(full()), &Edit::default());
    assert_eq!(dose_of(&state).unwrap().at_ms, parse_instant("2026-03-01T20:00:00Z").unwrap());
}

#[test]
fn sessions_follow_what_happens_to_a_consumption() {
    use crate::consumption::session_effects;
    use crate::session::SessionCommand::{
        AttachConsumption, ConsumptionChanged, DetachConsumption,
    };
    let id = Uuid::from_u128(1);
    let mut free = EntityState::default();
    free.create(&clean(full()), &Edit::default());
    let with = |state: &EntityState, set: Value| {
        let mut state = state.clone();
        state.change(&clean(set), None, &Edit::default());
        state
    };
    let session = |n: u128| json!({"sessionId": Uuid::from_u128(n).to_string()});
    let (first, second) = (with(&free, session(1)), with(&free, session(2)));
    let effects = |before: &EntityState, after: &EntityState| session_effects(id, before, after);
    assert_eq!(effects(&EntityState::default(), &free), vec![]);
    assert!(matches!(effects(&free, &first)[..], [(_, AttachConsumption { .. })]));
    assert!(matches!(
        effects(&first, &second)[..],
        [(_, DetachConsumption { .. }), (_, AttachConsumption { .. })]
    ));
    let noted = with(&first, json!({"notes": "x"}));
    assert_eq!(effects(&first, &noted), vec![]);
    let longer = with(&first, json!({"durationMs": 9000}));
    assert!(matches!(effects(&first, &longer)[..], [(_, ConsumptionChanged { .. })]));
    let mut deleted = first.clone();
    deleted.delete(&Edit::default());
    assert!(matches!(effects(&first, &deleted)[..], [(_, DetachConsumption { .. })]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever arrives, normalising what was normalised changes nothing.
    #[test]
    fn normalising_is_idempotent(
        quantity in -5e8..5e8_f64, intensity in -1.0..12.0_f64, ms in -2_000_000_000_000..9_000_000_000_000_i64,
        duration in any::<i64>(), notes in ".{0,20}",
    ) {
        let payload = object(json!({
            "quantity": quantity, "intensity": intensity, "timestamp": format_instant(ms),
            "durationMs": duration, "notes": notes,
        }));
        if let Ok(once) = normalise(&consumption::CONTRACT, &payload) {
            let again: Map<String, Value> = once.fields.clone().into_iter().collect();
            let twice = normalise(&consumption::CONTRACT, &again).unwrap();
            prop_assert_eq!(once.fields, twice.fields);
        }
    }

    #[test]
    fn instants_survive_their_text(ms in -2_200_000_000_000..250_000_000_000_000_i64) {
        prop_assert_eq!(parse_instant(&format_instant(ms)), Some(ms));
    }
}
