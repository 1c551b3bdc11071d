//! The state of a session and how events change it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::event::{EndReason, SessionEvent};
use crate::conflict::Resolution;
use crate::entity::{Edit, EntityState, Fields};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Active,
    Paused,
    Completed,
    Cancelled,
}

impl Status {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The status with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Completed, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == word)
    }

    /// Whether it is never left again.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// What a session needs to know of one of its consumptions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dose {
    /// When it was consumed, in ms since the Unix epoch.
    pub at_ms: i64,
    pub duration_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<String>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Version, declared fields and their stamps.
    pub entity: EntityState,
    /// Its consumptions by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub doses: BTreeMap<Uuid, Dose>,
    /// When it ended, if it has. Distinct from the last activity and from the idle deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
}

impl Session {
    /// Where the session stands; `Active` before anything happened.
    pub fn status(&self) -> Status {
        self.entity.text("status").and_then(Status::parse).unwrap_or(Status::Active)
    }

    /// Whether it is neither deleted nor over.
    pub fn is_open(&self) -> bool {
        self.entity.is_live() && !self.status().is_terminal()
    }

    /// Folds one event.
    pub fn fold(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::Started(data) => {
                self.entity.create(&data.fields, &data.edit);
                self.ended_at_ms = data.ended_at_ms;
                self.end_reason = data.ended_at_ms.map(|_| EndReason::Requested);
            }
            SessionEvent::Updated(data) => {
                self.entity.change(&data.set, data.resolution.as_ref(), &data.edit);
            }
            SessionEvent::Paused(data) => {
                self.enter(Status::Paused, &data.set, data.resolution.as_ref(), &data.edit);
            }
            SessionEvent::Resumed(data) => {
                self.enter(Status::Active, &data.set, data.resolution.as_ref(), &data.edit);
            }
            SessionEvent::Ended(data) => {
                self.enter(Status::Completed, &data.set, data.resolution.as_ref(), &data.edit);
                self.ended_at_ms = Some(data.ended_at_ms);
                self.end_reason = Some(data.reason);
            }
            SessionEvent::Cancelled(data) => {
                self.enter(Status::Cancelled, &data.set, data.resolution.as_ref(), &data.edit);
                self.ended_at_ms = Some(data.ended_at_ms);
                self.end_reason = Some(EndReason::Requested);
            }
            SessionEvent::ConsumptionAttached(data) => {
                self.doses.insert(data.consumption_id, data.dose.clone());
                self.doses_changed(data.ended_at_ms, &data.edit);
            }
            SessionEvent::ConsumptionChanged(data) => {
                self.doses.insert(data.consumption_id, data.dose.clone());
                self.doses_changed(data.ended_at_ms, &data.edit);
            }
            SessionEvent::ConsumptionDetached(data) => {
                self.doses.remove(&data.consumption_id);
                self.doses_changed(data.ended_at_ms, &data.edit);
            }
            SessionEvent::Deleted(data) => self.entity.delete(&data.edit),
        }
    }

    fn enter(
        &mut self,
        status: Status,
        set: &Fields,
        resolution: Option<&Resolution>,
        edit: &Edit,
    ) {
        let mut set = set.clone();
        set.insert("status".to_owned(), Value::from(status.as_str()));
        self.entity.change(&set, resolution, edit);
    }

    fn doses_changed(&mut self, ended_at_ms: Option<i64>, edit: &Edit) {
        self.entity.touch(edit);
        if ended_at_ms.is_some() {
            self.ended_at_ms = ended_at_ms;
        }
    }
}
