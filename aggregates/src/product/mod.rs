//! A product of the public catalogue: what people consume, described once for everybody.
//!
//! Nothing in it is personal, so its events are readable JSON and its stream works with any
//! `cqrs_es` repository. Invariants: a withdrawn product is never changed again; a definition or
//! an update that says nothing new leaves no event.

mod aggregate;
mod contract;
mod event;

#[cfg(test)]
mod tests;

pub use aggregate::{CatalogueProduct, ProductCommand, ProductError};
pub use contract::CONTRACT;
pub use event::{CatalogueProductEvent, ProductDefined, ProductUpdated, ProductWithdrawn, TYPE};
