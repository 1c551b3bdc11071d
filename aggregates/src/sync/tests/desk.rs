//! Consequences, one by one.

use serde_json::{Value, json};
use uuid::Uuid;

use super::world::{World, ask};
use crate::AnyEvent;
use crate::consumption::CONTRACT as CONSUMPTIONS;
use crate::entity::{
    AnyEntity, ChangeKind, Context, EntityContract, SupersededChange, SyncRecoveryEvent,
    time::format_instant,
};
use crate::session::{CONTRACT as SESSIONS, Session, SessionCommand, Status};
use crate::sync::desk::{Action, Ask, AskError, BasePoint, Effect, EntityKey};

const MINUTE: i64 = 60_000;
const T0: i64 = 1_767_000_000_000;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn key(contract: &'static EntityContract, n: u128) -> EntityKey {
    EntityKey::new(contract, id(n))
}

fn start(world: &mut World, n: u128, at: i64) -> Ask {
    let fields = json!({ "clientSessionId": id(n).to_string(),
        "sessionStartTimestamp": format_instant(at) });
    ask(world, &SESSIONS, ChangeKind::Create, &id(n).to_string(), &fields, at)
}

fn consume(world: &mut World, n: u128, at: i64, session: Value) -> Ask {
    let mut fields = json!({ "clientConsumptionId": id(n).to_string(), "durationMs": 1000,
        "timestamp": format_instant(at) });
    if !session.is_null() {
        fields["sessionId"] = session;
    }
    ask(world, &CONSUMPTIONS, ChangeKind::Create, &id(n).to_string(), &fields, at)
}

fn update(world: &mut World, contract: &'static EntityContract, n: u128, fields: &Value) -> Ask {
    ask(world, contract, ChangeKind::Update, &id(n).to_string(), fields, T0 + MINUTE)
}

fn delete(world: &mut World, contract: &'static EntityContract, n: u128) -> Ask {
    ask(world, contract, ChangeKind::Delete, &id(n).to_string(), &json!({}), T0 + MINUTE)
}

fn command(world: &mut World, n: u128, command: SessionCommand, at: i64) -> Ask {
    let blank = ask(world, &SESSIONS, ChangeKind::Update, &id(n).to_string(), &json!({}), at);
    Ask { action: Action::Session(command), ..blank }
}

fn session(world: &World, n: u128) -> Session {
    match world.entity(key(&SESSIONS, n)) {
        Some(AnyEntity::Session(session)) => *session,
        other => panic!("no session: {other:?}"),
    }
}

fn session_of(world: &World, n: u128) -> Option<String> {
    let entity = world.entity(key(&CONSUMPTIONS, n)).expect("a consumption");
    entity.state().text("sessionId").map(str::to_owned)
}

#[test]
fn a_consumption_falls_into_the_session_that_holds_its_time() {
    let mut world = World::default();
    let asks = [start(&mut world, 1, T0), consume(&mut world, 2, T0 + MINUTE, Value::Null)];
    world.run(T0 + MINUTE, &asks);
    assert_eq!(session_of(&world, 2), Some(id(1).to_string()));
    assert_eq!(session(&world, 1).derived().event_count, 1);
    let outside = consume(&mut world, 3, T0 - 5 * MINUTE, Value::Null);
    world.run(T0 + MINUTE, &[outside]);
    assert_eq!(session_of(&world, 3), None);
}

#[test]
fn a_corrected_time_moves_a_lone_consumption_into_a_session() {
    let mut world = World::default();
    let asks = [start(&mut world, 1, T0), consume(&mut world, 2, T0 - 5 * MINUTE, Value::Null)];
    world.run(T0 + MINUTE, &asks);
    let moved = json!({ "timestamp": format_instant(T0 + 1000) });
    let moved = update(&mut world, &CONSUMPTIONS, 2, &moved);
    world.run(T0 + 2 * MINUTE, &[moved]);
    assert_eq!(session_of(&world, 2), Some(id(1).to_string()));
}

