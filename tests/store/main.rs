//! The log and the projectors, on real Postgres.

#[path = "../support/mod.rs"]
mod support;

mod projector;
