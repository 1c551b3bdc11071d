//! Sync invariants over an in-memory log.

mod desk;
mod fleet;
mod simulation;
mod wire;
mod world;