#[test]
fn an_edit_and_a_deletion_of_a_consumption_reach_its_session() {
    let mut world = World::default();
    let asks = [start(&mut world, 1, T0), consume(&mut world, 2, T0, json!(id(1)))];
    world.run(T0, &asks);
    let longer = update(&mut world, &CONSUMPTIONS, 2, &json!({ "durationMs": 5000 }));
    world.run(T0 + MINUTE, &[longer]);
    assert_eq!(session(&world, 1).derived().total_duration_ms, 5000);
    let gone = delete(&mut world, &CONSUMPTIONS, 2);
    world.run(T0 + MINUTE, &[gone]);
    assert_eq!(session(&world, 1).derived().event_count, 0);
}

#[test]
fn a_consumption_moves_between_sessions() {
    let mut world = World::default();
    let asks = [
        start(&mut world, 1, T0 - 200 * MINUTE),
        start(&mut world, 2, T0),
        consume(&mut world, 3, T0, json!(id(1))),
    ];
    world.run(T0, &asks);
    let moved = update(&mut world, &CONSUMPTIONS, 3, &json!({ "sessionId": id(2) }));
    world.run(T0 + MINUTE, &[moved]);
    assert!(session(&world, 1).doses.is_empty());
    assert_eq!(session(&world, 2).doses.len(), 1);
}

#[test]
fn deleting_a_session_detaches_its_consumptions_and_deletes_none() {
    let mut world = World::default();
    let asks = [
        start(&mut world, 1, T0),
        consume(&mut world, 2, T0, json!(id(1))),
        consume(&mut world, 3, T0, json!(id(1))),
    ];
    world.run(T0, &asks);
    let gone = delete(&mut world, &SESSIONS, 1);
    let verdicts = world.run(T0 + MINUTE, &[gone]);
    assert_eq!(verdicts[0].as_ref().expect("accepted").effect, Effect::Deleted);
    for n in [2, 3] {
        assert!(world.entity(key(&CONSUMPTIONS, n)).expect("there").state().is_live());
        assert_eq!(session_of(&world, n), None);
    }
}

#[test]
fn the_session_that_started_last_stays_open() {
    let mut world = World::default();
    let first = start(&mut world, 1, T0);
    world.run(T0, &[first]);
    let second = start(&mut world, 2, T0 + 10 * MINUTE);
    world.run(T0 + 10 * MINUTE, &[second]);
    assert_eq!(session(&world, 1).status(), Status::Completed);
    assert_eq!(session(&world, 1).ended_at_ms, Some(T0 + 10 * MINUTE));
    // One that began before and arrives late does not close the later one.
    let mut late = start(&mut world, 3, T0 + 5 * MINUTE);
    late.ctx.now_ms = T0 + 12 * MINUTE;
    world.run(T0 + 12 * MINUTE, &[late]);
    assert_eq!(session(&world, 2).status(), Status::Active);
    assert_eq!(session(&world, 3).status(), Status::Completed);
    // Unless somebody says to start it.
    let fields = json!({ "clientSessionId": "four",
        "sessionStartTimestamp": format_instant(T0 + MINUTE) });
    let fields = crate::entity::normalise(&SESSIONS, fields.as_object().expect("an object"));
    let fields = fields.expect("valid").fields;
    let now = command(&mut world, 4, SessionCommand::Start { fields }, T0 + 13 * MINUTE);
    world.run(T0 + 13 * MINUTE, &[now]);
    assert_eq!(session(&world, 2).status(), Status::Completed);
    assert_eq!(session(&world, 4).status(), Status::Active);
}

#[test]
fn an_idle_session_ends_at_its_deadline_with_the_next_command() {
    let mut world = World::default();
    let asks = [start(&mut world, 1, T0), consume(&mut world, 2, T0 + MINUTE, json!(id(1)))];
    world.run(T0 + MINUTE, &asks);
    let later = consume(&mut world, 3, T0 + 300 * MINUTE, Value::Null);
    world.run(T0 + 300 * MINUTE, &[later]);
    let ended = session(&world, 1);
    assert_eq!(ended.status(), Status::Completed);
    assert_eq!(ended.ended_at_ms, Some(T0 + 61 * MINUTE));
    assert_eq!(session_of(&world, 3), None);
}

