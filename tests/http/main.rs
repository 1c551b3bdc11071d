//! The API over real HTTP on real Postgres.

#[path = "../support/mod.rs"]
mod support;

mod health;
mod sync;
mod world;
