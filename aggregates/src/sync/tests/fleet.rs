//! Several phones and one server, with a network that loses, doubles and delays.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::world::{Row, World};
use crate::AnyEvent;
use crate::consumption::CONTRACT as CONSUMPTIONS;
use crate::entity::{CONTRACTS, Context, EntityContract, EntityFact, Fields, time::format_instant};
use crate::session::CONTRACT as SESSIONS;
use crate::sync::desk::{Ack, Action, Ask, Effect, EntityKey};
use crate::sync::pull::{FeedRow, Page, types};
use crate::sync::push::{PushItem, order, parse};
use crate::sync::resolution_of;

const T0: i64 = 1_767_000_000_000;

impl FeedRow for Row {
    fn position(&self) -> i64 {
        self.position
    }
}

/// One edit a person made.
#[derive(Clone, Debug)]
struct Edit {
    key: EntityKey,
    /// The item as it is sent, every time the same.
    item: Value,
    /// The field and the value that nobody else ever wrote.
    wrote: Option<(String, Value)>,
    /// The version of the entity the phone was showing.
    saw: i64,
    device: usize,
    done: Option<Effect>,
}

/// What a phone holds of one entity.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    version: i64,
    deleted: bool,
    fields: Fields,
}

#[derive(Clone, Debug, Default)]
struct Phone {
    held: BTreeMap<EntityKey, Held>,
    /// Edits waiting to be sent, oldest first.
    outbox: Vec<usize>,
    cursors: BTreeMap<&'static str, i64>,
    /// What the server keeps of its acknowledgements: when, and what.
    acks: Vec<(i64, Ack)>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    RequestLost,
    ReplyLost,
    /// A copy stays in the network and arrives again later.
    Doubled,
    /// Only the copy in the network ever arrives.
    Delayed,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    Start {
        device: usize,
    },
    Consume {
        device: usize,
        session: Option<usize>,
    },
    Edit {
        device: usize,
        target: usize,
        whole: bool,
    },
    Status {
        device: usize,
        target: usize,
        status: usize,
    },
    Move {
        device: usize,
        target: usize,
        session: usize,
    },
    Delete {
        device: usize,
        target: usize,
    },
    Push {
        device: usize,
        items: usize,
        fate: Fate,
    },
    Deliver {
        which: usize,
    },
    /// With `busy`, the other phones push between the pages.
    Pull {
        device: usize,
        limit: usize,
        pages: usize,
        fate: Fate,
        busy: bool,
    },
    Wait {
        minutes: i64,
    },
}

pub struct Fleet {
    pub world: World,
    phones: Vec<Phone>,
    edits: Vec<Edit>,
    now_ms: i64,
    /// Requests that are still on the way: the phone and its edits.
    network: Vec<(usize, Vec<usize>)>,
    receipts: BTreeMap<(String, Vec<u8>), Effect>,
    dead: BTreeSet<EntityKey>,
}

