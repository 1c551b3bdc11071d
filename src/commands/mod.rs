//! Use cases: load what a decision needs, decide, append, answer.
//!
//! Nothing here knows of HTTP. A command answers from what it decided, never by reading a
//! projection of its own effect.

pub mod load;
pub mod subject;

use crate::store::{AppendError, ReadError};

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
