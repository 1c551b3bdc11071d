//! Logging: one subscriber for the process, on stderr, so that stdout stays for answers.
//!
//! Health values, notes and other personal content never enter a log line: callers log ids,
//! counts and codes.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogConfig, LogFormat};

/// Installs the subscriber. Later calls in the same process change nothing, so that tests may call it too.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::builder().parse_lossy(&config.filter);
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match config.format {
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_writer(stderr);
            registry.with(layer).try_init()
        }
    };
    if installed.is_err() {
        tracing::debug!("a log subscriber was installed before");
    }
}