impl Fleet {
    pub fn new(phones: usize) -> Self {
        Self {
            world: World::default(),
            phones: vec![Phone::default(); phones],
            edits: Vec::new(),
            now_ms: T0,
            network: Vec::new(),
            receipts: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    fn origin(device: usize) -> Uuid {
        Uuid::from_u128(0xD << 100 | device as u128)
    }

    pub fn step(&mut self, step: &Step) {
        self.now_ms += 1000;
        let phones = self.phones.len();
        match *step {
            Step::Start { device } => self.start(device % phones),
            Step::Consume { device, session } => self.consume(device % phones, session),
            Step::Edit { device, target, whole } => self.edit(device % phones, target, whole),
            Step::Status { device, target, status } => {
                let word = ["ACTIVE", "PAUSED", "COMPLETED", "CANCELLED"][status % 4];
                self.set(device % phones, &SESSIONS, target, "status", json!(word), false);
            }
            Step::Move { device, target, session } => {
                let device = device % phones;
                if let Some(session) = self.shown(device, &SESSIONS, session) {
                    let id = json!(session.id);
                    self.set(device, &CONSUMPTIONS, target, "sessionId", id, false);
                }
            }
            Step::Delete { device, target } => self.delete(device % phones, target),
            Step::Push { device, items, fate } => self.push(device % phones, items, fate),
            Step::Deliver { which } => {
                if !self.network.is_empty() {
                    let (device, edits) = self.network.remove(which % self.network.len());
                    self.receive(device, &edits);
                }
            }
            Step::Pull { device, limit, pages, fate, busy } => {
                self.pull(device % phones, limit, pages, fate, busy);
            }
            Step::Wait { minutes } => self.now_ms += minutes * 60_000,
        }
        self.check_tombstones();
    }

    /// The entities a phone shows, one of them chosen.
    fn shown(
        &self,
        device: usize,
        contract: &'static EntityContract,
        target: usize,
    ) -> Option<EntityKey> {
        let phone = &self.phones[device];
        let pending = phone.outbox.iter().map(|edit| self.edits[*edit].key);
        let held = phone.held.iter().filter(|(_, held)| !held.deleted).map(|(key, _)| *key);
        let all: BTreeSet<EntityKey> =
            held.chain(pending).filter(|key| key.contract() == contract).collect();
        (!all.is_empty()).then(|| all.into_iter().nth(target % 7)).flatten()
    }

    fn record(
        &mut self,
        device: usize,
        key: EntityKey,
        kind: &str,
        data: &Value,
        wrote: Option<(String, Value)>,
    ) {
        let number = self.edits.len();
        let phone = &self.phones[device];
        let saw = phone.held.get(&key).map_or(0, |held| held.version);
        // As the app does: every edit counts the version up, whatever the server has.
        let mine = phone.outbox.iter().filter(|edit| self.edits[**edit].key == key).count();
        let version = saw + 1 + i64::try_from(mine).expect("small");
        let item = json!({
            "entityType": key.contract().entity_type, "entityId": key.id, "changeType": kind,
            "clientId": key.id, "requestId": format!("edit-{number}"), "data": data,
            "version": if kind == "DELETE" { 1 } else { version },
            "timestamp": format_instant(self.now_ms),
        });
        self.edits.push(Edit { key, item, wrote, saw, device, done: None });
        self.phones[device].outbox.push(number);
    }

    fn start(&mut self, device: usize) {
        let id = Uuid::from_u128(0x5E55 << 64 | self.edits.len() as u128);
        let data = json!({ "clientSessionId": id,
            "sessionStartTimestamp": format_instant(self.now_ms) });
        self.record(device, EntityKey::new(&SESSIONS, id), "CREATE", &data, None);
    }

    fn consume(&mut self, device: usize, session: Option<usize>) {
        let id = Uuid::from_u128(0xC055 << 64 | self.edits.len() as u128);
        let mut data = json!({ "clientConsumptionId": id, "durationMs": 1000,
            "timestamp": format_instant(self.now_ms) });
        if let Some(session) = session.and_then(|s| self.shown(device, &SESSIONS, s)) {
            data["sessionId"] = json!(session.id);
        }
        self.record(device, EntityKey::new(&CONSUMPTIONS, id), "CREATE", &data, None);
    }

    fn edit(&mut self, device: usize, target: usize, whole: bool) {
        let contract = if target.is_multiple_of(2) { &SESSIONS } else { &CONSUMPTIONS };
        let note = json!(format!("note {}", self.edits.len()));
        self.set(device, contract, target / 2, "notes", note, whole);
    }

    fn set(
        &mut self,
        device: usize,
        contract: &'static EntityContract,
        target: usize,
        field: &str,
        value: Value,
        whole: bool,
    ) {
        let Some(key) = self.shown(device, contract, target) else { return };
        let mut data = Map::new();
        if whole {
            let held = self.phones[device].held.get(&key).map(|held| held.fields.clone());
            data.extend(held.unwrap_or_default());
            for edit in &self.phones[device].outbox {
                let edit = &self.edits[*edit];
                if edit.key == key {
                    data.extend(edit.item["data"].as_object().cloned().unwrap_or_default());
                }
            }
        }
        data.insert(field.to_owned(), value.clone());
        let wrote = (field == "notes").then(|| (field.to_owned(), value));
        self.record(device, key, "UPDATE", &Value::Object(data), wrote);
    }

    fn delete(&mut self, device: usize, target: usize) {
        let contract = if target.is_multiple_of(2) { &SESSIONS } else { &CONSUMPTIONS };
        if let Some(key) = self.shown(device, contract, target / 2) {
            self.record(device, key, "DELETE", &json!({}), None);
        }
    }

    fn push(&mut self, device: usize, items: usize, fate: Fate) {
        let waiting = &self.phones[device].outbox;
        let batch: Vec<usize> = waiting.iter().take(items.max(1)).copied().collect();
        if batch.is_empty() || fate == Fate::RequestLost {
            return;
        }
        if matches!(fate, Fate::Doubled | Fate::Delayed) {
            self.network.push((device, batch.clone()));
        }
        if fate == Fate::Delayed {
            return;
        }
        let answered = self.receive(device, &batch);
        if fate != Fate::ReplyLost {
            let phone = &mut self.phones[device];
            phone.outbox.retain(|edit| !answered.contains(edit));
        }
    }

    /// The server takes a push. Returns the edits that are done with.
    fn receive(&mut self, device: usize, batch: &[usize]) -> BTreeSet<usize> {
        let parsed: Vec<PushItem> =
            batch.iter().map(|edit| parse(&self.edits[*edit].item).expect("well formed")).collect();
        let acks = self.phones[device].acks.clone();
        let mut asks = Vec::new();
        let mut asked = Vec::new();
        let mut answered: BTreeSet<usize> = BTreeSet::new();
        for index in order(&parsed.iter().collect::<Vec<_>>()) {
            let item = &parsed[index];
            let receipt = (item.echo.request_text(), item.content());
            if self.receipts.contains_key(&receipt) {
                answered.insert(batch[index]);
                continue;
            }
            let edited_at_ms = item.edited_at(self.now_ms, 0);
            let seen = acks.iter().rev().filter(|(at, _)| *at <= edited_at_ms);
            asks.push(Ask {
                contract: item.contract,
                ids: item.ids.clone(),
                fresh_id: self.world.fresh_id(),
                action: Action::Change {
                    change: item.change.clone(),
                    base: item.base(seen.map(|(_, ack)| *ack).collect()),
                },
                ctx: Context {
                    now_ms: self.now_ms,
                    edited_at_ms,
                    origin: Some(Self::origin(device)),
                },
                request_id: Some(item.echo.request_text()),
            });
            asked.push((batch[index], receipt));
        }
        let (first, _) = self.world.decide(self.now_ms, &asks);
        let (second, _) = self.world.decide(self.now_ms, &asks);
        assert_eq!(first, second, "sync invariant 1: deciding is a pure function");
        let verdicts = self.world.run(self.now_ms, &asks);
        assert_eq!(verdicts.len(), asked.len(), "sync invariant 22: one answer an item");
        for ((edit, receipt), verdict) in asked.into_iter().zip(verdicts) {
            if let Ok(verdict) = verdict {
                self.receipts.insert(receipt, verdict.effect);
                self.edits[edit].done = Some(verdict.effect);
                if verdict.effect == Effect::Deleted {
                    self.dead.insert(verdict.key);
                }
                answered.insert(edit);
            }
        }
        answered
    }

    /// One run of pages; it ends early where it is cut off.
    fn pull(&mut self, device: usize, limit: usize, pages: usize, fate: Fate, busy: bool) -> bool {
        if fate == Fate::RequestLost || fate == Fate::Delayed {
            return false;
        }
        let mut paging = None;
        let mut cursors = self.phones[device].cursors.clone();
        let mut delivered: BTreeSet<EntityKey> = BTreeSet::new();
        let known: BTreeSet<EntityKey> = self.phones[device].held.keys().copied().collect();
        for number in 0..pages.max(1) {
            let before = self.versions();
            let positions = CONTRACTS.into_iter().map(|contract| {
                (contract.entity_type, cursors.get(contract.entity_type).copied().unwrap_or(0))
            });
            let head = self.world.position;
            let mut page: Page<Row> =
                Page::new(types(None), positions.collect(), head, paging, limit);
            while let Some(fetch) = page.wants() {
                let rows = self.world.rows(fetch.contract, fetch.after);
                let rows = rows.into_iter().filter(|row| row.position <= fetch.upto);
                page = page.give(rows.take(fetch.limit).collect());
            }
            if number == 0 {
                let ack = page.acknowledges().expect("all types are asked for");
                self.phones[device].acks.push((self.now_ms, ack));
            }
            let end = page.finish();
            assert!(end.rows.len() <= limit);
            if fate == Fate::ReplyLost && number + 1 == pages.max(1) {
                return false;
            }
            for (_, row) in &end.rows {
                self.hold(device, row);
                delivered.insert(row.key);
                self.check_parent(row, &delivered, &known);
            }
            for (entity_type, position) in end.positions {
                let before = cursors.insert(entity_type, position).unwrap_or(0);
                assert!(before <= position, "sync invariant 14: cursors never go back");
            }
            // What is applied is stored, and acknowledged at the beginning of the next run.
            self.phones[device].cursors.clone_from(&cursors);
            paging = end.paging;
            if paging.is_none() {
                for (key, version) in before {
                    let held = self.phones[device].held.get(&key).map_or(0, |held| held.version);
                    assert!(held >= version, "sync invariant 13: nothing is skipped");
                }
                return true;
            }
            if busy {
                self.now_ms += 1000;
                for other in (0..self.phones.len()).filter(|other| *other != device) {
                    self.push(other, 2, Fate::Arrives);
                }
            }
        }
        false
    }

    fn versions(&self) -> Vec<(EntityKey, i64)> {
        let keys = CONTRACTS.into_iter().flat_map(|contract| self.world.keys(contract));
        keys.map(|key| (key, self.world.entity(key).expect("listed").state().version)).collect()
    }

    fn hold(&mut self, device: usize, row: &Row) {
        let entity = self.world.entity(row.key).expect("a row of an entity");
        let held = Held {
            version: row.version,
            deleted: row.deleted,
            fields: if row.deleted { Fields::new() } else { entity.visible_fields() },
        };
        self.phones[device].held.insert(row.key, held);
    }

    fn check_parent(
        &self,
        row: &Row,
        delivered: &BTreeSet<EntityKey>,
        known: &BTreeSet<EntityKey>,
    ) {
        let entity = self.world.entity(row.key).expect("a row of an entity");
        let session = entity.state().text("sessionId").filter(|_| !row.deleted);
        let Some(session) = session.and_then(|id| Uuid::parse_str(id).ok()) else { return };
        let parent = EntityKey::new(&SESSIONS, session);
        if self.world.entity(parent).is_some() {
            let there = delivered.contains(&parent) || known.contains(&parent);
            assert!(there, "sync invariant 18: parents come before children");
        }
    }

    fn check_tombstones(&self) {
        for key in &self.dead {
            let deleted = self.world.entity(*key).is_some_and(|entity| entity.state().deleted);
            assert!(deleted, "sync invariant 11: a delete is final");
        }
    }

    /// Lets everything arrive, then compares.
    pub fn quiesce(&mut self) {
        while let Some((device, edits)) = self.network.pop() {
            self.receive(device, &edits);
        }
        for _ in 0..4 {
            for device in 0..self.phones.len() {
                self.now_ms += 1000;
                self.push(device, usize::MAX, Fate::Arrives);
                self.pull(device, 50, usize::MAX, Fate::Arrives, false);
            }
        }
        for (device, phone) in self.phones.iter().enumerate() {
            assert!(phone.outbox.is_empty(), "phone {device} is done");
        }
        self.check_convergence();
        self.check_nothing_lost();
        self.check_terminal();
        self.check_replay();
    }

    fn check_convergence(&self) {
        let mut expected = BTreeMap::new();
        for (key, version) in self.versions() {
            let entity = self.world.entity(key).expect("listed");
            let deleted = entity.state().deleted;
            let fields = if deleted { Fields::new() } else { entity.visible_fields() };
            expected.insert(key, Held { version, deleted, fields });
        }
        for phone in &self.phones {
            assert_eq!(phone.held, expected, "sync invariant 10: all devices agree");
        }
    }

    fn check_nothing_lost(&self) {
        for edit in &self.edits {
            let (Some(_), Some((field, value))) = (edit.done, &edit.wrote) else { continue };
            let events = &self.world.streams[&edit.key.stream()];
            let mut setter: Option<(i64, Option<Uuid>)> = None;
            let mut found = false;
            for (sequence, (_, event)) in (1..).zip(events) {
                let resolution = resolution_of(event).and_then(|r| r.fields.get(field));
                let (set, origin) = written(event);
                if set.get(field) == Some(value) {
                    found = true;
                    let unseen = setter.filter(|(version, by)| {
                        *version > edit.saw && *by != Some(Self::origin(edit.device))
                    });
                    assert!(
                        unseen.is_none() || resolution.is_some(),
                        "an unseen edit is overwritten without a word: {edit:?}"
                    );
                }
                if resolution.is_some_and(|r| r.incoming == *value) {
                    found = true;
                }
                if set.contains_key(field) {
                    setter = Some((sequence, origin));
                }
            }
            let aside = self.world.recovery().into_iter().any(|event| match event {
                AnyEvent::SyncRecovery(event) => {
                    let crate::entity::SyncRecoveryEvent::Superseded(data) = event.as_ref();
                    data.payload.get(field) == Some(value)
                }
                _ => false,
            });
            assert!(found || aside, "sync invariant 12: {edit:?} is accounted for");
        }
    }

    fn check_terminal(&self) {
        for key in self.world.keys(&SESSIONS) {
            let mut entity = crate::entity::AnyEntity::new(&SESSIONS);
            let mut terminal: Option<String> = None;
            for (_, event) in &self.world.streams[&key.stream()] {
                entity.apply(event);
                let status = entity.state().text("status").unwrap_or_default().to_owned();
                if let Some(terminal) = &terminal {
                    assert_eq!(terminal, &status, "sync invariant 5: terminal is terminal");
                }
                if status == "COMPLETED" || status == "CANCELLED" {
                    terminal = Some(status);
                }
            }
        }
    }

    fn check_replay(&mut self) {
        // Whatever time asks for is no replay.
        self.world.run(self.now_ms, &[]);
        let position = self.world.position;
        for edit in 0..self.edits.len() {
            let device = self.edits[edit].device;
            let effect = self.edits[edit].done;
            let answered = self.receive(device, &[edit]);
            assert!(answered.contains(&edit) || effect.is_none());
        }
        assert_eq!(self.world.position, position, "sync invariant 23: a replay writes nothing");
    }
}

/// The fields an event set, and the installation that set them.
fn written(event: &AnyEvent) -> (Fields, Option<Uuid>) {
    use crate::session::SessionEvent;
    match event {
        AnyEvent::Session(event) => {
            let set = match event.as_ref() {
                SessionEvent::Started(data) => data.fields.clone(),
                SessionEvent::Updated(data) => data.set.clone(),
                SessionEvent::Paused(data) => data.set.clone(),
                SessionEvent::Resumed(data) => data.set.clone(),
                SessionEvent::Ended(data) => data.set.clone(),
                SessionEvent::Cancelled(data) => data.set.clone(),
                _ => Fields::new(),
            };
            (set, event.edit().origin)
        }
        AnyEvent::Entity(event) => {
            let set = match &event.fact {
                EntityFact::Created(data) => data.fields.clone(),
                EntityFact::Updated(data) => data.set.clone(),
                EntityFact::Deleted(_) => Fields::new(),
            };
            (set, event.edit().origin)
        }
        _ => (Fields::new(), None),
    }
}
