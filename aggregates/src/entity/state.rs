//! The state of one synced entity, folded from its stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::conflict::{Resolution, Winner};

/// Field values by canonical name. In state an empty field is absent; in an event's `set` and in
/// incoming changes an explicit null clears.
pub type Fields = BTreeMap<String, Value>;

/// The facts a decision needs from outside: the crate itself has no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// When the server handles the command, in ms since the Unix epoch.
    pub now_ms: i64,
    /// When the person made the edit, corrected for the clock of their device. At most `now_ms`.
    pub edited_at_ms: i64,
    /// The installation the edit was made on; `None` for the server itself.
    pub origin: Option<Uuid>,
}

impl Context {
    /// An edit made right now, on the server's side of the wire.
    pub fn now(now_ms: i64) -> Self {
        Self { now_ms, edited_at_ms: now_ms, origin: None }
    }

    /// The edit as events keep it. A device cannot edit in the future.
    pub fn edit(&self) -> Edit {
        Edit {
            at_ms: self.now_ms,
            edited_at_ms: self.edited_at_ms.min(self.now_ms),
            origin: self.origin,
        }
    }
}

/// When and where a change was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Edit {
    /// When the server accepted it, in ms since the Unix epoch: the wire's `updatedAt`.
    pub at_ms: i64,
    /// When the person made it, corrected for their device's clock, in ms since the Unix epoch.
    pub edited_at_ms: i64,
    /// The installation it was made on; absent for the server's own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Uuid>,
}

/// Who set a field last, when, and in which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub version: i64,
    /// When the edit was made: orders the edits of one installation.
    pub edited_at_ms: i64,
    /// The latest edit time the value takes into account: orders edits of different installations.
    /// An edit made in the knowledge of a later one, by a slower clock, counts as no earlier.
    pub clock_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Uuid>,
}

/// One synced entity. Version 0 means that nothing has happened yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EntityState {
    /// Events of the stream so far: the wire's `version`.
    pub version: i64,
    /// Final. The fields stay, so that children can be told.
    pub deleted: bool,
    pub fields: Fields,
    /// The last edit of each field that was ever set, also of those that are empty now.
    pub stamps: BTreeMap<String, Stamp>,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    /// The installation of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Uuid>,
}

impl EntityState {
    /// Whether the entity was ever created.
    pub fn exists(&self) -> bool {
        self.version > 0
    }

    /// Whether the entity exists and was not deleted.
    pub fn is_live(&self) -> bool {
        self.exists() && !self.deleted
    }

    /// Whether somebody who read this `updatedAt`, in ms, has missed a change. One ms is rounding.
    pub fn is_stale(&self, last_known_updated_at_ms: i64) -> bool {
        last_known_updated_at_ms.abs_diff(self.updated_at_ms) > 1
    }

    /// The text of a field, if it has one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }

    /// Folds the first event.
    pub fn create(&mut self, fields: &Fields, edit: &Edit) {
        self.created_at_ms = edit.at_ms;
        self.change(fields, None, edit);
    }

    /// Folds one event that sets fields; null clears. A value that was combined from both sides is
    /// nobody's own: the installation that sent the change has not seen it.
    pub fn change(&mut self, set: &Fields, resolution: Option<&Resolution>, edit: &Edit) {
        self.touch(edit);
        for (name, value) in set {
            let combined = resolution
                .and_then(|resolution| resolution.fields.get(name))
                .is_some_and(|field| field.winner == Winner::Both);
            let before = self.stamps.get(name).map_or(i64::MIN, |stamp| stamp.clock_ms);
            let stamp = Stamp {
                version: self.version,
                edited_at_ms: edit.edited_at_ms,
                clock_ms: edit.edited_at_ms.max(before),
                origin: edit.origin.filter(|_| !combined),
            };
            self.stamps.insert(name.clone(), stamp);
            if value.is_null() {
                self.fields.remove(name);
            } else {
                self.fields.insert(name.clone(), value.clone());
            }
        }
    }

    /// Folds the last event.
    pub fn delete(&mut self, edit: &Edit) {
        self.touch(edit);
        self.deleted = true;
    }

    /// Folds an event that changes none of the declared fields.
    pub fn touch(&mut self, edit: &Edit) {
        self.version += 1;
        self.updated_at_ms = edit.at_ms;
        self.origin = edit.origin;
    }
}
