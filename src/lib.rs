//! The server of Tidemark: HTTP, authentication and the machinery behind them.

pub mod auth;
pub mod http;
pub mod metrics;
