//! How Tidemark runs: Postgres, HTTP, the command line and background work.
//!
//! What may happen is decided in `aggregates`; what it means is computed in `projections`.

pub mod config;
pub mod postgres;
pub mod projector;
pub mod read_models;
pub mod telemetry;
