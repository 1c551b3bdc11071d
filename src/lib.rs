//! Tidemark: how it runs. The log, the read models, HTTP and the command line.
//!
//! What may happen lives in the `aggregates` crate, what it means in `projections`; both are pure.

pub mod app;
pub mod auth;
pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod demo;
pub mod housekeeping;
pub mod http;
pub mod ids;
pub mod import;
pub mod keys;
pub mod metrics;
pub mod postgres;
pub mod projector;
pub mod read_models;
pub mod sealing;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod watch;
