//! An in-memory log for one person: what the store and its tables are to the server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::entity::{
    AnyEntity, ChangeKind, Context, EntityChange, EntityContract, find_contract_of_stream,
    normalise,
};
use crate::sync::desk::{
    Action, Ask, AskError, BasePoint, ClaimAction, ClaimName, Closing, Decision, Desk, Draft,
    EntityKey, Fact, History, Known, Need, Verdict,
};
use crate::{AnyEvent, StreamId, UserId};

pub const USER: UserId = UserId(Uuid::from_u128(0xA11CE));

/// One row of the feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: EntityKey,
    pub position: i64,
    pub version: i64,
    pub deleted: bool,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub streams: BTreeMap<StreamId, Vec<(i64, AnyEvent)>>,
    pub names: BTreeMap<ClaimName, EntityKey>,
    pub foreign: BTreeSet<Uuid>,
    pub position: i64,
    fresh: u128,
}

/// Why a draft was not written.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost;

impl World {
    pub fn fresh_id(&mut self) -> Uuid {
        self.fresh += 1;
        Uuid::from_u128(0xF << 120 | self.fresh)
    }

    pub fn entity(&self, key: EntityKey) -> Option<AnyEntity> {
        let events = self.streams.get(&key.stream())?;
        let mut entity = AnyEntity::new(key.contract());
        for (_, event) in events {
            entity.apply(event);
        }
        Some(entity)
    }

    pub fn keys(&self, contract: &'static EntityContract) -> Vec<EntityKey> {
        let of_type = self.streams.keys().filter(|id| id.aggregate_type == contract.aggregate_type);
        let id = |stream: &StreamId| Uuid::parse_str(&stream.aggregate_id).ok();
        of_type.filter_map(id).map(|id| EntityKey::new(contract, id)).collect()
    }

    /// The feed: one row an entity, in the order of its last change.
    pub fn rows(&self, contract: &'static EntityContract, after: i64) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .keys(contract)
            .into_iter()
            .filter_map(|key| {
                let entity = self.entity(key)?;
                let position = self.streams.get(&key.stream())?.last()?.0;
                let state = entity.state();
                let row = Row { key, position, version: state.version, deleted: state.deleted };
                (position > after).then_some(row)
            })
            .collect();
        rows.sort_by_key(|row| row.position);
        rows
    }

    pub fn recovery(&self) -> Vec<&AnyEvent> {
        let stream = StreamId::new("sync_recovery", USER);
        self.streams.get(&stream).into_iter().flatten().map(|(_, event)| event).collect()
    }

    fn open_session(&self) -> Option<Uuid> {
        self.names.get(&ClaimName::OpenSession).map(|key| key.id)
    }

    pub fn tell(&self, need: &Need) -> Vec<Fact> {
        vec![match need {
            Need::Alias(alias) => {
                let held = |slot| {
                    self.names.get(&ClaimName::Alias { alias: alias.clone(), slot }).copied()
                };
                Fact::Alias(alias.clone(), (0..).map_while(held).collect())
            }
            Need::Entity(key) => self.known(*key),
            Need::History(key) => {
                let events = self.streams.get(&key.stream()).cloned().unwrap_or_default();
                Fact::History(*key, History::Events(events))
            }
            Need::OpenSession => Fact::OpenSession(self.open_session()),
            Need::RecentSessions => {
                let keys = self.keys(&crate::session::CONTRACT);
                Fact::RecentSessions(keys.into_iter().map(|key| key.id).collect())
            }
            Need::Recovery => Fact::Recovery(i64::try_from(self.recovery().len()).expect("small")),
        }]
    }

    fn known(&self, key: EntityKey) -> Fact {
        let known = if self.foreign.contains(&key.id) {
            Known::Foreign
        } else {
            match self.entity(key) {
                None => Known::Absent,
                Some(entity) => {
                    let position = self.streams[&key.stream()].last().expect("not empty").0;
                    Known::Stored { entity, position }
                }
            }
        };
        Fact::Entity(key, known)
    }

    /// Decides asks on this log without writing.
    pub fn decide(
        &self,
        now_ms: i64,
        asks: &[Ask],
    ) -> (Vec<Draft>, Vec<Result<Verdict, AskError>>) {
        let mut desk = Desk::new(USER, now_ms);
        for (item, ask) in asks.iter().enumerate() {
            loop {
                match desk.decide(item, ask) {
                    Decision::Done => break,
                    Decision::Needs(needs) => self.supply(&mut desk, &needs),
                }
            }
        }
        loop {
            match desk.close() {
                Closing::Done(closed) => {
                    return (closed.drafts, closed.verdicts.into_values().collect());
                }
                Closing::Needs(needs) => self.supply(&mut desk, &needs),
            }
        }
    }