#[test]
fn a_late_consumption_keeps_a_session_alive_before_time_ends_it() {
    let mut world = World::default();
    let first = start(&mut world, 1, T0);
    world.run(T0, &[first]);
    let mut late = consume(&mut world, 2, T0 + 50 * MINUTE, json!(id(1)));
    late.ctx.now_ms = T0 + 65 * MINUTE;
    world.run(T0 + 65 * MINUTE, &[late]);
    assert_eq!(session(&world, 1).status(), Status::Active);
}

#[test]
fn a_command_to_an_idle_session_meets_one_that_has_ended() {
    let mut world = World::default();
    let first = start(&mut world, 1, T0);
    world.run(T0, &[first]);
    let pause = command(&mut world, 1, SessionCommand::Pause, T0 + 90 * MINUTE);
    let verdicts = world.run(T0 + 90 * MINUTE, &[pause]);
    assert!(matches!(verdicts[0], Err(AskError::Session(_))));
    assert_eq!(session(&world, 1).status(), Status::Completed);
}

#[test]
fn sync_27_a_child_that_arrives_before_its_parent_heals() {
    let mut world = World::default();
    let children =
        [consume(&mut world, 2, T0, json!(id(1))), consume(&mut world, 3, T0, json!(id(1)))];
    for child in children {
        world.run(T0, &[child]);
    }
    assert_eq!(session_of(&world, 2), Some(id(1).to_string()), "the raw id is kept");
    let parent = start(&mut world, 1, T0);
    world.run(T0, &[parent]);
    assert_eq!(session(&world, 1).doses.len(), 2);
}

#[test]
fn sync_27_a_reference_heals_to_another_id_too() {
    let mut world = World::default();
    world.foreign.insert(id(1));
    let child = consume(&mut world, 2, T0, json!(id(1)));
    world.run(T0, &[child]);
    let parent = start(&mut world, 1, T0);
    let verdicts = world.run(T0, &[parent]);
    let server_id = verdicts[0].as_ref().expect("accepted").key.id;
    assert_ne!(server_id, id(1), "an id of somebody else is not taken");
    assert_eq!(session_of(&world, 2), Some(server_id.to_string()));
    let later = consume(&mut world, 3, T0, json!(id(1)));
    world.run(T0, &[later]);
    assert_eq!(session_of(&world, 3), Some(server_id.to_string()));
}

#[test]
fn sync_27_who_waits_and_who_arrives_at_once_do_not_miss_each_other() {
    let mut world = World::default();
    let earlier = consume(&mut world, 4, T0, json!(id(1)));
    for waiting_before in [false, true] {
        let mut world = world.clone();
        if waiting_before {
            world.run(T0, std::slice::from_ref(&earlier));
        }
        let child = consume(&mut world, 2, T0, json!(id(1)));
        let parent = start(&mut world, 1, T0);
        let (of_child, _) = world.decide(T0, std::slice::from_ref(&child));
        let (of_parent, _) = world.decide(T0, &[parent]);
        world.append(&of_parent[0]).expect("the first");
        assert!(world.append(&of_child[0]).is_err(), "the second has to look again");
        world.run(T0, &[child]);
        assert_eq!(session(&world, 1).doses.len(), if waiting_before { 2 } else { 1 });
    }
    world.check();
}

