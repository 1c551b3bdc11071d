//! How two edits of one entity become one, decided field by field.
//!
//! A merge knows three states: the *base* the person was looking at, what is *stored* now, and what
//! is *incoming*. A field that only one side touched since the base always survives. Only where
//! both sides touched it does the field's declared [`Policy`] decide, and the decision is kept in
//! the event as a [`Resolution`], so that nothing is overwritten without a trace.

mod policy;
mod resolution;
mod resolve;

#[cfg(test)]
mod tests;

pub use policy::{Nulls, Policy};
pub use resolution::{Basis, FieldResolution, Resolution, TwoWayReason, Winner};
pub use resolve::{Base, Merge, Resolved, resolve};
