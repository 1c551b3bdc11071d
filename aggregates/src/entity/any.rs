//! Any synced entity: what push, pull and REST work with.

use serde::Serialize;
use uuid::Uuid;

use super::contract::EntityContract;
use super::decide::{ChangeOutcome, EntityChange, Refusal, decide_change};
use super::state::{Context, EntityState, Fields};
use super::wire;
use crate::conflict::Base;
use crate::registry::AnyEvent;
use crate::session::Session;
use crate::{DecodeError, UserId};

/// Version of the folds that make stored states; raised whenever one changes its result.
pub const STATE_VERSION: i32 = 1;

/// The state of one synced entity of any type. Serialises as the state alone; the contract is
/// known from the stream's type.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyEntity {
    Session(Box<Session>),
    Plain { contract: &'static EntityContract, state: EntityState },
}

impl AnyEntity {
    /// The entity before anything happened to it.
    pub fn new(contract: &'static EntityContract) -> Self {
        if contract.plain {
            Self::Plain { contract, state: EntityState::default() }
        } else {
            Self::Session(Box::default())
        }
    }

    /// The state back from its stored JSON.
    ///
    /// # Errors
    /// [`DecodeError`] where the JSON is not a state of this type.
    pub fn from_json(contract: &'static EntityContract, json: &str) -> Result<Self, DecodeError> {
        let error = |error| DecodeError::payload(contract.aggregate_type, &error);
        Ok(if contract.plain {
            let state = serde_json::from_str(json).map_err(error)?;
            Self::Plain { contract, state }
        } else {
            Self::Session(serde_json::from_str(json).map_err(error)?)
        })
    }

    /// The stored JSON form.
    pub fn to_json(&self) -> String {
        match self {
            Self::Session(session) => crate::event::to_payload(session),
            Self::Plain { state, .. } => crate::event::to_payload(state),
        }
    }

    /// The base of a merge: the fields as they were at `version`, from the stream's events in order.
    pub fn base_at<'a>(
        contract: &'static EntityContract,
        events: impl IntoIterator<Item = &'a AnyEvent>,
        version: i64,
    ) -> Base {
        let mut entity = Self::new(contract);
        for event in events {
            if entity.state().version >= version {
                break;
            }
            entity.apply(event);
        }
        let EntityState { version, fields, .. } = entity.state().clone();
        Base::At { version, fields }
    }

    /// Folds one event of the entity's stream; events of other types are not its business.
    pub fn apply(&mut self, event: &AnyEvent) {
        match (self, event) {
            (Self::Session(session), AnyEvent::Session(event)) => session.fold(event),
            (Self::Plain { state, contract }, AnyEvent::Entity(event))
                if contract.aggregate_type == event.contract.aggregate_type =>
            {
                state.fold(event);
            }
            _ => {}
        }
    }

    /// The declared type.
    pub fn contract(&self) -> &'static EntityContract {
        match self {
            Self::Session(_) => &crate::session::CONTRACT,
            Self::Plain { contract, .. } => contract,
        }
    }

    /// Version, deletion mark, fields and stamps.
    pub fn state(&self) -> &EntityState {
        match self {
            Self::Session(session) => &session.entity,
            Self::Plain { state, .. } => state,
        }
    }

    /// Decides a change, the same way for every type.
    ///
    /// # Errors
    /// [`Refusal`] where the change can have no effect at all.
    pub fn decide_change(
        &self,
        change: &EntityChange,
        base: &Base,
        ctx: &Context,
    ) -> Result<ChangeOutcome<AnyEvent>, Refusal> {
        match self {
            Self::Session(session) => {
                session.decide_change(change, base, ctx).map(|outcome| outcome.map(AnyEvent::from))
            }
            Self::Plain { contract, state } => decide_change(contract, state, change, base, ctx)
                .map(|outcome| outcome.map(AnyEvent::from)),
        }
    }

    /// The values of the declared fields as a client sees them, derived ones included; empty
    /// fields are absent.
    pub fn visible_fields(&self) -> Fields {
        match self {
            Self::Session(session) => session.visible_fields(),
            Self::Plain { state, .. } => state.fields.clone(),
        }
    }

    /// The entity as the wire shows it, in both spellings.
    pub fn to_wire(&self, id: Uuid, user: UserId) -> serde_json::Map<String, serde_json::Value> {
        wire::entity(self.contract(), id, user, self.state(), &self.visible_fields())
    }
}

impl Serialize for AnyEntity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Session(session) => session.serialize(serializer),
            Self::Plain { state, .. } => state.serialize(serializer),
        }
    }
}
