//! What a desk hands over to be written.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::facts::{AliasKey, EntityKey};
use super::{AskError, Closed, Desk, Verdict};
use crate::entity::SyncRecovery;
use crate::{AnyEvent, StreamId};

/// Changes that must be written together or not at all, independent of every other draft.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The asks it answers; none where time alone asked.
    pub items: Vec<usize>,
    pub streams: Vec<StreamDraft>,
    pub claims: Vec<Claim>,
}

/// New events of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamDraft {
    pub stream: StreamId,
    /// None for the recovery stream.
    pub key: Option<EntityKey>,
    /// The sequence the decision was made on.
    pub expected: i64,
    pub events: Vec<DraftEvent>,
    /// Whether the entity is deleted after them.
    pub deleted: bool,
    /// The installation of the last event.
    pub origin: Option<Uuid>,
    /// JSON of the state after them, in [`STATE_VERSION`](super::STATE_VERSION).
    pub state: Option<String>,
}

/// An event with the ask that led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct DraftEvent {
    /// None where time alone asked.
    pub item: Option<usize>,
    pub event: AnyEvent,
    /// When it was decided, in ms since the Unix epoch.
    pub now_ms: i64,
}

impl DraftEvent {
    pub(super) fn of_item(self, item: usize) -> Self {
        Self { item: Some(item), ..self }
    }
}

/// A change of who holds a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub name: ClaimName,
    pub action: ClaimAction,
}

/// A name that one stream holds at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimName {
    /// A slot of a client id.
    Alias { alias: AliasKey, slot: usize },
    /// The place of the person's open session.
    OpenSession,
}

/// What happens to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimAction {
    Take(EntityKey),
    Release(EntityKey),
    Pass { from: EntityKey, to: EntityKey },
}

impl ClaimAction {
    /// The step from one holder to another; none where nothing changes.
    pub(super) fn between(from: Option<EntityKey>, to: Option<EntityKey>) -> Option<Self> {
        match (from, to) {
            (None, Some(to)) => Some(Self::Take(to)),
            (Some(from), None) => Some(Self::Release(from)),
            (Some(from), Some(to)) if from != to => Some(Self::Pass { from, to }),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }
}

/// Which asks belong together. An ask is a node; so is each ending by time alone.
#[derive(Debug, Default)]
pub(super) struct Groups {
    parents: BTreeMap<usize, usize>,
    entities: BTreeMap<EntityKey, usize>,
    aliases: BTreeMap<AliasKey, usize>,
    recovery: Option<usize>,
}

/// Nodes from here on are endings by time alone.
const BY_TIME: usize = usize::MAX / 2;

impl Groups {
    pub fn add(&mut self, item: usize) {
        self.parents.entry(item).or_insert(item);
    }

    /// A node that is no ask.
    pub fn add_by_time(&mut self) -> usize {
        let node = BY_TIME + self.parents.len();
        self.add(node);
        node
    }

    pub fn link_entity(&mut self, item: usize, key: EntityKey) {
        let owner = *self.entities.entry(key).or_insert(item);
        self.unite(item, owner);
    }

    /// Puts the changes of two entities into one draft.
    pub fn link_entities(&mut self, a: EntityKey, b: EntityKey) {
        if let Some(owner) = self.entities.get(&a).copied() {
            self.link_entity(owner, b);
        }
    }

    pub fn link_alias(&mut self, item: usize, alias: &AliasKey) {
        let owner = *self.aliases.entry(alias.clone()).or_insert(item);
        self.unite(item, owner);
    }

    pub fn link_recovery(&mut self, item: usize) {
        let owner = *self.recovery.get_or_insert(item);
        self.unite(item, owner);
    }

    fn root(&self, item: usize) -> usize {
        let mut node = item;
        while let Some(parent) = self.parents.get(&node).copied().filter(|parent| *parent != node) {
            node = parent;
        }
        node
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The smaller node is the root, so drafts come in the order of their first asks.
        self.parents.insert(a.max(b), a.min(b));
    }
}

impl Desk {
    /// Everything decided, as drafts. `open` is the session that is open from here on.
    pub(super) fn hand_over(&mut self, open: Option<EntityKey>) -> Closed {
        let mut drafts: BTreeMap<usize, Draft> = BTreeMap::new();
        let groups = std::mem::take(&mut self.groups);
        let empty = || Draft { items: Vec::new(), streams: Vec::new(), claims: Vec::new() };
        for node in groups.parents.keys().copied() {
            let draft = drafts.entry(groups.root(node)).or_insert_with(empty);
            if node < BY_TIME {
                draft.items.push(node);
            }
        }
        let mut open_claim = self.open_claim(open);
        for (key, staged) in std::mem::take(&mut self.staged) {
            let Some(owner) = groups.entities.get(&key) else { continue };
            let draft = drafts.entry(groups.root(*owner)).or_insert_with(empty);
            if let Some(claim) = open_claim.take_if(|claim| claim.touches(key)) {
                draft.claims.push(claim);
            }
            let state = staged.entity.state();
            draft.streams.push(StreamDraft {
                stream: key.stream(),
                key: Some(key),
                expected: self.facts.version(key),
                events: staged.events,
                deleted: state.deleted,
                origin: state.origin,
                state: Some(staged.entity.to_json()),
            });
            self.facts.replace(key, staged.entity);
        }
        for (alias, holders) in std::mem::take(&mut self.aliases) {
            let Some(owner) = groups.aliases.get(&alias) else { continue };
            let draft = drafts.entry(groups.root(*owner)).or_insert_with(empty);
            let before = self.facts.alias(&alias).cloned().unwrap_or_default();
            for slot in 0..holders.len().max(before.len()) {
                let step =
                    ClaimAction::between(before.get(slot).copied(), holders.get(slot).copied());
                if let Some(action) = step {
                    let name = ClaimName::Alias { alias: alias.clone(), slot };
                    draft.claims.push(Claim { name, action });
                }
            }
        }
        let recovery = std::mem::take(&mut self.recovery);
        if let (Some(owner), false) = (groups.recovery, recovery.is_empty()) {
            let draft = drafts.entry(groups.root(owner)).or_insert_with(empty);
            draft.streams.push(StreamDraft {
                stream: StreamId::new(<SyncRecovery as cqrs_es::Aggregate>::TYPE, self.user),
                key: None,
                expected: self.facts.recovery().unwrap_or_default(),
                events: recovery,
                deleted: false,
                origin: None,
                state: None,
            });
        }
        Closed {
            verdicts: self.final_verdicts(),
            drafts: drafts.into_values().filter(|draft| !draft.is_empty()).collect(),
        }
    }

    fn open_claim(&self, open: Option<EntityKey>) -> Option<Claim> {
        let before = self.facts.open_session().flatten();
        let before = before.map(|id| EntityKey::new(&crate::session::CONTRACT, id));
        let action = ClaimAction::between(before, open)?;
        Some(Claim { name: ClaimName::OpenSession, action })
    }

    /// The verdicts with the versions that the entities have in the end.
    fn final_verdicts(&mut self) -> BTreeMap<usize, Result<Verdict, AskError>> {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        for verdict in verdicts.values_mut().flatten() {
            verdict.version = self.facts.version(verdict.key);
        }
        verdicts
    }
}

impl Claim {
    fn touches(&self, key: EntityKey) -> bool {
        match self.action {
            ClaimAction::Take(held) | ClaimAction::Release(held) => held == key,
            ClaimAction::Pass { from, to } => from == key || to == key,
        }
    }
}

impl Draft {
    /// Whether there is nothing to write.
    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.claims.is_empty() && self.items.is_empty()
    }
}
