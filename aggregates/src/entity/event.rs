//! The three events every plain entity type has.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contract::{CONTRACTS, EntityContract};
use super::state::{Edit, Fields};
use crate::conflict::Resolution;
use crate::event::{DecodeError, Encoded, EventType, StoredEvent, from_payload, to_payload};

/// An entity came into being.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Created {
    /// Canonical names and normalised values, defaults included.
    pub fields: Fields,
    pub edit: Edit,
}

/// Fields of an entity changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Updated {
    /// The new values; null clears.
    pub set: Fields,
    /// How a concurrent edit was merged, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    pub edit: Edit,
}

/// An entity was deleted, for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deleted {
    pub edit: Edit,
}

/// What happened to an entity.
#[derive(Clone, Debug, PartialEq)]
pub enum EntityFact {
    Created(Created),
    Updated(Updated),
    Deleted(Deleted),
}

/// What happened, and to an entity of which type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Tagged", try_from = "Tagged")]
pub struct EntityEvent {
    pub contract: &'static EntityContract,
    pub fact: EntityFact,
}

/// The self-describing JSON form, for tools.
#[derive(Clone, Serialize, Deserialize)]
struct Tagged {
    #[serde(rename = "type")]
    event_type: String,
    data: Value,
}

impl From<EntityEvent> for Tagged {
    fn from(event: EntityEvent) -> Self {
        let data = match &event.fact {
            EntityFact::Created(data) => serde_json::to_value(data),
            EntityFact::Updated(data) => serde_json::to_value(data),
            EntityFact::Deleted(data) => serde_json::to_value(data),
        };
        Self {
            event_type: event.descriptor().name.to_owned(),
            // Sorted maps with string keys always have a JSON form.
            data: data.unwrap_or_default(),
        }
    }
}

impl TryFrom<Tagged> for EntityEvent {
    type Error = DecodeError;

    fn try_from(tagged: Tagged) -> Result<Self, DecodeError> {
        Self::decode(&tagged.event_type, &tagged.data.to_string(), &[])
    }
}

impl EntityEvent {
    /// How the change was merged, if it met another.
    pub fn resolution(&self) -> Option<&Resolution> {
        match &self.fact {
            EntityFact::Updated(updated) => updated.resolution.as_ref(),
            EntityFact::Created(_) | EntityFact::Deleted(_) => None,
        }
    }

    /// When and where the change was made.
    pub fn edit(&self) -> &Edit {
        match &self.fact {
            EntityFact::Created(Created { edit, .. })
            | EntityFact::Updated(Updated { edit, .. })
            | EntityFact::Deleted(Deleted { edit }) => edit,
        }
    }
}

static TYPES: LazyLock<Vec<EventType>> = LazyLock::new(|| {
    CONTRACTS
        .into_iter()
        .filter(|contract| contract.plain)
        .flat_map(|contract| contract.events.iter().copied())
        .collect()
});

/// The three event types of a plain entity type; `names` are created, updated and deleted.
pub const fn entity_event_types(
    aggregate: &'static str,
    purpose: Option<crate::Purpose>,
    names: [&'static str; 3],
    summaries: [&'static str; 3],
) -> [EventType; 3] {
    let [created, updated, deleted] = names;
    let [on_created, on_updated, on_deleted] = summaries;
    [
        EventType { name: created, version: 1, aggregate, purpose, summary: on_created },
        EventType { name: updated, version: 1, aggregate, purpose, summary: on_updated },
        EventType { name: deleted, version: 1, aggregate, purpose, summary: on_deleted },
    ]
}

impl cqrs_es::DomainEvent for EntityEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for EntityEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        let index = match &self.fact {
            EntityFact::Created(_) => 0,
            EntityFact::Updated(_) => 1,
            EntityFact::Deleted(_) => 2,
        };
        &self.contract.events[index]
    }

    fn encode(&self) -> Encoded {
        let payload = match &self.fact {
            EntityFact::Created(data) => to_payload(data),
            EntityFact::Updated(data) => to_payload(data),
            EntityFact::Deleted(data) => to_payload(data),
        };
        Encoded { payload, blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        let place = CONTRACTS.into_iter().filter(|contract| contract.plain).find_map(|contract| {
            let index = contract.events.iter().position(|entry| entry.name == event_type)?;
            Some((contract, index))
        });
        let (contract, fact) = match place {
            Some((contract, 0)) => {
                (contract, from_payload(event_type, payload).map(EntityFact::Created)?)
            }
            Some((contract, 1)) => {
                (contract, from_payload(event_type, payload).map(EntityFact::Updated)?)
            }
            Some((contract, 2)) => {
                (contract, from_payload(event_type, payload).map(EntityFact::Deleted)?)
            }
            _ => return Err(DecodeError::unknown(event_type)),
        };
        Ok(Self { contract, fact })
    }
}
