//! Where the data lives: a private Postgres of our own, or one that the operator names.
//!
//! [`Databases::open`] is the one entry: it starts or adopts the [`embedded`] cluster or takes the
//! configured URLs, makes sure that the log database and the key store exist, and hands out connect
//! options. Pools are built from those by [`connect::pool`], one per concern.

pub mod connect;
pub mod embedded;
pub mod migrate;
pub mod space;

use sqlx::postgres::PgConnectOptions;

pub use connect::{ConnectError, PoolSettings, create_database_if_missing, pool};
pub use embedded::{Cluster, EmbeddedConfig, EmbeddedError};
pub use migrate::{is_migrated, migrate, migrations_digest};

use crate::config::DatabaseConfig;

/// Names of the two databases in the embedded cluster.
const LOG_DATABASE: &str = "tidemark";
const KEYS_DATABASE: &str = "tidemark_keys";

/// Why the databases could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("could not run the embedded Postgres")]
    Embedded(#[from] EmbeddedError),
    #[error("could not prepare the databases")]
    Connect(#[from] ConnectError),
}

/// The log database and the key store, and the cluster under them when it is our own.
#[derive(Debug)]
pub struct Databases {
    /// Events, streams, jobs and read models.
    pub log: PgConnectOptions,
    /// Key material only; it is backed up apart from the log.
    pub keys: PgConnectOptions,
    cluster: Option<Cluster>,
}

impl Databases {
    /// Brings the databases up. They exist and answer afterwards; they are not migrated yet.
    ///
    /// # Errors
    /// When the embedded cluster cannot run, or the configured server cannot be reached.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, OpenError> {
        match config {
            DatabaseConfig::Embedded(embedded) => {
                let cluster = Cluster::start(embedded).await?;
                let log = cluster.connect_options(LOG_DATABASE);
                let keys = cluster.connect_options(KEYS_DATABASE);
                create_database_if_missing(&log).await?;
                create_database_if_missing(&keys).await?;
                Ok(Self { log, keys, cluster: Some(cluster) })
            }
            DatabaseConfig::External { log, keys } => {
                connect::check(log).await?;
                let keys = match keys {
                    Some(keys) => PgConnectOptions::clone(keys),
                    None => {
                        let keys = connect::sibling(log, "_keys");
                        tracing::warn!(
                            database = keys.get_database(),
                            "the key store shares a server with the log, which is development grade; set TIDEMARK_KEYS_URL"
                        );
                        create_database_if_missing(&keys).await?;
                        keys
                    }
                };
                connect::check(&keys).await?;
                Ok(Self { log: PgConnectOptions::clone(log), keys, cluster: None })
            }
        }
    }

    /// As [`open`](Self::open), for tools: a private cluster that a server runs already is used as
    /// it is, and left running.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_beside(config: &DatabaseConfig) -> Result<Self, OpenError> {
        match (Self::open(config).await, config) {
            (
                Err(OpenError::Embedded(EmbeddedError::Locked { .. })),
                DatabaseConfig::Embedded(embedded),
            ) => {
                let log = Cluster::beside(embedded, LOG_DATABASE)?;
                let keys = Cluster::beside(embedded, KEYS_DATABASE)?;
                connect::check(&log).await?;
                Ok(Self { log, keys, cluster: None })
            }
            (opened, _) => opened,
        }
    }

    /// Whether the data lives in our own cluster.
    pub const fn is_embedded(&self) -> bool {
        self.cluster.is_some()
    }

    /// Stops the embedded cluster, if there is one. Close all pools first.
    pub async fn close(self) {
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}
