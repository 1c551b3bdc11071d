//! The one list of event types. Tests, the CLI, the documentation and the store all read it.

use crate::{
    DecodeError, Encoded, EventType, StoredEvent, health_batch::HealthBatchEvent,
    subject::SubjectEvent,
};

/// Any event of the log in its current version.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyEvent {
    Subject(SubjectEvent),
    HealthBatch(HealthBatchEvent),
}

/// All event types there are, grouped by aggregate.
pub fn types() -> impl Iterator<Item = &'static EventType> {
    SubjectEvent::types().iter().chain(HealthBatchEvent::types())
}

/// The registry entry with this name.
pub fn find(event_type: &str) -> Option<&'static EventType> {
    types().find(|entry| entry.name == event_type)
}

impl AnyEvent {
    /// Decodes an event of the current version.
    ///
    /// # Errors
    /// [`DecodeError`] for unknown types and payloads that do not fit.
    pub fn decode(event_type: &str, payload: &str, blob: &[u8]) -> Result<Self, DecodeError> {
        let aggregate = event_type.split('.').next().unwrap_or_default();
        match aggregate {
            "subject" => SubjectEvent::decode(event_type, payload, blob).map(Self::Subject),
            "health_batch" => {
                HealthBatchEvent::decode(event_type, payload, blob).map(Self::HealthBatch)
            }
            _ => Err(DecodeError::unknown(event_type)),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Encoded {
        match self {
            Self::Subject(event) => event.encode(),
            Self::HealthBatch(event) => event.encode(),
        }
    }

    /// The registry entry of this value.
    pub fn descriptor(&self) -> &'static EventType {
        match self {
            Self::Subject(event) => event.descriptor(),
            Self::HealthBatch(event) => event.descriptor(),
        }
    }
}

impl From<SubjectEvent> for AnyEvent {
    fn from(event: SubjectEvent) -> Self {
        Self::Subject(event)
    }
}

impl From<HealthBatchEvent> for AnyEvent {
    fn from(event: HealthBatchEvent) -> Self {
        Self::HealthBatch(event)
    }
}
