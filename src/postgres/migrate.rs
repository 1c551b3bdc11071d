//! Brings a database to the current schema with the migrations compiled into the binary.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};

const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Applies what is missing. Safe to call from several processes at once: an advisory lock orders them.
/// It uses a connection of its own, without the limits of a pool, because waiting for that lock and
/// building an index may both take long.
///
/// # Errors
/// When the database cannot be reached, a migration fails, or an applied one was changed afterwards.
pub async fn migrate(options: &PgConnectOptions) -> Result<(), MigrateError> {
    let mut connection =
        PgConnection::connect_with(&options.clone().application_name("tidemark-migrate")).await?;
    MIGRATIONS.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Whether the database has exactly the migrations of this program.
///
/// # Errors
/// Where the database does not answer.
pub async fn is_migrated(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let applied: Vec<i64> = match sqlx::query_scalar(APPLIED).fetch_all(&mut connection).await {
        Ok(applied) => applied,
        // The table of migrations comes with the first one.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
        Err(error) => return Err(error),
    };
    connection.close().await?;
    Ok(applied == versions())
}

/// The versions of all migrations this program knows, oldest first.
pub fn versions() -> Vec<i64> {
    MIGRATIONS.iter().map(|migration| migration.version).collect()
}

/// A short name for exactly this set of migrations; databases with the same digest have the same schema.
pub fn migrations_digest() -> String {
    let mut hasher = SipHasher13::new();
    for migration in MIGRATIONS.iter() {
        hasher.write_i64(migration.version);
        hasher.write(&migration.checksum);
    }
    format!("{:016x}", hasher.finish())
}
