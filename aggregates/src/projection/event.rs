//! What can be decided about a read model.

use serde::{Deserialize, Serialize};

use crate::event::{DecodeError, Encoded, EventType, StoredEvent, from_payload};

/// `aggregate_type` of such decisions; each has a stream of its own, under a random id.
pub const TYPE: &str = "projection";

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum ProjectionEvent {
    #[serde(rename = "projection.event_skipped")]
    EventSkipped(EventSkipped),
}

/// One projector leaves one event of the person out, from here on and in every rebuild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventSkipped {
    /// The projector's stable name, such as `health-rollup`.
    pub projector: String,
    /// Global position of the event that is left out.
    pub position: i64,
    /// Who decided it: `user@host` for the command line.
    pub by: String,
    /// Where the reason is written down, such as a ticket. One word, because a sentence might say
    /// something about the person.
    pub reference: String,
}

static TYPES: [EventType; 1] = [EventType {
    name: "projection.event_skipped",
    version: 1,
    aggregate: TYPE,
    purpose: None,
    summary: "An operator let a projector leave out one event of the person.",
}];

impl cqrs_es::DomainEvent for ProjectionEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for ProjectionEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        match self {
            Self::EventSkipped(_) => &TYPES[0],
        }
    }

    fn encode(&self) -> Encoded {
        let payload = match self {
            Self::EventSkipped(data) => crate::event::to_payload(data),
        };
        Encoded { payload, blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        match event_type {
            "projection.event_skipped" => from_payload(event_type, payload).map(Self::EventSkipped),
            _ => Err(DecodeError::unknown(event_type)),
        }
    }
}
