//! The composition root: the only place that builds everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::commands::users::Accounts;
use crate::config::{Config, DatabaseConfig};
use crate::keys::{
    KeyError, Keyring, Lookup, MasterKeyError, Masters, PostgresKeyStore, ServerKey, ServerKeyName,
};
use crate::postgres::{self, Databases, PoolSettings};
use crate::projector::{ProjectorError, StoreSource, generation};
use crate::sealing::CursorKey;
use crate::store::{self, Store};

/// Connections for reads, lanes and requests.
const POOL: u32 = 24;
/// Connections of the appender, which uses one: the other takes its place while a broken one is closed.
const APPEND_POOL: u32 = 2;
/// Connections to the key store.
const KEYS_POOL: u32 = 4;
/// The role the server works as: it can add to the log only by `append`.
const APP_ROLE: &str = "tidemark_app";

/// Everything that serves requests and runs projectors.
pub struct App {
    pub store: Store,
    pub accounts: Accounts,
    pub cursor_key: CursorKey,
    /// Read models and projector bookkeeping.
    pub read_pool: PgPool,
    /// Where dev keys and the master key lie.
    pub data_dir: PathBuf,
    databases: tokio::sync::Mutex<Option<Databases>>,
    pools: Vec<PgPool>,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("could not open the databases")]
    Databases(#[from] postgres::OpenError),
    #[error("could not bring the log's schema up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("could not read the master key")]
    Master(#[from] MasterKeyError),
    #[error("could not open the key store")]
    Keys(#[from] KeyError),
    #[error("could not open the log")]
    Store(#[from] store::OpenError),
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error(
        "the log has events but the key store has no keys \
         (restore the key store that belongs to this log, or start with an empty data directory)"
    )]
    KeysLost,
    #[error(
        "there is no log in {path} yet (start `tidemark serve` first, or set TIDEMARK_DATA_DIR)"
    )]
    Nothing { path: PathBuf },
    #[error("the log has another schema than this program (run `tidemark migrate`)")]
    OtherSchema,
    #[error("could not prepare {path}")]
    DataDir { path: PathBuf, source: std::io::Error },
}

impl App {
    /// Brings the databases up, migrates, checks keys and opens the log.
    ///
    /// # Errors
    /// [`StartError`] with what to do about it.
    pub async fn start(config: &Config) -> Result<Arc<Self>, StartError> {
        let databases = Databases::open(&config.database).await?;
        postgres::migrate(&databases.log).await?;
        Self::assemble(config, databases).await
    }

    /// As [`start`](Self::start), for tools that may run beside a server: what is not there is not
    /// made, and the schema is left as it is.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`StartError::Nothing`] and [`StartError::OtherSchema`].
    pub async fn beside(config: &Config) -> Result<Arc<Self>, StartError> {
        if let DatabaseConfig::Embedded(embedded) = &config.database
            && !embedded.data_dir.join("cluster").is_dir()
        {
            return Err(StartError::Nothing { path: embedded.data_dir.clone() });
        }
        let databases = Databases::open_beside(&config.database).await?;
        if !postgres::is_migrated(&databases.log).await? {
            databases.close().await;
            return Err(StartError::OtherSchema);
        }
        Self::assemble(config, databases).await
    }

    async fn assemble(config: &Config, databases: Databases) -> Result<Arc<Self>, StartError> {
        let data_dir = config.data_dir.clone();
        if matches!(config.database, DatabaseConfig::External { .. }) {
            make_private(&data_dir)?;
        }
        let log_options = as_app_role(&databases.log).await?;
        let pool = postgres::pool(&log_options, &PoolSettings::interactive("tidemark", POOL));
        let appends = postgres::pool(
            &log_options,
            &PoolSettings::interactive("tidemark-append", APPEND_POOL),
        );
        // A swap holds its transaction while the new generation makes up the last positions.
        let projecting = PoolSettings {
            idle_in_transaction_timeout: Duration::from_secs(30),
            ..PoolSettings::background("tidemark-projector", POOL / 2)
        };
        let read_pool = postgres::pool(&databases.log, &projecting);
        let keys_pool =
            postgres::pool(&databases.keys, &PoolSettings::interactive("tidemark-keys", KEYS_POOL));
        let masters = Masters::obtain(
            config.master_key.as_ref().map(crate::config::Redacted::expose),
            &data_dir,
        )?;
        let key_store = PostgresKeyStore::open(keys_pool.clone()).await?;
        let keyring = Keyring::new(Arc::new(key_store), masters, config.key_cache);
        keyring.check_master().await?;
        let store = Store::open(pool.clone(), appends.clone(), keyring.clone()).await?;
        let cursor = server_keys(&store, &keyring).await?;
        let lookup = Lookup::open(keyring).await?;
        Ok(Arc::new(Self {
            accounts: Accounts::new(store.clone(), lookup),
            cursor_key: cursor.cursor_key()?,
            store,
            read_pool: read_pool.clone(),
            data_dir,
            databases: tokio::sync::Mutex::new(Some(databases)),
            pools: vec![pool, appends, read_pool, keys_pool],
        }))
    }

    /// The log and its state as projectors read them.
    pub fn source(&self) -> StoreSource {
        StoreSource(self.store.clone())
    }

    /// All generations of read models.
    ///
    /// # Errors
    /// Where the read side does not answer.
    pub async fn generations(&self) -> Result<Vec<generation::Listed>, ProjectorError> {
        generation::list(&mut *self.read_pool.acquire().await?).await
    }

    /// Closes all connections, and stops the embedded Postgres if it is ours.
    pub async fn stop(&self) {
        for pool in &self.pools {
            pool.close().await;
        }
        if let Some(databases) = self.databases.lock().await.take() {
            databases.close().await;
        }
    }
}

/// The server's own keys. They are made with an empty log and never again: a lookup key made anew
/// would turn everyone into a stranger.
async fn server_keys(store: &Store, keyring: &Keyring) -> Result<ServerKey, StartError> {
    let fresh = store.head().await.map_err(database)?.position == 0;
    let mut cursor = None;
    for name in [ServerKeyName::Lookup, ServerKeyName::Cursor] {
        cursor = Some(if fresh {
            keyring.get_or_create_server_key(name).await?
        } else {
            match keyring.server_keys(name).await {
                Ok(found) => found.into_iter().next().ok_or(StartError::KeysLost)?,
                Err(KeyError::NoServerKey { .. }) => return Err(StartError::KeysLost),
                Err(error) => return Err(error.into()),
            }
        });
    }
    cursor.ok_or(StartError::KeysLost)
}

fn database(error: store::ReadError) -> StartError {
    match error {
        store::ReadError::Database(error) => error.into(),
        other => StartError::Database(sqlx::Error::Protocol(other.to_string())),
    }
}

/// The same connection with the server's own, smaller role, where the migrating user could create
/// it and may take it.
async fn as_app_role(options: &PgConnectOptions) -> Result<PgConnectOptions, sqlx::Error> {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect_with(options).await?;
    let usable: bool = sqlx::query_scalar(
        "SELECT coalesce((SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles \
         WHERE rolname = $1), false)",
    )
    .bind(APP_ROLE)
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    if usable {
        return Ok(options.clone().options([("role", APP_ROLE)]));
    }
    tracing::warn!(
        role = APP_ROLE,
        "working as the migrating user: only triggers keep the log append-only"
    );
    Ok(options.clone())
}

fn make_private(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| StartError::DataDir { path: path.to_owned(), source };
    if path.exists() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}
