//! What is seen of commands: a span while one is handled, and a count of how it ended.

use aggregates::StreamId;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::CommandError;
use super::access::RevealError;
use super::catalogue::CatalogueError;
use super::health::UploadError;
use super::projection::SkipFailure;
use super::users::AccountError;
use crate::metrics::{COMMANDS, IDEMPOTENT_REPLAYS};

/// How a command without effect ended.
pub trait Ending {
    /// `refused` by a rule, `busy` because others were faster, or `failed` with a database.
    fn ending(&self) -> &'static str;
}

/// Handles a command in a span of its own and counts what became of it.
pub async fn observed<T, E>(
    aggregate: &'static str,
    command: &'static str,
    handling: impl Future<Output = Result<T, E>>,
    outcome: impl FnOnce(&Result<T, E>) -> &'static str,
) -> Result<T, E> {
    let result = handling.instrument(span(aggregate, command)).await;
    count(aggregate, command, outcome(&result));
    result
}

/// The outcome where everything that succeeds is `done`.
pub fn ended<T, E: Ending>(result: &Result<T, E>) -> &'static str {
    result.as_ref().map_or_else(Ending::ending, |_| "done")
}

/// The span of a command. Its stream follows where there is one, and nothing else is told.
pub fn span(aggregate: &'static str, command: &'static str) -> Span {
    tracing::info_span!("command", aggregate, command, stream = Empty)
}

/// Says which stream the current command is about.
pub fn about(stream: &StreamId) {
    Span::current().record("stream", tracing::field::display(stream));
}

/// Counts one command.
pub fn count(aggregate: &'static str, command: &'static str, outcome: &'static str) {
    metrics::counter!(COMMANDS, "aggregate" => aggregate, "command" => command, "outcome" => outcome)
        .increment(1);
}

/// Counts requests, or items of one, that were answered from their receipts.
pub fn count_replays(scope: &'static str, replays: usize) {
    metrics::counter!(IDEMPOTENT_REPLAYS, "scope" => scope).increment(replays as u64);
}

impl Ending for CommandError {
    fn ending(&self) -> &'static str {
        match self {
            Self::NotFound => "refused",
            Self::Busy => "busy",
            Self::Read(_) | Self::Append(_) => "failed",
        }
    }
}

impl Ending for AccountError {
    fn ending(&self) -> &'static str {
        match self {
            Self::Erased | Self::UsernameTaken | Self::Refused(_) => "refused",
            Self::Command(error) => error.ending(),
        }
    }
}

impl Ending for UploadError {
    fn ending(&self) -> &'static str {
        match self {
            Self::ContentDiffers | Self::UploadsDisabled => "refused",
            Self::Account(error) => error.ending(),
        }
    }
}

impl Ending for SkipFailure {
    fn ending(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Command(error) => error.ending(),
        }
    }
}

impl Ending for RevealError {
    fn ending(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Command(error) => error.ending(),
        }
    }
}

impl Ending for CatalogueError {
    fn ending(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Busy => "busy",
            Self::Store(_) => "failed",
        }
    }
}
