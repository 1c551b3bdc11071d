//! The server and its command line: how Tidemark runs.

pub mod cli;
pub mod client;
pub mod demo;
pub mod import;
