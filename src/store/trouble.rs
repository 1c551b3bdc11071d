//! Whether the log takes what it is given.
//!
//! A database may answer every question and still take nothing: its disk is full, it has become a
//! standby, somebody holds a lock. Only those who append find out; here it is remembered for those
//! who are asked how the system is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::field::Empty;

use super::appender::classify;
use super::member::{AppendError, Member, Outcome};

/// How long a failure counts when no append has been tried since.
const REMEMBERED: Duration = Duration::from_secs(30);

const REPORT: &str = "report it with this line; nobody else's appends are affected";
const LOOK: &str = "look for a full disk and for locks on the log's server";

/// The last failure since the last success. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<Instant>>>);

impl Trouble {
    /// Takes note of what became of an append.
    pub fn note(&self, result: &Result<Outcome, AppendError>) {
        if let Err(AppendError::Unavailable | AppendError::Internal(_)) = result {
            metrics::counter!(crate::metrics::APPEND_FAILURES).increment(1);
        }
        let last = match result {
            Ok(_) => None,
            Err(AppendError::Unavailable) => Some(Instant::now()),
            // One person's statement was refused, or nothing was tried: that says nothing of others.
            Err(_) => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// What a failed call is to its callers, after a line that says why. While the log is known to
    /// take nothing the line is for debugging: the first one said so, and many would follow.
    pub fn tell(&self, lane: &'static str, members: usize, cause: sqlx::Error) -> AppendError {
        let told = cause.to_string();
        let error = classify(cause);
        let defect = matches!(error, AppendError::Internal(_));
        if !defect && self.is_there() {
            tracing::debug!(lane, members, cause = told, "append failed");
        } else {
            let action = if defect { REPORT } else { LOOK };
            tracing::error!(lane, members, cause = told, action, "append failed");
        }
        error
    }

    /// Whether the last append failed, not long ago.
    pub fn is_there(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() < REMEMBERED)
    }
}

/// The span of one append. Its streams are ids, its position follows.
pub(super) fn append_span(member: &Member) -> Span {
    let events: usize = member.streams.iter().map(|stream| stream.events.len()).sum();
    let first = member.streams.iter().flat_map(|stream| &stream.events).next();
    let span = tracing::info_span!("append", events, correlation_id = Empty, position = Empty);
    if let Some(event) = first {
        span.record("correlation_id", tracing::field::display(event.metadata.correlation_id));
    }
    span
}

/// Completes the span, and leaves a line for who follows one request through.
pub(super) fn record(span: &Span, result: &Result<Outcome, AppendError>) {
    if let Ok(Outcome::Appended { last, .. }) = result {
        span.record("position", last);
    }
    span.in_scope(|| tracing::debug!(outcome = ?result.as_ref().ok(), "append answered"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> AppendError {
        AppendError::Internal(Arc::new(sqlx::Error::PoolClosed))
    }

    #[test]
    fn only_a_log_that_takes_nothing_is_trouble() {
        let trouble = Trouble::default();
        trouble.note(&Err(refused()));
        trouble.note(&Err(AppendError::TooLarge("")));
        assert!(!trouble.is_there(), "one person's defect is no reason to serve nobody");
        trouble.note(&Err(AppendError::Unavailable));
        assert!(trouble.is_there());
        trouble.note(&Err(refused()));
        assert!(trouble.is_there(), "nor does it say that the log takes anything");
        trouble.note(&Ok(Outcome::Duplicate));
        assert!(!trouble.is_there());
    }
}
