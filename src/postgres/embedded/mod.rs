//! A private Postgres from the installed server programs, for machines where nothing is configured.
//!
//! The cluster belongs to one data directory and is reachable only through a Unix socket in a 0700
//! directory. Invariants:
//! - at most one Tidemark server works on a data directory (a file lock says so);
//! - at most one postmaster runs on it, and no other cluster's postmaster is ever signalled;
//! - an answered commit is on disk: fsync and `synchronous_commit` stay on;
//! - the death of either process loses nothing: a surviving postmaster is adopted by the next
//!   server, a dead one is restarted by the running server.

mod account;
mod cluster;
mod initialise;
mod layout;
mod postmaster;
mod programs;
mod settings;

use std::{io, path::PathBuf};

pub use cluster::Cluster;
pub use programs::Programs;

/// What a cluster needs to know.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Holds the cluster, its socket, its log and the lock. Created if missing.
    pub data_dir: PathBuf,
    /// Where `initdb` and `postgres` are; searched for if absent.
    pub bin_dir: Option<PathBuf>,
    /// Server settings on top of the built-in ones, which they override.
    pub settings: Vec<(String, String)>,
}

impl EmbeddedConfig {
    /// The defaults for this data directory.
    pub fn in_directory(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), bin_dir: None, settings: Vec::new() }
    }

    /// The same with one more server setting.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Why the embedded cluster cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no Postgres server programs (initdb, postgres {minimum} or newer) found; tried {tried} ({hint})"
    )]
    ProgramsNotFound { minimum: u32, tried: String, hint: &'static str },
    #[error(
        "{} was made by Postgres {wanted}, but only {found} is installed (install postgresql-{wanted}, or dump and restore)",
        .data_dir.display()
    )]
    OtherVersion { data_dir: PathBuf, wanted: u32, found: String },
    #[error(
        "another Tidemark server{} is using {} (stop it, or set another TIDEMARK_DATA_DIR)",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        .data_dir.display()
    )]
    Locked { data_dir: PathBuf, pid: Option<u32> },
    #[error(
        "user {user}, who runs Postgres because root may not, cannot enter {} (set TIDEMARK_DATA_DIR to a directory whose parents everybody may enter)",
        .directory.display()
    )]
    NotTraversable { directory: PathBuf, user: String },
    #[error("{} is not safe to hold the socket: {reason} (remove it)", .directory.display())]
    UnsafeSocketDirectory { directory: PathBuf, reason: &'static str },
    #[error("initdb could not make a cluster in {}: {output}", .directory.display())]
    Initialise { directory: PathBuf, output: String },
    #[error("Postgres did not start (its log is {}): {output}", .log.display())]
    Start { log: PathBuf, output: String },
    #[error(
        "a Postgres (process {pid}) seems to hold this data directory, and neither answers nor stops (stop it by hand)"
    )]
    Stuck { pid: i32 },
    #[error("could not {action} {}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// Names the file in an error of the operating system.
fn failed(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.into();
    move |source| EmbeddedError::Io { action, path, source }
}
