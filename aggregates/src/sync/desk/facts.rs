//! What a desk knows of the log.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::entity::{AnyEntity, CONTRACTS, EntityContract};
use crate::{AnyEvent, StreamId};

/// Names one entity of the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    /// Place of the contract in [`CONTRACTS`].
    contract: usize,
    pub id: Uuid,
}

impl EntityKey {
    /// The entity of this type with this id.
    pub fn new(contract: &'static EntityContract, id: Uuid) -> Self {
        let index = CONTRACTS
            .iter()
            .position(|known| known.entity_type == contract.entity_type)
            .unwrap_or_default();
        Self { contract: index, id }
    }

    /// The declared type.
    pub fn contract(&self) -> &'static EntityContract {
        CONTRACTS[self.contract]
    }

    /// The entity's stream.
    pub fn stream(&self) -> StreamId {
        StreamId::new(self.contract().aggregate_type, self.id)
    }
}

/// Names an entity by an id of the client's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AliasKey {
    /// The wire's name of the type.
    pub entity_type: &'static str,
    pub text: String,
}

impl AliasKey {
    /// The alias, with UUIDs in one spelling.
    pub fn new(contract: &'static EntityContract, text: &str) -> Self {
        let uuid = parse_id(text).map(|id| id.to_string());
        Self { entity_type: contract.entity_type, text: uuid.unwrap_or_else(|| text.to_owned()) }
    }
}

/// A UUID in its hyphenated form; other spellings are plain text.
pub(super) fn parse_id(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// Something a desk has to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Alias(AliasKey),
    Entity(EntityKey),
    /// The events of an entity's stream, to see it as it was.
    History(EntityKey),
    /// The one session that is open.
    OpenSession,
    /// The sessions that changed last, enough to find the one a consumption falls into.
    RecentSessions,
    /// How many events the recovery stream has.
    Recovery,
}

/// What is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Who holds the slots of a client id, from slot 0 up to the first free one. Where slot 0
    /// belongs to the entity itself, the others do not matter.
    Alias(AliasKey, Vec<EntityKey>),
    Entity(EntityKey, Known),
    History(EntityKey, History),
    OpenSession(Option<Uuid>),
    /// Their entities are told as facts of their own.
    RecentSessions(Vec<Uuid>),
    Recovery(i64),
}

/// What is known of one entity.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// There is no such stream.
    Absent,
    /// The stream belongs to somebody else: it is not there, and its id cannot be taken.
    Foreign,
    Stored {
        entity: AnyEntity,
        /// Of its last event in the log.
        position: i64,
    },
}

/// The past of one stream.
#[derive(Clone, Debug, PartialEq)]
pub enum History {
    /// Its events in order, each with its position in the log.
    Events(Vec<(i64, AnyEvent)>),
    /// There are more than are worth folding.
    TooLong,
}

/// Everything told so far.
#[derive(Debug, Default)]
pub(super) struct Facts {
    entities: BTreeMap<EntityKey, Known>,
    aliases: BTreeMap<AliasKey, Vec<EntityKey>>,
    histories: BTreeMap<EntityKey, History>,
    open_session: Option<Option<Uuid>>,
    recent_sessions: Option<Vec<Uuid>>,
    recovery: Option<i64>,
}

impl Facts {
    pub fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Alias(key, holders) => {
                self.aliases.insert(key, holders);
            }
            Fact::Entity(key, known) => {
                self.entities.insert(key, known);
            }
            Fact::History(key, history) => {
                self.histories.insert(key, history);
            }
            Fact::OpenSession(session) => self.open_session = Some(session),
            Fact::RecentSessions(sessions) => self.recent_sessions = Some(sessions),
            Fact::Recovery(sequence) => self.recovery = Some(sequence),
        }
    }

    /// The needs that nobody has told about yet.
    pub fn unknown(&self, needs: BTreeSet<Need>) -> BTreeSet<Need> {
        needs
            .into_iter()
            .filter(|need| match need {
                Need::Alias(key) => !self.aliases.contains_key(key),
                Need::Entity(key) => !self.entities.contains_key(key),
                Need::History(key) => !self.histories.contains_key(key),
                Need::OpenSession => self.open_session.is_none(),
                Need::RecentSessions => self.recent_sessions.is_none(),
                Need::Recovery => self.recovery.is_none(),
            })
            .collect()
    }

    pub fn known(&self, key: EntityKey) -> Option<&Known> {
        self.entities.get(&key)
    }

    /// The stored entity and the position of its last event.
    pub fn stored(&self, key: EntityKey) -> Option<(&AnyEntity, i64)> {
        match self.entities.get(&key) {
            Some(Known::Stored { entity, position }) => Some((entity, *position)),
            Some(Known::Absent | Known::Foreign) | None => None,
        }
    }

    /// The entity after everything decided, for those who ask after the desk has closed.
    pub fn replace(&mut self, key: EntityKey, entity: AnyEntity) {
        self.entities.insert(key, Known::Stored { entity, position: i64::MAX });
    }

    /// The stored version; 0 where there is nothing.
    pub fn version(&self, key: EntityKey) -> i64 {
        self.stored(key).map_or(0, |(entity, _)| entity.state().version)
    }

    pub fn alias(&self, key: &AliasKey) -> Option<&Vec<EntityKey>> {
        self.aliases.get(key)
    }

    pub fn history(&self, key: EntityKey) -> Option<&History> {
        self.histories.get(&key)
    }

    pub fn open_session(&self) -> Option<Option<Uuid>> {
        self.open_session
    }

    pub fn recent_sessions(&self) -> Option<&[Uuid]> {
        self.recent_sessions.as_deref()
    }

    pub fn recovery(&self) -> Option<i64> {
        self.recovery
    }
}
