//! Use cases: load what a decision needs, decide, append, answer.
//!
//! Nothing here knows of HTTP. A command answers from what it decided, never by reading a
//! projection of its own effect.

pub mod access;
pub mod catalogue;
pub mod consumptions;
pub mod entities;
pub mod health;
pub mod load;
pub mod observe;
pub mod projection;
pub mod sessions;
pub mod subject;
pub mod sync;
pub mod users;
pub mod verify;

use aggregates::{AnyEvent, Metadata};

use crate::store::{AppendError, NewEvent, ReadError};
use crate::{clock, ids};

/// How often a command is decided again because somebody else was faster.
pub const ATTEMPTS: usize = 8;

/// Why a command had no effect, apart from the domain's own refusals.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("what the command is about does not exist")]
    NotFound,
    /// Somebody else was faster, every time; trying again later is sound.
    #[error("too many changes at once")]
    Busy,
    #[error("the log could not be read")]
    Read(#[from] ReadError),
    #[error("the log could not be written")]
    Append(#[from] AppendError),
}

/// Decided events as the store takes them, all of one moment.
pub fn events_of<E: Into<AnyEvent>>(
    events: impl IntoIterator<Item = E>,
    metadata: &Metadata,
) -> Vec<NewEvent> {
    let recorded_at_ms = clock::now_ms();
    events
        .into_iter()
        .map(|event| NewEvent {
            event_id: ids::new_event_id(),
            event: event.into(),
            metadata: metadata.clone(),
            recorded_at_ms,
        })
        .collect()
}
