//! What a desk is asked, and what it says.

use uuid::Uuid;

use super::facts::EntityKey;
use crate::conflict::Resolution;
use crate::entity::{Context, EntityChange, EntityContract, FieldError, Fields};
use crate::session::{SessionCommand, SessionError};

/// A wish to change one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub contract: &'static EntityContract,
    /// The ids the caller may know the entity by, most telling first: its server id or any client
    /// id. For a creation, the ids it is to be known by.
    pub ids: Vec<String>,
    /// A random id for the entity, used where it is new and none of `ids` can be.
    pub fresh_id: Uuid,
    pub action: Action,
    pub ctx: Context,
    /// The client's id of the request or the pushed item.
    pub request_id: Option<String>,
}

/// What is to happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A change of the whole entity; its fields are normalised, its references are not translated.
    Change { change: EntityChange, base: BasePoint },
    /// A creation, of normalised fields, that leaves what exists already as it is.
    Create(Fields),
    /// A command to a session.
    Session(SessionCommand),
}

/// What the person was looking at while editing, as far as the caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BasePoint {
    /// The stored version, whatever it is.
    Current,
    /// This version of the entity.
    Version(i64),
    /// What the installation had acknowledged when the edit was made, latest first, and no version
    /// from `below` on.
    Seen { acks: Vec<Ack>, below: Option<i64> },
}

/// An installation said that it holds every row of the feed up to `position`.
///
/// The feed has one row an entity, at its last change. So what an acknowledgement proves of an
/// entity is the version it had when the log ended at `head`, and only if that row was not after
/// `position`; otherwise an earlier acknowledgement has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub position: i64,
    /// Where the log ended when it was said.
    pub head: i64,
}

impl Ack {
    /// The version these acknowledgements, latest first, prove of an entity whose changes have the
    /// positions `changes`.
    pub fn proven(acks: &[Self], changes: &[i64]) -> i64 {
        let version = |ack: &Self| {
            let count = changes.partition_point(|at| *at <= ack.head);
            let last = count.checked_sub(1).map_or(0, |index| changes[index]);
            (last <= ack.position).then(|| i64::try_from(count).unwrap_or(i64::MAX))
        };
        acks.iter().find_map(version).unwrap_or_default()
    }
}

/// What an accepted ask came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The entity; its id is the server's id.
    pub key: EntityKey,
    pub effect: Effect,
    /// Of the entity when everything was decided; 0 where there is none.
    pub version: i64,
    /// How a concurrent edit was merged, if one was met.
    pub resolution: Option<Resolution>,
}

/// What happened to the entity asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Created,
    Updated,
    /// Updated after a merge with a concurrent edit.
    Merged,
    Deleted,
    /// Nothing: it is already as asked. Also the deletion of something nobody knows.
    Unchanged,
    /// Nothing: the payload lost to a deletion or to other edits and is kept for recovery.
    Superseded,
}

impl Effect {
    /// The stable word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Merged => "merged",
            Self::Deleted => "deleted",
            Self::Unchanged => "unchanged",
            Self::Superseded => "superseded",
        }
    }
}

/// Why an ask is refused. Nothing of it happens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The payload itself is wrong; sending it again will not help.
    #[error("{} field(s) are not valid", .0.len())]
    Invalid(Vec<FieldError>),
    /// An edit of something nobody has seen. Its creation may still be on the way.
    #[error("the entity is not known")]
    Unknown,
    /// A required reference to something that has not arrived yet.
    #[error("the referenced entity is not known yet")]
    MissingReference { field: &'static str, target: &'static str, value: String },
    /// The session's state does not allow the command.
    #[error(transparent)]
    Session(SessionError),
}
