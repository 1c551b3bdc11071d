//! A look at a person's data by somebody else, recorded before anything is shown.
//!
//! Invariants: no access without a reason and without naming what was read; a recorded access is
//! never changed or taken back. The event belongs to the person whose data was read and is sealed
//! under their identity key, so that they can be told who read what, and nobody else can.

mod aggregate;
mod event;

#[cfg(test)]
mod tests;

pub use aggregate::{Access, AccessCommand, AccessError, MAX_POSITIONS, MAX_REASON};
pub use event::{AccessEvent, AccessRevealed, Revealed, TYPE};