    fn supply(&self, desk: &mut Desk, needs: &BTreeSet<Need>) {
        assert!(!needs.is_empty(), "a desk that needs nothing must go on");
        for need in needs {
            for fact in self.tell(need) {
                desk.learn(fact);
            }
        }
    }

    /// Appends a draft whole, or not at all where the log has moved on.
    pub fn append(&mut self, draft: &Draft) -> Result<(), Lost> {
        for stream in &draft.streams {
            let stands = self.streams.get(&stream.stream).map_or(0, Vec::len);
            if i64::try_from(stands).expect("small") != stream.expected {
                return Err(Lost);
            }
        }
        for claim in &draft.claims {
            let held = self.names.get(&claim.name).copied();
            let fits = match claim.action {
                ClaimAction::Take(_) => held.is_none(),
                ClaimAction::Release(from) | ClaimAction::Pass { from, .. } => held == Some(from),
            };
            if !fits {
                return Err(Lost);
            }
        }
        for stream in &draft.streams {
            for event in &stream.events {
                self.position += 1;
                let events = self.streams.entry(stream.stream.clone()).or_default();
                events.push((self.position, event.event.clone()));
            }
            if let (Some(key), Some(state)) = (stream.key, &stream.state) {
                let folded = self.entity(key).expect("just written");
                assert_eq!(&folded.to_json(), state, "the state is the fold of the events");
            }
        }
        for claim in &draft.claims {
            match claim.action {
                ClaimAction::Take(to) | ClaimAction::Pass { to, .. } => {
                    self.names.insert(claim.name.clone(), to);
                }
                ClaimAction::Release(_) => {
                    self.names.remove(&claim.name);
                }
            }
        }
        Ok(())
    }

    /// Decides and writes.
    pub fn run(&mut self, now_ms: i64, asks: &[Ask]) -> Vec<Result<Verdict, AskError>> {
        let (drafts, verdicts) = self.decide(now_ms, asks);
        for draft in &drafts {
            self.append(draft).expect("nobody else writes");
        }
        self.check();
        verdicts
    }

    /// What must hold after every write.
    pub fn check(&self) {
        let mut open = Vec::new();
        for key in self.keys(&crate::session::CONTRACT) {
            let Some(AnyEntity::Session(session)) = self.entity(key) else { continue };
            if session.is_open() {
                open.push(key.id);
            }
            // Sync invariant 7.
            if session.entity.is_live() && session.status().as_str() != "CANCELLED" {
                let mut expected = BTreeMap::new();
                for consumption in self.keys(&crate::consumption::CONTRACT) {
                    let entity = self.entity(consumption).expect("listed");
                    if entity.state().is_live()
                        && entity.state().text("sessionId") == Some(&key.id.to_string())
                    {
                        let dose = crate::consumption::dose_of(entity.state()).expect("created");
                        expected.insert(consumption.id, dose);
                    }
                }
                assert_eq!(session.doses, expected, "sync invariant 7: derived from consumptions");
            }
        }
        assert!(open.len() <= 1, "one session is open at most");
        assert_eq!(open.first().copied(), self.open_session());
        for (stream, events) in &self.streams {
            if let Some(contract) = find_contract_of_stream(&stream.aggregate_type) {
                let key = EntityKey::new(contract, stream.aggregate_id.parse().expect("an id"));
                let version = self.entity(key).expect("listed").state().version;
                // Sync invariant 9.
                assert_eq!(usize::try_from(version), Ok(events.len()), "one event a version");
            }
        }
    }
}

/// An ask as push makes it of wire fields.
pub fn ask(
    world: &mut World,
    contract: &'static EntityContract,
    kind: ChangeKind,
    id: &str,
    fields: &Value,
    at_ms: i64,
) -> Ask {
    let empty = Map::new();
    let fields = normalise(contract, fields.as_object().unwrap_or(&empty)).expect("valid").fields;
    Ask {
        contract,
        ids: vec![id.to_owned()],
        fresh_id: world.fresh_id(),
        action: Action::Change {
            change: EntityChange::new(kind, fields),
            base: BasePoint::Current,
        },
        ctx: Context { now_ms: at_ms, edited_at_ms: at_ms, origin: None },
        request_id: None,
    }
}
