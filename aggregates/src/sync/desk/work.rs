//! One ask in progress: reads through to the desk, keeps its writes to itself until it succeeds.

use std::collections::{BTreeMap, BTreeSet};

use super::Desk;
use super::ask::AskError;
use super::draft::DraftEvent;
use super::facts::{AliasKey, EntityKey, Known, Need};
use crate::AnyEvent;
use crate::entity::{AnyEntity, Context, Superseded};

/// Why an ask goes no further.
#[derive(Debug)]
pub(super) enum Halt {
    Needs(BTreeSet<Need>),
    Refused(AskError),
}

impl From<AskError> for Halt {
    fn from(error: AskError) -> Self {
        Self::Refused(error)
    }
}

/// An entity with events that are not written yet.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub entity: AnyEntity,
    pub events: Vec<DraftEvent>,
}

impl Staged {
    pub fn new(entity: AnyEntity) -> Self {
        Self { entity, events: Vec::new() }
    }
}

/// See the module.
pub(super) struct Work<'a> {
    pub desk: &'a Desk,
    pub ctx: Context,
    done: Done,
}

/// The writes of one ask.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub entities: BTreeMap<EntityKey, Staged>,
    pub aliases: BTreeMap<AliasKey, Vec<EntityKey>>,
    pub superseded: Vec<(EntityKey, Superseded, Option<String>, Context)>,
    /// Entities of earlier asks this one stands or falls with.
    pub depends_on: BTreeSet<EntityKey>,
}

impl<'a> Work<'a> {
    pub fn new(desk: &'a Desk, ctx: Context) -> Self {
        Self { desk, ctx, done: Done::default() }
    }

    pub fn finish(self) -> Done {
        self.done
    }

    /// Halts unless everything that follows from `needs` is known.
    pub fn require(&self, needs: impl IntoIterator<Item = Need>) -> Result<(), Halt> {
        let missing = self.desk.facts.unknown(needs.into_iter().collect());
        if missing.is_empty() { Ok(()) } else { Err(Halt::Needs(missing)) }
    }

    /// Halts unless all these entities are known.
    pub fn require_all(&self, keys: impl IntoIterator<Item = EntityKey>) -> Result<(), Halt> {
        let unstaged = keys.into_iter().filter(|key| !self.desk.staged.contains_key(key));
        self.require(unstaged.map(Need::Entity))
    }

    /// The entity as this ask sees it. One that does not exist is in its initial state.
    pub fn entity(&self, key: EntityKey) -> Result<AnyEntity, Halt> {
        if let Some(staged) = self.done.entities.get(&key).or_else(|| self.desk.staged.get(&key)) {
            return Ok(staged.entity.clone());
        }
        self.require([Need::Entity(key)])?;
        let stored = self.desk.facts.stored(key).map(|(entity, _)| entity.clone());
        Ok(stored.unwrap_or_else(|| AnyEntity::new(key.contract())))
    }

    /// Whether the id belongs to somebody else.
    pub fn is_foreign(&self, key: EntityKey) -> Result<bool, Halt> {
        self.require([Need::Entity(key)])?;
        Ok(matches!(self.desk.facts.known(key), Some(Known::Foreign)))
    }

    /// Who holds the slots of a client id.
    pub fn holders(&self, alias: &AliasKey) -> Result<&[EntityKey], Halt> {
        if let Some(holders) = self.done.aliases.get(alias).or_else(|| self.desk.aliases.get(alias))
        {
            return Ok(holders);
        }
        self.require([Need::Alias(alias.clone())])?;
        Ok(self.desk.facts.alias(alias).map_or(&[], Vec::as_slice))
    }

    /// The entity that a client id stands for.
    pub fn resolve(&mut self, alias: &AliasKey) -> Result<Option<EntityKey>, Halt> {
        let holder = self.holders(alias)?.first().copied();
        let entity = holder.filter(|key| key.contract().entity_type == alias.entity_type);
        if let Some(key) = entity
            && self.desk.staged.contains_key(&key)
        {
            self.done.depends_on.insert(key);
        }
        Ok(entity)
    }

    pub fn hold(&mut self, alias: AliasKey, holders: Vec<EntityKey>) {
        self.done.aliases.insert(alias, holders);
    }

    /// Applies events to the entity and keeps them.
    pub fn stage<E: Into<AnyEvent>>(
        &mut self,
        key: EntityKey,
        events: impl IntoIterator<Item = E>,
    ) -> Result<(), Halt> {
        let entity = self.entity(key)?;
        let now_ms = self.ctx.now_ms;
        let staged = self.done.entities.entry(key).or_insert_with(|| Staged::new(entity));
        for event in events {
            let event = event.into();
            staged.entity.apply(&event);
            staged.events.push(DraftEvent { item: None, event, now_ms });
        }
        Ok(())
    }

    pub fn put_aside(&mut self, key: EntityKey, superseded: Superseded, request: Option<String>) {
        let ctx = self.ctx;
        self.done.superseded.push((key, superseded, request, ctx));
    }
}
