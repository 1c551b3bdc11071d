//! The log and the projectors, on real Postgres.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod catalogue;
mod erasure;
mod keys;
mod log;
mod order;
mod projector;
mod scan;
mod verify;
mod world;