#[test]
fn sync_28_a_known_client_id_never_makes_a_second_entity() {
    let mut world = World::default();
    let first = consume(&mut world, 2, T0, Value::Null);
    world.run(T0, &[first]);
    // The app was installed anew: another id, the same client id in the fields.
    let fields = json!({ "clientConsumptionId": id(2).to_string(), "durationMs": 1000,
        "timestamp": format_instant(T0) });
    let again = ask(&mut world, &CONSUMPTIONS, ChangeKind::Create, &id(9).to_string(), &fields, T0);
    let verdicts = world.run(T0, &[again]);
    let verdict = verdicts[0].as_ref().expect("accepted");
    assert_eq!((verdict.key, verdict.effect), (key(&CONSUMPTIONS, 2), Effect::Unchanged));
    // The new id is known from here on.
    let by_new = update(&mut world, &CONSUMPTIONS, 9, &json!({ "notes": "later" }));
    let verdicts = world.run(T0, &[by_new]);
    assert_eq!(verdicts[0].as_ref().expect("accepted").key, key(&CONSUMPTIONS, 2));
    assert_eq!(world.keys(&CONSUMPTIONS).len(), 1);
}

#[test]
fn sync_11_an_edit_after_a_delete_is_put_aside() {
    let mut world = World::default();
    let first = consume(&mut world, 2, T0, Value::Null);
    let gone = delete(&mut world, &CONSUMPTIONS, 2);
    world.run(T0, &[first.clone(), gone]);
    let late = update(&mut world, &CONSUMPTIONS, 2, &json!({ "notes": "late" }));
    let verdicts = world.run(T0 + MINUTE, &[late]);
    assert_eq!(verdicts[0].as_ref().expect("accepted").effect, Effect::Superseded);
    let [AnyEvent::SyncRecovery(kept)] = &world.recovery()[..] else { panic!("one is kept") };
    let SyncRecoveryEvent::Superseded(kept) = &**kept;
    assert_eq!((kept.change, kept.stored_version), (Some(SupersededChange::Update), Some(2)));
    let verdicts = world.run(T0 + MINUTE, &[first]);
    assert!(world.entity(key(&CONSUMPTIONS, 2)).expect("a tombstone").state().deleted);
    assert_eq!(verdicts[0].as_ref().expect("accepted").key, key(&CONSUMPTIONS, 2));
}

#[test]
fn sync_26_a_refused_item_leaves_the_others_alone() {
    let mut world = World::default();
    let asks = [
        start(&mut world, 1, T0),
        update(&mut world, &CONSUMPTIONS, 7, &json!({ "notes": "of nobody" })),
        consume(&mut world, 2, T0, json!(id(1))),
        consume(&mut world, 3, T0 - 100 * MINUTE, Value::Null),
    ];
    let (drafts, verdicts) = world.decide(T0, &asks);
    assert_eq!(verdicts[1], Err(AskError::Unknown));
    let items: Vec<_> = drafts.iter().map(|draft| draft.items.clone()).collect();
    assert_eq!(items, vec![vec![0, 2], vec![3]], "what shares a stream is one draft");
    assert_eq!(verdicts[0].as_ref().expect("accepted").version, 2);
}

#[test]
fn a_reference_to_a_deleted_or_cancelled_session_is_kept_and_not_counted() {
    let mut world = World::default();
    let asks = [start(&mut world, 1, T0), start(&mut world, 2, T0 + MINUTE)];
    world.run(T0 + MINUTE, &asks);
    let cancel = command(&mut world, 2, SessionCommand::Cancel, T0 + MINUTE);
    let gone = delete(&mut world, &SESSIONS, 1);
    world.run(T0 + MINUTE, &[cancel, gone]);
    let to_deleted = consume(&mut world, 3, T0 + MINUTE, json!(id(1)));
    let to_cancelled = consume(&mut world, 4, T0 + MINUTE, json!(id(2)));
    let verdicts = world.run(T0 + MINUTE, &[to_deleted, to_cancelled]);
    assert!(verdicts.iter().all(Result::is_ok));
    assert_eq!(session_of(&world, 3), Some(id(1).to_string()));
    assert!(session(&world, 2).doses.is_empty());
}

