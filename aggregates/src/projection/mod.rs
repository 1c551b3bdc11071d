//! What operators decide about read models, where the decision must outlive the read model.
//!
//! Invariants: an event is skipped for one projector at a time, by somebody who is named, with a
//! reference to the reason; a recorded skip is never taken back. It lies in the log and not beside
//! a read model, so that every rebuild repeats it at the same place. Nothing in it is personal, so
//! it stays readable after an erasure: a rebuild must not depend on whose keys are left.

mod aggregate;
mod event;

#[cfg(test)]
mod tests;

pub use aggregate::{MAX_REFERENCE, Skip, SkipCommand, SkipError};
pub use event::{EventSkipped, ProjectionEvent, TYPE};
