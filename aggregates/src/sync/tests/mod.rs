//! Sync invariants over an in-memory log.

mod desk;
mod world;