#[test]
fn sync_02_the_same_change_twice_is_the_same_change_once() {
    let mut world = World::default();
    let asks = [start(&mut world, 1, T0), consume(&mut world, 2, T0, json!(id(1)))];
    let edit = update(&mut world, &CONSUMPTIONS, 2, &json!({ "notes": "once", "durationMs": 7 }));
    let gone = delete(&mut world, &SESSIONS, 1);
    world.run(T0, &asks);
    for ask in [edit, gone] {
        world.run(T0 + MINUTE, std::slice::from_ref(&ask));
        let position = world.position;
        let verdicts = world.run(T0 + MINUTE, &[ask]);
        assert_eq!(verdicts[0].as_ref().expect("accepted").effect, Effect::Unchanged);
        assert_eq!(world.position, position);
    }
}

/// The same ask, made by a phone that has acknowledged nothing.
fn by(ask: Ask, phone: u128, at: i64) -> Ask {
    let ctx = Context { now_ms: at, edited_at_ms: at, origin: Some(id(phone)) };
    let Action::Change { change, .. } = ask.action else { panic!("a change") };
    let base = BasePoint::Seen { acks: Vec::new(), below: None };
    Ask { action: Action::Change { change, base }, ctx, ..ask }
}

#[test]
fn sync_12_a_phone_has_seen_what_it_made_itself() {
    let mut world = World::default();
    let fields = json!({ "clientSessionId": id(1).to_string(), "notes": "mine",
        "sessionStartTimestamp": format_instant(T0) });
    let create = ask(&mut world, &SESSIONS, ChangeKind::Create, &id(1).to_string(), &fields, T0);
    world.run(T0, &[by(create, 0xD1, T0)]);
    let theirs = update(&mut world, &SESSIONS, 1, &json!({ "notes": "theirs" }));
    let seen = |ask: Ask| {
        let Action::Change { change, .. } = ask.action else { panic!("a change") };
        Ask { action: Action::Change { change, base: BasePoint::Version(1) }, ..ask }
    };
    world.run(T0 + MINUTE, &[seen(by(theirs, 0xD2, T0 + MINUTE))]);
    // The whole entity again, with nothing but the status changed.
    let whole = json!({ "notes": "mine", "status": "PAUSED" });
    let whole = update(&mut world, &SESSIONS, 1, &whole);
    let verdicts = world.run(T0 + 2 * MINUTE, &[by(whole, 0xD1, T0 + 2 * MINUTE)]);
    assert_eq!(verdicts[0].as_ref().expect("accepted").effect, Effect::Merged);
    let session = session(&world, 1);
    assert_eq!(session.entity.text("notes"), Some("theirs"));
    assert_eq!(session.status(), Status::Paused);
}

#[test]
fn a_phone_has_not_seen_what_it_made_later() {
    let mut world = World::default();
    let create = start(&mut world, 1, T0);
    world.run(T0, &[by(create, 0xD1, T0)]);
    let later = update(&mut world, &SESSIONS, 1, &json!({ "rating": 4 }));
    world.run(T0 + 3 * MINUTE, &[by(later, 0xD1, T0 + 3 * MINUTE)]);
    let earlier = update(&mut world, &SESSIONS, 1, &json!({ "rating": 2 }));
    let verdicts = world.run(T0 + 3 * MINUTE, &[by(earlier, 0xD1, T0 + MINUTE)]);
    assert_eq!(verdicts[0].as_ref().expect("accepted").effect, Effect::Superseded);
}

#[test]
fn a_start_far_in_the_future_does_not_end_the_live_session_for_good() {
    let mut world = World::default();
    let ahead = start(&mut world, 1, T0 + 600 * MINUTE);
    let ctx = Context { now_ms: T0, edited_at_ms: T0, origin: None };
    world.run(T0, &[Ask { ctx, ..ahead }]);
    let next = start(&mut world, 2, T0 + 10 * MINUTE);
    world.run(T0 + 10 * MINUTE, &[next]);
    assert_eq!(session(&world, 1).status(), Status::Completed);
    assert_eq!(session(&world, 2).status(), Status::Active);
}
