//! A plain synced entity as a `cqrs_es` aggregate.

use std::marker::PhantomData;

use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use super::contract::EntityContract;
use super::decide::{ChangeOutcome, EntityChange, Refusal, decide_change};
use super::event::{EntityEvent, EntityFact};
use super::state::{Context, EntityState};
use crate::conflict::Base;

/// Names an entity type for [`Entity`].
pub trait EntityKind: Send + Sync {
    /// The stream's type.
    const TYPE: &'static str;

    /// The declared contract, whose `aggregate_type` is [`EntityKind::TYPE`].
    fn contract() -> &'static EntityContract;
}

/// An entity of the kind `K`: the contract's rules over the shared state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Entity<K> {
    pub state: EntityState,
    #[serde(skip)]
    kind: PhantomData<K>,
}

impl<K> Default for Entity<K> {
    fn default() -> Self {
        Self { state: EntityState::default(), kind: PhantomData }
    }
}

/// A change and what the person was looking at when they made it.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityCommand {
    pub change: EntityChange,
    pub base: Base,
}

impl<K: EntityKind> Entity<K> {
    /// Decides a change.
    ///
    /// # Errors
    /// [`Refusal`] where the change can have no effect at all.
    pub fn decide(
        &self,
        command: &EntityCommand,
        ctx: &Context,
    ) -> Result<ChangeOutcome<EntityEvent>, Refusal> {
        decide_change(K::contract(), &self.state, &command.change, &command.base, ctx)
    }
}

impl EntityState {
    /// Folds one event.
    pub fn fold(&mut self, event: &EntityEvent) {
        match &event.fact {
            EntityFact::Created(data) => self.create(&data.fields, &data.edit),
            EntityFact::Updated(data) => {
                self.change(&data.set, data.resolution.as_ref(), &data.edit);
            }
            EntityFact::Deleted(data) => self.delete(&data.edit),
        }
    }
}

impl<K: EntityKind> cqrs_es::Aggregate for Entity<K> {
    const TYPE: &'static str = K::TYPE;
    type Command = EntityCommand;
    type Event = EntityEvent;
    type Error = Refusal;
    type Services = Context;

    async fn handle(
        &mut self,
        command: EntityCommand,
        ctx: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), Refusal> {
        if let Some(event) = self.decide(&command, ctx)?.event() {
            sink.write(event.clone(), self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: EntityEvent) {
        self.state.fold(&event);
    }
}
