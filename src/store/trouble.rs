//! Whether the log takes what it is given.
//!
//! A database may answer every question and still take nothing: its disk is full, it has become a
//! standby, somebody holds a lock. Only those who append find out; here it is remembered for those
//! who are asked how the system is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::field::Empty;

use super::member::{AppendError, Member, Outcome};

/// How long a failure counts when no append has been tried since.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The last failure since the last success. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<Instant>>>);

impl Trouble {
    /// Takes note of what became of an append.
    pub fn note(&self, result: &Result<Outcome, AppendError>) {
        let failed = match result {
            Ok(_) => false,
            Err(AppendError::Unavailable | AppendError::Internal(_)) => true,
            // Nothing was tried.
            Err(_) => return,
        };
        if failed {
            metrics::counter!(crate::metrics::APPEND_FAILURES).increment(1);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failed.then(Instant::now);
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
