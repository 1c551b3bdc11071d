//! What can happen to the record of an access.

use serde::{Deserialize, Serialize};

use crate::event::{DecodeError, Encoded, EventType, Purpose, StoredEvent, from_payload};

/// `aggregate_type` of an access; each access has a stream of its own, under a random id.
pub const TYPE: &str = "access";

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum AccessEvent {
    #[serde(rename = "access.revealed")]
    Revealed(AccessRevealed),
}

/// Sealed content of a person's events was opened and shown to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AccessRevealed {
    /// Who read, as far as the way of access knows: `user@host` for the command line.
    pub by: String,
    /// The way of access: `cli`.
    pub channel: String,
    /// Why, in the reader's words.
    pub reason: String,
    pub what: Revealed,
}

/// Which events were shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Revealed {
    /// Single events, by their global positions, rising.
    Positions { positions: Vec<i64> },
    /// The events of one stream up to a sequence.
    Stream { aggregate_type: String, aggregate_id: String, upto: i64 },
}

static TYPES: [EventType; 1] = [EventType {
    name: "access.revealed",
    version: 1,
    aggregate: TYPE,
    purpose: Some(Purpose::Identity),
    summary: "Somebody read sealed content of a person's events, and said why.",
}];

impl cqrs_es::DomainEvent for AccessEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for AccessEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        match self {
            Self::Revealed(_) => &TYPES[0],
        }
    }

    fn encode(&self) -> Encoded {
        let payload = match self {
            Self::Revealed(data) => crate::event::to_payload(data),
        };
        Encoded { payload, blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        match event_type {
            "access.revealed" => from_payload(event_type, payload).map(Self::Revealed),
            _ => Err(DecodeError::unknown(event_type)),
        }
    }
}
