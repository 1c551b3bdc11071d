//! What is known about an event besides what happened.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who caused an event. Sealed together with the payload of personal events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", try_from = "ReadActor")]
pub enum Actor {
    /// The person the data belongs to.
    Owner,
    /// A member of staff or a service account, by token subject.
    Staff { subject: String },
    /// The system itself: a reactor, a job, a migration. The name says which.
    System { name: String },
}

/// [`Actor`] as it is read: serde reads tagged enums by way of a tree, and every event has one.
#[derive(Deserialize)]
struct ReadActor {
    kind: ActorKind,
    subject: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActorKind {
    Owner,
    Staff,
    System,
}

impl TryFrom<ReadActor> for Actor {
    type Error = &'static str;

    fn try_from(read: ReadActor) -> Result<Self, Self::Error> {
        match (read.kind, read.subject, read.name) {
            (ActorKind::Owner, ..) => Ok(Self::Owner),
            (ActorKind::Staff, Some(subject), _) => Ok(Self::Staff { subject }),
            (ActorKind::System, _, Some(name)) => Ok(Self::System { name }),
            (ActorKind::Staff | ActorKind::System, ..) => Err("an actor without a name"),
        }
    }
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

/// The part of [`Metadata`] that stays readable.
#[derive(Serialize, Deserialize)]
struct Clear {
    correlation_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causation_id: Option<Uuid>,
}

/// The part of [`Metadata`] that is sealed.
#[derive(Serialize, Deserialize)]
struct Personal {
    actor: Actor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl Metadata {
    /// JSON of all of it, for events without personal content.
    pub fn whole(&self) -> String {
        crate::event::to_payload(self)
    }

    /// JSON of the part that stays readable, and of the part that is sealed.
    pub fn split(self) -> (String, String) {
        let Self { correlation_id, causation_id, actor, device_id, request_id } = self;
        let clear = Clear { correlation_id, causation_id };
        let personal = Personal { actor, device_id, request_id };
        (crate::event::to_payload(&clear), crate::event::to_payload(&personal))
    }

    /// The two parts put together again; none where one does not decode.
    pub fn join(clear: &str, personal: &str) -> Option<Self> {
        let Clear { correlation_id, causation_id } = serde_json::from_str(clear).ok()?;
        let Personal { actor, device_id, request_id } = serde_json::from_str(personal).ok()?;
        Some(Self { correlation_id, causation_id, actor, device_id, request_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_come_back() {
        for actor in [
            Actor::Owner,
            Actor::Staff { subject: "ada".to_owned() },
            Actor::System { name: "sweeper".to_owned() },
        ] {
            let json = serde_json::to_string(&actor).unwrap();
            assert_eq!(serde_json::from_str::<Actor>(&json).unwrap(), actor, "{json}");
        }
        for broken in [r#"{"kind":"staff"}"#, r#"{"kind":"other"}"#, r#"{"subject":"ada"}"#] {
            assert!(serde_json::from_str::<Actor>(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn only_the_two_ids_stay_readable() {
        let metadata = Metadata {
            device_id: Some("phone".to_owned()),
            request_id: Some("r-1".to_owned()),
            ..Metadata::owner(Uuid::from_u128(7))
        };
        let (clear, personal) = metadata.clone().split();
        assert!(!clear.contains("phone") && !clear.contains("r-1") && !clear.contains("owner"));
        assert_eq!(Metadata::join(&clear, &personal), Some(metadata));
    }
}
