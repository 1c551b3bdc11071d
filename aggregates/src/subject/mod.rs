//! A person as the owner of keys: which keys exist, and which were destroyed.
//!
//! Invariant: a key is never used after its destruction was recorded, and a destruction is never
//! taken back. The stream holds ids and commitments only, no key material and nothing personal, so
//! it stays readable after an erasure and proves it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{DecodeError, Encoded, EventType, Purpose, StoredEvent};

/// `aggregate_type` of a subject's stream; its id is the user's.
pub const TYPE: &str = "subject";

/// What happened to a person's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum SubjectEvent {
    #[serde(rename = "subject.key_created")]
    KeyCreated(KeyCreated),
    #[serde(rename = "subject.key_destroyed")]
    KeyDestroyed(KeyDestroyed),
}

/// A key was stored durably, before the first event it seals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyCreated {
    pub key_id: Uuid,
    pub purpose: Purpose,
    /// Hex SHA-256 over a fixed label, the key id and the key bytes; checked at every unwrap, so
    /// that a swapped or damaged key is an alarm and not an erasure.
    pub commitment: String,
}

/// A key is to be destroyed and is refused from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyDestroyed {
    pub key_id: Uuid,
    pub purpose: Purpose,
    /// A stable code: `user_request`, `drill`, `retention`.
    pub reason: String,
}

const TYPES: [EventType; 2] = [
    EventType {
        name: "subject.key_created",
        version: 1,
        aggregate: TYPE,
        purpose: None,
        summary: "A person's key for one purpose was created; its commitment is recorded.",
    },
    EventType {
        name: "subject.key_destroyed",
        version: 1,
        aggregate: TYPE,
        purpose: None,
        summary: "A person's key for one purpose was destroyed; what it sealed is unreadable.",
    },
];

impl cqrs_es::DomainEvent for SubjectEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for SubjectEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        match self {
            Self::KeyCreated(_) => &TYPES[0],
            Self::KeyDestroyed(_) => &TYPES[1],
        }
    }

    fn encode(&self) -> Encoded {
        let payload = match self {
            Self::KeyCreated(data) => crate::event::to_payload(data),
            Self::KeyDestroyed(data) => crate::event::to_payload(data),
        };
        Encoded { payload, blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        use crate::event::from_payload;
        match event_type {
            "subject.key_created" => from_payload(event_type, payload).map(Self::KeyCreated),
            "subject.key_destroyed" => from_payload(event_type, payload).map(Self::KeyDestroyed),
            _ => Err(DecodeError::unknown(event_type)),
        }
    }
}
