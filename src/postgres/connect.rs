//! Connections: how pools are built, and the limits that every session carries.
//!
//! Limits travel in the start-up packet, so that no connection exists without them: an abandoned
//! transaction would otherwise hold the log's head lock and stop every writer.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// SQLSTATE of `CREATE DATABASE` when the database exists.
const DUPLICATE_DATABASE: &str = "42P04";
/// SQLSTATE when two sessions create the same database at the same moment.
const UNIQUE_VIOLATION: &str = "23505";

/// Why a database could not be reached or created.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "could not connect to database \"{database}\" (is the server up, and is the URL right?)"
    )]
    Unreachable { database: String, source: sqlx::Error },
    #[error(
        "could not create database \"{database}\" (create it by hand, or allow this role CREATEDB)"
    )]
    NotCreated { database: String, source: sqlx::Error },
}

/// What one pool is for and what its sessions may do.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Shown in `pg_stat_activity`, so that a lock can be traced to its holder.
    pub application_name: &'static str,
    pub max_connections: u32,
    /// How long a caller waits for a free connection before the answer is 503.
    pub acquire_timeout: Duration,
    /// `None` for work that may rightly take long, like a rebuild.
    pub statement_timeout: Option<Duration>,
    pub lock_timeout: Duration,
    /// How long a session may sit in a transaction without a statement.
    pub idle_in_transaction_timeout: Duration,
    /// Whether statements are planned once and not for their arguments. Right where every row is
    /// found by its key: Postgres would otherwise plan statements over arrays anew at each call,
    /// which takes longer than running them.
    pub generic_plans: bool,
}

impl PoolSettings {
    /// Settings for short work on behalf of a waiting caller.
    pub const fn interactive(application_name: &'static str, max_connections: u32) -> Self {
        Self {
            application_name,
            max_connections,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Some(Duration::from_secs(10)),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(1),
            generic_plans: true,
        }
    }

    /// Settings for background work: no limit on a statement, the same limits on holding locks.
    pub const fn background(application_name: &'static str, max_connections: u32) -> Self {
        Self {
            acquire_timeout: Duration::from_secs(30),
            statement_timeout: None,
            generic_plans: false,
            ..Self::interactive(application_name, max_connections)
        }
    }

    /// The connect options with these limits, for a connection outside a pool.
    pub fn apply(&self, options: &PgConnectOptions) -> PgConnectOptions {
        let statement = self.statement_timeout.unwrap_or_default();
        options.clone().application_name(self.application_name).options([
            ("statement_timeout", milliseconds(statement)),
            ("lock_timeout", milliseconds(self.lock_timeout)),
            ("idle_in_transaction_session_timeout", milliseconds(self.idle_in_transaction_timeout)),
            (
                "plan_cache_mode",
                if self.generic_plans { "force_generic_plan" } else { "auto" }.into(),
            ),
        ])
    }
}

/// A pool that connects on first use, so that a server may start while its database is down.
pub fn pool(options: &PgConnectOptions, settings: &PoolSettings) -> PgPool {
    PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        // A ping before each use costs a round trip; a dead connection fails its first statement instead.
        .test_before_acquire(false)
        .connect_lazy_with(settings.apply(options))
}

/// Whether the database answers.
///
/// # Errors
/// [`ConnectError::Unreachable`] with the reason.
pub async fn check(options: &PgConnectOptions) -> Result<(), ConnectError> {
    let unreachable =
        |source| ConnectError::Unreachable { database: database_of(options).to_owned(), source };
    let mut connection = connect(options).await.map_err(unreachable)?;
    connection.ping().await.map_err(unreachable)
}

/// Creates the database that `options` name, through the server's `postgres` database.
///
/// # Errors
/// When the server cannot be reached or the role may not create databases.
pub async fn create_database_if_missing(options: &PgConnectOptions) -> Result<(), ConnectError> {
    let database = database_of(options);
    // A role without access to the `postgres` database needs nothing from us if its own is there.
    if let Ok(connection) = connect(options).await {
        drop(connection.close().await);
        return Ok(());
    }
    let mut admin = connect(&options.clone().database("postgres"))
        .await
        .map_err(|source| ConnectError::Unreachable { database: "postgres".to_owned(), source })?;
    let statement = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'",
        quote_identifier(database)
    );
    let created = sqlx::raw_sql(&statement).execute(&mut admin).await;
    drop(admin.close().await);
    match created {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some(DUPLICATE_DATABASE | UNIQUE_VIOLATION)) =>
        {
            Ok(())
        }
        Err(source) => Err(ConnectError::NotCreated { database: database.to_owned(), source }),
    }
}

/// A database beside this one on the same server, its name extended by `suffix`.
pub fn sibling(options: &PgConnectOptions, suffix: &str) -> PgConnectOptions {
    options.clone().database(&format!("{}{suffix}", database_of(options)))
}

/// An SQL identifier that means exactly `name`.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    PgConnection::connect_with(options).await
}

/// Postgres takes the user's name where no database is given.
fn database_of(options: &PgConnectOptions) -> &str {
    options.get_database().unwrap_or_else(|| options.get_username())
}

fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_database_is_named_after_the_log() {
        let log: PgConnectOptions = "postgres://app@db.example/health".parse().expect("url");
        assert_eq!(sibling(&log, "_keys").get_database(), Some("health_keys"));
        let unnamed = PgConnectOptions::new_without_pgpass().username("app");
        assert_eq!(sibling(&unnamed, "_keys").get_database(), Some("app_keys"));
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
    }
}
