//! What is known about an event besides what happened.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who caused an event. Sealed together with the payload of personal events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Actor {
    /// The person the data belongs to.
    Owner,
    /// A member of staff or a service account, by token subject.
    Staff { subject: String },
    /// The system itself: a reactor, a job, a migration. The name says which.
    System { name: String },
}

/// Metadata of one event. The two ids stay readable in the log; the rest is personal and is
/// sealed with the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Ties together everything one request caused.
    pub correlation_id: Uuid,
    /// The event that led to this one, for reactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    pub actor: Actor,
    /// The app installation (`X-Device-ID`), if a phone caused the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The client's own id for the request or the pushed item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Metadata {
    /// Metadata of something the system does by itself.
    pub fn system(name: &str, correlation_id: Uuid) -> Self {
        Self {
            correlation_id,
            causation_id: None,
            actor: Actor::System { name: name.to_owned() },
            device_id: None,
            request_id: None,
        }
    }

    /// Metadata of something the owner did.
    pub fn owner(correlation_id: Uuid) -> Self {
        Self { actor: Actor::Owner, ..Self::system("", correlation_id) }
    }
}
