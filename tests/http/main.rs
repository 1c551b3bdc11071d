//! The API over real HTTP on real Postgres.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "helpers are handed values made on the spot")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod consumptions;
mod erasure;
mod fixture;
mod health;
mod rest;
mod rollups;
mod sessions;
mod sync;
mod users;
mod world;
