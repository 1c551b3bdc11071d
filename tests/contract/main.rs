//! The written contract of the log: schemas, examples, the lock and the way from old to new.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod architecture;
mod docs;
mod events;
mod examples;
mod generated;
mod released;
mod schemas;
