//! An event as a reader of the log sees it.

use uuid::Uuid;

use crate::registry::AnyEvent;
use crate::{Metadata, StreamId, UserId};

/// One event of the log, opened and upcast to its current version.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Place in the whole log: dense, from 1, in commit order.
    pub position: i64,
    /// When it was committed, in ms since the Unix epoch; never decreases with the position.
    pub committed_ms: i64,
    pub event_id: Uuid,
    pub stream: StreamId,
    /// Place in its stream, from 1.
    pub sequence: i64,
    pub user: UserId,
    /// The type as stored, such as `session.started`.
    pub event_type: String,
    /// When the command was handled, in ms since the Unix epoch.
    pub recorded_at_ms: i64,
    pub content: Content,
}

/// What an event says, as far as it can still be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Open {
        event: Box<AnyEvent>,
        metadata: Metadata,
    },
    /// The key that sealed it was destroyed at the person's request. Folds skip the event.
    Shredded,
}

impl Recorded {
    /// The event, unless its key was destroyed.
    pub fn event(&self) -> Option<&AnyEvent> {
        match &self.content {
            Content::Open { event, .. } => Some(event),
            Content::Shredded => None,
        }
    }
}
