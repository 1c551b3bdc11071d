//! What a person entered and what had no effect: kept, so that they can get it back.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::decide::{SupersededChange, SupersededReason};
use super::state::{Context, Edit, Fields};
use crate::conflict::Resolution;
use crate::event::{
    DecodeError, Encoded, EventType, Purpose, StoredEvent, from_payload, to_payload,
};

/// `aggregate_type` of the stream; its id is the user's.
pub const TYPE: &str = "sync_recovery";

/// What was put aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum SyncRecoveryEvent {
    #[serde(rename = "sync_recovery.superseded")]
    Superseded(SyncSuperseded),
}

/// A change lost as a whole, to a delete or to other edits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SyncSuperseded {
    /// The wire's name of the type: `consumptions`.
    pub entity_type: String,
    pub entity_id: Uuid,
    /// What the change was to do. Events of version 1 did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<SupersededChange>,
    /// The version the person was looking at, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<i64>,
    /// The version it lost to. Events of version 1 said so only where there was a merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_version: Option<i64>,
    /// The values that have no effect.
    pub payload: Fields,
    pub reason: SupersededReason,
    /// How the merge was decided, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// The client's id of the pushed item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    pub edit: Edit,
}

const TYPES: [EventType; 1] = [EventType {
    name: "sync_recovery.superseded",
    version: 2,
    aggregate: TYPE,
    purpose: Some(Purpose::Activity),
    summary: "A change had no effect because of a delete or of other edits; its payload is kept.",
}];

/// Puts one payload aside.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryCommand {
    pub entity_type: String,
    pub entity_id: Uuid,
    pub superseded: super::Superseded,
    pub request_id: Option<String>,
}

/// Putting something aside is never refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {}

/// A person's put-aside changes. The state only counts them; readers fold the events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRecovery {
    /// Events of the stream so far.
    pub version: i64,
}

impl SyncRecovery {
    /// The event that keeps the payload.
    pub fn decide(&self, command: RecoveryCommand, ctx: &Context) -> SyncRecoveryEvent {
        SyncRecoveryEvent::Superseded(SyncSuperseded {
            entity_type: command.entity_type,
            entity_id: command.entity_id,
            change: Some(command.superseded.change),
            base_version: command.superseded.base_version,
            stored_version: Some(command.superseded.stored_version),
            payload: command.superseded.fields,
            reason: command.superseded.reason,
            resolution: command.superseded.resolution,
            request_id: command.request_id,
            edit: ctx.edit(),
        })
    }
}

impl cqrs_es::Aggregate for SyncRecovery {
    const TYPE: &'static str = TYPE;
    type Command = RecoveryCommand;
    type Event = SyncRecoveryEvent;
    type Error = RecoveryError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: RecoveryCommand,
        ctx: &Context,
        sink: &cqrs_es::event_sink::EventSink<Self>,
    ) -> Result<(), RecoveryError> {
        let event = self.decide(command, ctx);
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: SyncRecoveryEvent) {
        match event {
            SyncRecoveryEvent::Superseded(_) => self.version += 1,
        }
    }
}

impl cqrs_es::DomainEvent for SyncRecoveryEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for SyncRecoveryEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        &TYPES[0]
    }

    fn encode(&self) -> Encoded {
        let Self::Superseded(data) = self;
        Encoded { payload: to_payload(data), blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        match event_type {
            "sync_recovery.superseded" => from_payload(event_type, payload).map(Self::Superseded),
            _ => Err(DecodeError::unknown(event_type)),
        }
    }
}
