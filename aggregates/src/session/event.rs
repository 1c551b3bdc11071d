//! What can happen to a session.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::Dose;
use crate::conflict::Resolution;
use crate::entity::{Edit, Fields};
use crate::event::{
    DecodeError, Encoded, EventType, Purpose, StoredEvent, from_payload, to_payload,
};

/// `aggregate_type` of a session's stream.
pub const TYPE: &str = "session";

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum SessionEvent {
    #[serde(rename = "session.started")]
    Started(SessionStarted),
    #[serde(rename = "session.updated")]
    Updated(SessionUpdated),
    #[serde(rename = "session.paused")]
    Paused(SessionPaused),
    #[serde(rename = "session.resumed")]
    Resumed(SessionResumed),
    #[serde(rename = "session.ended")]
    Ended(SessionEnded),
    #[serde(rename = "session.cancelled")]
    Cancelled(SessionCancelled),
    #[serde(rename = "session.consumption_attached")]
    ConsumptionAttached(ConsumptionAttached),
    #[serde(rename = "session.consumption_changed")]
    ConsumptionChanged(ConsumptionChanged),
    #[serde(rename = "session.consumption_detached")]
    ConsumptionDetached(ConsumptionDetached),
    #[serde(rename = "session.deleted")]
    Deleted(SessionDeleted),
}

/// A session began, or arrived complete from a phone that was offline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionStarted {
    /// Canonical names and normalised values, the status among them.
    pub fields: Fields,
    /// When it ended, in ms since the Unix epoch, for a session that arrives complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    pub edit: Edit,
}

/// Fields of a session changed, its status not among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionUpdated {
    /// The new values; null clears.
    pub set: Fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    pub edit: Edit,
}

/// A session was paused. The idle clock goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionPaused {
    /// Other fields the same change set.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub set: Fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    pub edit: Edit,
}

/// A paused session went on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionResumed {
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub set: Fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    pub edit: Edit,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum EndReason {
    /// The person.
    Requested,
    /// An hour without activity.
    Idle,
    /// The start of another session.
    Replaced,
}

/// A session was completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionEnded {
    /// In ms since the Unix epoch; never in the future.
    pub ended_at_ms: i64,
    pub reason: EndReason,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub set: Fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    pub edit: Edit,
}

/// A session was called off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionCancelled {
    /// In ms since the Unix epoch; never in the future.
    pub ended_at_ms: i64,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub set: Fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    pub edit: Edit,
}

/// A consumption became part of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumptionAttached {
    pub consumption_id: Uuid,
    pub dose: Dose,
    /// The end of a session that is over and is moved by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    pub edit: Edit,
}

/// A consumption of the session was edited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumptionChanged {
    pub consumption_id: Uuid,
    pub dose: Dose,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    pub edit: Edit,
}

/// A consumption left the session: deleted or moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumptionDetached {
    pub consumption_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    pub edit: Edit,
}

/// A session was deleted, for ever. Its consumptions live on by themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionDeleted {
    pub edit: Edit,
}

const fn event_type(name: &'static str, summary: &'static str) -> EventType {
    EventType { name, version: 1, aggregate: TYPE, purpose: Some(Purpose::Activity), summary }
}

/// The event types, in the order of the enum.
pub(super) static TYPES: [EventType; 10] = [
    event_type("session.started", "A session began, or arrived complete."),
    event_type("session.updated", "Fields of a session changed."),
    event_type("session.paused", "A session was paused."),
    event_type("session.resumed", "A paused session went on."),
    event_type("session.ended", "A session was completed."),
    event_type("session.cancelled", "A session was called off."),
    event_type("session.consumption_attached", "A consumption became part of a session."),
    event_type("session.consumption_changed", "A consumption of a session was edited."),
    event_type("session.consumption_detached", "A consumption left a session."),
    event_type("session.deleted", "A session was deleted; its consumptions live on."),
];

impl SessionEvent {
    /// How the change was merged, if it met another.
    pub fn resolution(&self) -> Option<&Resolution> {
        match self {
            Self::Updated(data) => data.resolution.as_ref(),
            Self::Paused(data) => data.resolution.as_ref(),
            Self::Resumed(data) => data.resolution.as_ref(),
            Self::Ended(data) => data.resolution.as_ref(),
            Self::Cancelled(data) => data.resolution.as_ref(),
            Self::Started(_)
            | Self::ConsumptionAttached(_)
            | Self::ConsumptionChanged(_)
            | Self::ConsumptionDetached(_)
            | Self::Deleted(_) => None,
        }
    }

    /// When and where the change was made.
    pub fn edit(&self) -> &Edit {
        match self {
            Self::Started(data) => &data.edit,
            Self::Updated(data) => &data.edit,
            Self::Paused(data) => &data.edit,
            Self::Resumed(data) => &data.edit,
            Self::Ended(data) => &data.edit,
            Self::Cancelled(data) => &data.edit,
            Self::ConsumptionAttached(data) => &data.edit,
            Self::ConsumptionChanged(data) => &data.edit,
            Self::ConsumptionDetached(data) => &data.edit,
            Self::Deleted(data) => &data.edit,
        }
    }
}

impl cqrs_es::DomainEvent for SessionEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for SessionEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        let index = match self {
            Self::Started(_) => 0,
            Self::Updated(_) => 1,
            Self::Paused(_) => 2,
            Self::Resumed(_) => 3,
            Self::Ended(_) => 4,
            Self::Cancelled(_) => 5,
            Self::ConsumptionAttached(_) => 6,
            Self::ConsumptionChanged(_) => 7,
            Self::ConsumptionDetached(_) => 8,
            Self::Deleted(_) => 9,
        };
        &TYPES[index]
    }

    fn encode(&self) -> Encoded {
        let payload = match self {
            Self::Started(data) => to_payload(data),
            Self::Updated(data) => to_payload(data),
            Self::Paused(data) => to_payload(data),
            Self::Resumed(data) => to_payload(data),
            Self::Ended(data) => to_payload(data),
            Self::Cancelled(data) => to_payload(data),
            Self::ConsumptionAttached(data) => to_payload(data),
            Self::ConsumptionChanged(data) => to_payload(data),
            Self::ConsumptionDetached(data) => to_payload(data),
            Self::Deleted(data) => to_payload(data),
        };
        Encoded { payload, blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        let t = event_type;
        match t {
            "session.started" => from_payload(t, payload).map(Self::Started),
            "session.updated" => from_payload(t, payload).map(Self::Updated),
            "session.paused" => from_payload(t, payload).map(Self::Paused),
            "session.resumed" => from_payload(t, payload).map(Self::Resumed),
            "session.ended" => from_payload(t, payload).map(Self::Ended),
            "session.cancelled" => from_payload(t, payload).map(Self::Cancelled),
            "session.consumption_attached" => {
                from_payload(t, payload).map(Self::ConsumptionAttached)
            }
            "session.consumption_changed" => from_payload(t, payload).map(Self::ConsumptionChanged),
            "session.consumption_detached" => {
                from_payload(t, payload).map(Self::ConsumptionDetached)
            }
            "session.deleted" => from_payload(t, payload).map(Self::Deleted),
            _ => Err(DecodeError::unknown(t)),
        }
    }
}
