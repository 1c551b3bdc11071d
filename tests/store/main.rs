//! The log and the projectors, on real Postgres.

#[path = "../support/mod.rs"]
mod support;

mod erasure;
mod log;
mod world;
