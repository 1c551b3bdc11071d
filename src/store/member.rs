//! What one append consists of.
//!
//! A [`Member`] is atomic: all its streams, receipts and reservations hold, or nothing of it is
//! written. What a person typed at one moment and must live or die together is one member.

use aggregates::{AnyEvent, Metadata, Purpose, StreamId, UserId};
use uuid::Uuid;

use crate::keys::Commitment;

/// What a change does to an entity; the operation of its sync-feed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create,
    Update,
    Delete,
}

impl Op {
    pub(super) fn code(self) -> i16 {
        match self {
            Self::Create => 1,
            Self::Update => 2,
            Self::Delete => 3,
        }
    }

    pub(super) fn from_code(code: i16) -> Self {
        match code {
            1 => Self::Create,
            3 => Self::Delete,
            _ => Self::Update,
        }
    }
}

/// An event that is about to be appended. Its sequence follows from its place in the stream.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Made by the caller (UUIDv7), because it is part of what the seal authenticates.
    pub event_id: Uuid,
    pub event: AnyEvent,
    pub metadata: Metadata,
    /// When the command was handled, in ms since the Unix epoch.
    pub recorded_at_ms: i64,
}

/// The folded state of a stream after its new events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewState {
    /// Version of the fold that made it; raised whenever `apply` changes its result.
    pub version: i32,
    /// JSON of the aggregate.
    pub json: Vec<u8>,
    pub purpose: Purpose,
}

/// New events of one stream, on top of an exact expectation of where it stands.
#[derive(Clone, Debug)]
pub struct StreamChange {
    pub stream: StreamId,
    pub user: UserId,
    /// The stream's sequence the decision was made on; 0 where it must not exist yet.
    pub expected: i64,
    pub events: Vec<NewEvent>,
    pub op: Op,
    /// The installation that caused the change, for telling a phone what came from itself.
    pub origin: Option<Uuid>,
    /// Absent where nobody needs the state before the projectors do.
    pub state: Option<NewState>,
}

/// What a request was answered, kept under a keyed hash of its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub user: UserId,
    /// `push`, `rest` or `health`.
    pub scope: &'static str,
    pub hmac: Vec<u8>,
    /// Keyed hash of the content, where reuse of an id with other content is told apart.
    pub content_hmac: Option<Vec<u8>>,
    /// Codes, ids and versions only.
    pub outcome: String,
}

/// A name that only one stream may hold at a time, under a keyed hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub scope: &'static str,
    pub hmac: Vec<u8>,
    /// The server key that made the hash; none where a key of the person did.
    pub key_id: Option<Uuid>,
    pub user: UserId,
    pub action: Claim,
}

/// What happens to a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Take it for this stream; refused where anyone holds it.
    Take(StreamId),
    /// Give it up; refused where this stream does not hold it.
    Release(StreamId),
    /// Take it over; refused where `from` does not hold it any more.
    Pass { from: StreamId, to: StreamId },
}

/// A change of a person's keys or of the rules for one purpose, folded from an event of the same
/// member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectChange {
    pub user: UserId,
    pub purpose: Purpose,
    pub kind: SubjectChangeKind,
}

/// See [`SubjectChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectChangeKind {
    Created {
        key_id: Uuid,
        commitment: Commitment,
    },
    Destroyed,
    /// Decisions made under the old privacy rules are refused from here on.
    RulesChanged,
}

/// The privacy version a decision was made under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivacyGuard {
    pub user: UserId,
    pub purpose: Purpose,
    pub version: i64,
}

/// All that must happen together.
#[derive(Clone, Debug, Default)]
pub struct Member {
    pub streams: Vec<StreamChange>,
    pub receipts: Vec<Receipt>,
    pub reservations: Vec<Reservation>,
    pub subject_changes: Vec<SubjectChange>,
    pub privacy: Option<PrivacyGuard>,
}

/// What became of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable. `first` and `last` are 0 where the member carried no event.
    Appended { first: i64, last: i64, committed_ms: i64 },
    /// A stream has moved on: load again and decide again.
    Conflict,
    /// One of its receipts exists: the request was answered before.
    Duplicate,
    /// A reservation is held by another stream: load again and decide again.
    Reserved,
    /// A key it was sealed with is gone, or the privacy rules have changed since.
    Refused,
}

/// Why nothing is known to have been written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The database did not answer; the member may or may not be durable. A retry under the same
    /// receipt finds out.
    #[error("the log is not reachable")]
    Unavailable,
    /// A limit of the log; deciding again would meet it again.
    #[error("{0}")]
    TooLarge(&'static str),
    #[error("sealing failed")]
    Sealing(#[from] std::sync::Arc<crate::sealing::SealError>),
    /// A key is missing or damaged although nobody destroyed it.
    #[error("a key could not be used")]
    Key(#[from] std::sync::Arc<crate::keys::KeyError>),
    /// The database refused the statement: a defect of ours, never an answer to the caller.
    #[error("the log refused the append")]
    Internal(#[source] std::sync::Arc<sqlx::Error>),
}
