//! The platform under everything else: the embedded Postgres and the test support itself.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod clocks;
mod crash;
mod databases;
mod dice;
mod disk;
mod embedded;
mod keys;
mod observed;
mod restore;
mod served;
#[path = "../support/mod.rs"]
mod support;
