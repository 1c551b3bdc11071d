//! Brings a database to the current schema with the migrations compiled into the binary.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use sqlx::{
    Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};

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
