//! The log and the projectors, on real Postgres.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod catalogue;
mod erasure;
mod log;
mod verify;
mod world;
