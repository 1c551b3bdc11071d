//! What the store needs to know of an event.
//!
//! An event type is a literal on disk (`session.started`): renaming a Rust type never changes the
//! log. Payloads are JSON objects; an event that carries many samples keeps them in a packed
//! binary part beside the JSON, because base64 inside JSON costs a third and slows every replay.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which of a person's keys seals an event. Destroying one key erases one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Purpose {
    /// Who the person is: profile, preferences, identities, installations.
    Identity,
    /// What they log: sessions, consumptions, products, purchases, goals.
    Activity,
    /// Their body: health samples, symptoms, doses.
    Health,
}

impl Purpose {
    /// All purposes, in the order of their numbers in the database.
    pub const ALL: [Purpose; 3] = [Purpose::Identity, Purpose::Activity, Purpose::Health];

    /// The stable name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Activity => "activity",
            Self::Health => "health",
        }
    }

    /// The purpose with this stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == name)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of the registry: an event type in its current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    /// The literal on disk: `session.started`.
    pub name: &'static str,
    /// The current version, from 1. Stored as an integer string.
    pub version: u32,
    /// The aggregate whose stream holds it.
    pub aggregate: &'static str,
    /// The key that seals it, or `None` where nothing in it is personal.
    pub purpose: Option<Purpose>,
    /// One line for the event catalogue.
    pub summary: &'static str,
}

/// An event as the store keeps it, before sealing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Encoded {
    /// A JSON object, its keys in a fixed order: equal events have equal bytes.
    pub payload: String,
    /// Packed binary part; empty for most events.
    pub blob: Vec<u8>,
}

/// Why stored bytes are not the event they claim to be. Carries no payload text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("unknown event type {event_type}")]
    Unknown { event_type: String },
    #[error("payload of {event_type} does not match its schema at line {line}, column {column}")]
    Payload { event_type: String, line: usize, column: usize },
    #[error("packed part of {event_type} is malformed: {reason}")]
    Blob { event_type: String, reason: &'static str },
}

impl DecodeError {
    /// The type is not in the registry.
    pub fn unknown(event_type: &str) -> Self {
        Self::Unknown { event_type: event_type.to_owned() }
    }

    /// Keeps the place of a JSON error and drops its text, which may quote personal content.
    pub fn payload(event_type: &str, error: &serde_json::Error) -> Self {
        Self::Payload {
            event_type: event_type.to_owned(),
            line: error.line(),
            column: error.column(),
        }
    }
}

/// A domain event that can be stored and read back.
pub trait StoredEvent: cqrs_es::DomainEvent {
    /// Every event type of this enum, one entry a variant.
    fn types() -> &'static [EventType];

    /// The registry entry of this value.
    fn descriptor(&self) -> &'static EventType;

    /// The stored form.
    fn encode(&self) -> Encoded;

    /// The event of this type in its *current* version; older payloads are upcast before.
    ///
    /// # Errors
    /// [`DecodeError`] where type or shape do not fit; never a partial value.
    fn decode(event_type: &str, payload: &str, blob: &[u8]) -> Result<Self, DecodeError>;
}

/// JSON text of one event's payload. Struct fields keep their order and maps are sorted, so equal
/// payloads have equal bytes.
pub fn to_payload<T: Serialize>(data: &T) -> String {
    // Payload types hold strings, integers, booleans and sorted maps with string keys: writing
    // those to memory has no way to fail.
    serde_json::to_string(data).unwrap_or_default()
}

/// The payload back from its text, without an intermediate tree.
///
/// # Errors
/// [`DecodeError::Payload`] with the place of the fault and none of its content.
pub fn from_payload<T: serde::de::DeserializeOwned>(
    event_type: &str,
    payload: &str,
) -> Result<T, DecodeError> {
    serde_json::from_str(payload).map_err(|error| DecodeError::payload(event_type, &error))
}
