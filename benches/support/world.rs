//! A private cluster with the settings of production, and an open log with people in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use aggregates::{Metadata, UserId};
use futures_util::future::join_all;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tidemark::commands::subject::create_keys;
use tidemark::ids;
use tidemark::keys::{CacheLimits, Keyring, MasterKey, PostgresKeyStore};
use tidemark::postgres::{
    Cluster, EmbeddedConfig, PoolSettings, create_database_if_missing, migrate, pool,
};
use tidemark::store::{Outcome, Store};

/// Connections as the server has them.
const READS: u32 = 24;
const APPENDS: u32 = 2;

/// A temporary data directory that the user who runs Postgres may enter.
pub struct DataDir(TempDir);

impl DataDir {
    pub fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("tidemark-bench-").tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .expect("permissions");
        Self(directory)
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub fn config(&self) -> EmbeddedConfig {
        EmbeddedConfig {
            bin_dir: std::env::var_os("TIDEMARK_POSTGRES_BIN").map(PathBuf::from),
            ..EmbeddedConfig::in_directory(self.path())
        }
    }
}

/// An open log on a cluster of its own.
pub struct World {
    pub store: Store,
    pub log: PgConnectOptions,
    pub admin: PgPool,
    keys: PgConnectOptions,
    cluster: Cluster,
    _directory: DataDir,
}

impl World {
    pub async fn new() -> Self {
        let directory = DataDir::new();
        // Room for both sides' connections; everything else as a user gets it.
        let config = directory.config().with_setting("max_connections", "150");
        let cluster = Cluster::start(&config).await.expect("a cluster");
        let log = cluster.connect_options("tidemark");
        let keys = cluster.connect_options("tidemark_keys");
        create_database_if_missing(&log).await.expect("the log's database");
        create_database_if_missing(&keys).await.expect("the keys' database");
        migrate(&log).await.expect("the log's schema");
        let store = open(&log, &keys).await;
        let admin = pool(&log, &PoolSettings::background("bench", 2));
        Self { store, log, admin, keys, cluster, _directory: directory }
    }

    /// The same log as another process would open it.
    pub async fn another_process(&self) -> Store {
        open(&self.log, &self.keys).await
    }

    /// New people with keys.
    pub async fn people(&self, count: usize) -> Vec<UserId> {
        let people = (0..count).map(|_| async {
            let user = UserId(ids::new_id());
            let member = create_keys(&self.store, user, &metadata()).await.expect("keys");
            let outcome = self.store.append(member).await.expect("an append");
            assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
            user
        });
        join_all(people).await
    }

    /// Before each turn, so that every side pays for its own full-page images.
    pub async fn checkpoint(&self) {
        sqlx::query("CHECKPOINT").execute(&self.admin).await.expect("a checkpoint");
    }

    pub async fn close(self) {
        self.cluster.stop().await;
    }
}

async fn open(log: &PgConnectOptions, keys: &PgConnectOptions) -> Store {
    let key_pool = pool(keys, &PoolSettings::background("bench-keys", 4));
    let key_store = PostgresKeyStore::open(key_pool).await.expect("the key store");
    let master = MasterKey::parse(&"5e".repeat(32)).expect("a master key");
    let keyring = Keyring::new(Arc::new(key_store), master, CacheLimits::default());
    let reads = pool(log, &PoolSettings::interactive("bench-ours", READS));
    let appends = pool(log, &PoolSettings::interactive("bench-append", APPENDS));
    Store::open(reads, appends, keyring).await.expect("the log")
}

pub fn metadata() -> Metadata {
    Metadata::owner(ids::new_id())
}
