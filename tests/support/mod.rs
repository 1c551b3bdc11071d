//! What the integration tests share: real Postgres, one database per test.
//!
//! [`database`] gives each test a fresh, migrated database on one cluster that all test binaries of
//! this checkout share. The cluster runs without fsync, outlives the processes that use it, and ends
//! itself after some idle minutes. [`own_cluster`] gives a private, durable cluster to the tests that kill things.

#![allow(dead_code, reason = "each test binary uses its own part of the support")]

mod shared;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tempfile::TempDir;
use tidemark::app::App;
use tidemark::commands::verify::{
    bookkeeping::verify_bookkeeping, log::verify_log, people::verify_people,
};
use tidemark::postgres::{Cluster, EmbeddedConfig, PoolSettings, pool};
use tidemark::projector::compare;
use tidemark::read_models::ReadModel;
use tidemark::store::Store;

#[allow(unused_imports, reason = "each test binary uses its own part of the support")]
pub use shared::{TestDatabase, database, empty_database};

/// A private cluster with the settings of production, in a directory that vanishes with it.
pub struct OwnCluster {
    pub cluster: Cluster,
    pub directory: DataDir,
}

/// Starts a private cluster.
pub async fn own_cluster() -> OwnCluster {
    let directory = DataDir::new();
    let cluster = Cluster::start(&directory.config()).await.expect("a private cluster");
    OwnCluster { cluster, directory }
}

/// A temporary data directory that the user who runs Postgres may enter.
pub struct DataDir(TempDir);

impl DataDir {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-test-")
            .tempdir()
            .expect("a temporary directory");
        open_to_all(directory.path());
        Self(directory)
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub fn config(&self) -> EmbeddedConfig {
        embedded_config(self.path())
    }
}

/// The settings of production, with the Postgres programs that the caller chose, if any.
pub fn embedded_config(data_dir: impl Into<PathBuf>) -> EmbeddedConfig {
    EmbeddedConfig {
        bin_dir: std::env::var_os("TIDEMARK_POSTGRES_BIN").map(PathBuf::from),
        ..EmbeddedConfig::in_directory(data_dir)
    }
}

/// Lets other users pass, because root's Postgres runs as another one.
pub fn open_to_all(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("permissions");
}

/// A pool as the server would build it.
pub fn pool_of(options: &PgConnectOptions) -> PgPool {
    pool(options, &PoolSettings::interactive("test", 5))
}

/// One connection.
pub async fn connect(options: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(options).await.expect("a connection")
}

/// The same database as a URL, for a program of its own.
pub fn url_of(options: &PgConnectOptions) -> String {
    sqlx::ConnectOptions::to_url_lossy(options).to_string()
}

/// Log and state agree, as `tidemark verify log` and `state` see it.
pub async fn verified_log(store: &Store) {
    let log = verify_log(store, 1, 20, |_| {}).await.expect("a report");
    assert_eq!(log.faults.first, []);
    let beside = verify_bookkeeping(store, 20).await.expect("a report");
    assert_eq!(beside.faults.first, []);
    let people = verify_people(store, 20, |_| {}).await.expect("a report");
    assert_eq!(people.faults.first, []);
}

/// Log, state and read models agree, as `tidemark verify all` sees it. Projectors have caught up.
pub async fn verified(app: &App) {
    verified_log(&app.store).await;
    for model in ReadModel::ALL {
        let compared = compare::verify(&app.read_pool, &app.source(), model, |_| {}).await;
        let compared = compared.expect("a comparison");
        let troubles = (compared.differences.len(), compared.parked, compared.unsettled);
        assert_eq!(troubles, (0, 0, 0), "{model:?}");
    }
}

/// Says that a test shows nothing on this machine, and why. Where `TIDEMARK_TEST_NO_SKIP` is set
/// everything must be at hand, and the test fails.
pub fn skip(nothing_shown_about: &str, reason: &str) {
    eprintln!("SKIPPED: nothing was shown about {nothing_shown_about}: {reason}");
    let lenient = std::env::var_os("TIDEMARK_TEST_NO_SKIP").is_none_or(|value| value.is_empty());
    assert!(lenient, "TIDEMARK_TEST_NO_SKIP is set, and {nothing_shown_about}: {reason}");
}
