//! Identifiers and the names of streams.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The internal id of a person: random, and the only id of theirs that is stored in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub Uuid);

impl UserId {
    /// The owner of everything public, such as catalogue products.
    pub const CATALOGUE: UserId = UserId(Uuid::from_u128(1));
    /// The owner of events the system itself causes, such as records of operators' reads.
    pub const SYSTEM: UserId = UserId(Uuid::from_u128(2));

    /// Whether the id is one of the fixed system users, which own no personal data.
    pub fn is_system(self) -> bool {
        self == Self::CATALOGUE || self == Self::SYSTEM
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Uuid> for UserId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

/// The name of one stream: the aggregate's type and its random id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId {
    /// `cqrs_es::Aggregate::TYPE`, such as `session`.
    pub aggregate_type: String,
    /// Text of a random UUID, or a date for the clock's streams.
    pub aggregate_id: String,
}

impl StreamId {
    /// The stream of `aggregate_type` with the given id.
    pub fn new(aggregate_type: &str, aggregate_id: impl fmt::Display) -> Self {
        Self { aggregate_type: aggregate_type.to_owned(), aggregate_id: aggregate_id.to_string() }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.aggregate_type, self.aggregate_id)
    }
}
