//! Brings a database to the current schema with the migrations compiled into the binary.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Applies what is missing. Safe to call from several processes at once: an advisory lock orders them.
///
/// # Errors
/// When a migration fails or an applied one was changed afterwards.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATIONS.run(pool).await
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
