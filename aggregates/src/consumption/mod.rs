//! A consumption: one act of consuming something, a dose.
//!
//! A plain synced entity; which session it belongs to is chosen by [`session_for`].

mod attach;
mod contract;
mod effects;

pub use attach::{Candidate, dose_of, session_for};
pub use contract::{CONTRACT, Consumptions};
pub use effects::{session_deleted_effects, session_effects};

/// A consumption as a `cqrs_es` aggregate.
pub type Consumption = crate::entity::Entity<Consumptions>;
