//! A session: a stretch of time in which somebody consumes something.
//!
//! Invariants: a terminal status is never left; status moves only along the state machine; counts,
//! durations and bounds are computed from the attached consumptions and never taken from a client;
//! a session does not end in the future; no command leaves more than one event.

mod aggregate;
mod change;
mod command;
mod contract;
mod decide;
mod derived;
mod error;
mod event;
mod state;
mod wire;

#[cfg(test)]
mod tests;

pub use command::SessionCommand;
pub use contract::CONTRACT;
pub use derived::{Derived, IDLE_TIMEOUT_MS};
pub use error::SessionError;
pub use event::{
    ConsumptionAttached, ConsumptionChanged, ConsumptionDetached, EndReason, SessionCancelled,
    SessionDeleted, SessionEnded, SessionEvent, SessionPaused, SessionResumed, SessionStarted,
    SessionUpdated,
};
pub use state::{Dose, Session, Status};
