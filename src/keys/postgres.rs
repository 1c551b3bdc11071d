//! Wrapped keys in a Postgres database of their own.
//!
//! It must not be the log's database: whoever restores a backup of the log would restore destroyed
//! keys with it. A deleted row stays in this database's dead space and WAL until they are
//! recycled, and in its backups until they expire; an erasure is complete when the last of them is
//! gone.

use aggregates::{Purpose, UserId};
use futures_util::future::{BoxFuture, FutureExt};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::{KeyError, KeyStore, ServerKeyName, StoredServerKey, StoredSubjectKey};

/// Two processes that start at once would trip over each other's `CREATE TABLE IF NOT EXISTS`.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('tidemark keys', 0))";

const MIGRATIONS: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS subject_keys (
         key_id uuid PRIMARY KEY,
         user_id uuid NOT NULL,
         purpose text NOT NULL,
         wrapped bytea NOT NULL,
         kek_id text NOT NULL,
         created_at timestamptz NOT NULL)",
    "CREATE INDEX IF NOT EXISTS subject_keys_user ON subject_keys (user_id)",
    "CREATE TABLE IF NOT EXISTS server_keys (
         name text NOT NULL,
         generation integer NOT NULL,
         key_id uuid NOT NULL UNIQUE,
         wrapped bytea NOT NULL,
         kek_id text NOT NULL,
         created_at timestamptz NOT NULL,
         PRIMARY KEY (name, generation))",
];

/// Whatever the database's default is, a key that was reported stored or destroyed is.
const DURABLE: &str = "SET LOCAL synchronous_commit = on";

const INSERT_SUBJECT: &str = "
    INSERT INTO subject_keys (key_id, user_id, purpose, wrapped, kek_id, created_at)
    VALUES ($1, $2, $3, $4, $5, to_timestamp($6 / 1000.0))";

const FIND_SUBJECT: &str = "
    SELECT key_id, user_id, purpose, wrapped, kek_id,
           (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
    FROM subject_keys WHERE key_id = $1";

const LIST_SUBJECT: &str = "
    SELECT key_id, user_id, purpose, wrapped, kek_id,
           (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
    FROM subject_keys WHERE user_id = $1 ORDER BY created_at, key_id";

const DELETE_SUBJECT: &str = "DELETE FROM subject_keys WHERE key_id = $1";

const INSERT_SERVER: &str = "
    INSERT INTO server_keys (name, generation, key_id, wrapped, kek_id, created_at)
    VALUES ($1, $2, $3, $4, $5, to_timestamp($6 / 1000.0))
    ON CONFLICT (name, generation) DO NOTHING";

const LIST_SERVER: &str = "
    SELECT key_id, generation, wrapped, kek_id,
           (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
    FROM server_keys WHERE name = $1 ORDER BY generation DESC";

const LIST_KEKS: &str = "
    SELECT kek_id FROM subject_keys UNION SELECT kek_id FROM server_keys ORDER BY kek_id";

/// A [`KeyStore`] in Postgres.
#[derive(Clone, Debug)]
pub struct PostgresKeyStore {
    pool: PgPool,
}

impl PostgresKeyStore {
    /// The key store in the database that `pool` connects to, its tables created if need be.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`].
    pub async fn open(pool: PgPool) -> Result<Self, KeyError> {
        let store = Self { pool };
        store.migrate().await.map_err(unavailable)?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(MIGRATION_LOCK).execute(&mut *transaction).await?;
        for statement in MIGRATIONS {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }
}

#[derive(FromRow)]
struct SubjectRow {
    key_id: Uuid,
    user_id: Uuid,
    purpose: String,
    wrapped: Vec<u8>,
    kek_id: String,
    created_at_ms: i64,
}

impl TryFrom<SubjectRow> for StoredSubjectKey {
    type Error = KeyError;

    fn try_from(row: SubjectRow) -> Result<Self, KeyError> {
        let purpose =
            Purpose::parse(&row.purpose).ok_or(KeyError::Corrupt { key_id: row.key_id })?;
        Ok(Self {
            key_id: row.key_id,
            user: UserId(row.user_id),
            purpose,
            wrapped: row.wrapped,
            kek_id: row.kek_id,
            created_at_ms: row.created_at_ms,
        })
    }
}

#[derive(FromRow)]
struct ServerRow {
    key_id: Uuid,
    generation: i32,
    wrapped: Vec<u8>,
    kek_id: String,
    created_at_ms: i64,
}

impl KeyStore for PostgresKeyStore {
    fn insert(&self, key: StoredSubjectKey) -> BoxFuture<'_, Result<(), KeyError>> {
        async move {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(DURABLE).execute(&mut *transaction).await?;
            sqlx::query(INSERT_SUBJECT)
                .bind(key.key_id)
                .bind(key.user.0)
                .bind(key.purpose.as_str())
                .bind(key.wrapped)
                .bind(key.kek_id)
                .bind(key.created_at_ms)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        }
        .map(|result| result.map_err(unavailable))
        .boxed()
    }

    fn find(&self, key_id: Uuid) -> BoxFuture<'_, Result<Option<StoredSubjectKey>, KeyError>> {
        async move {
            let row: Option<SubjectRow> = sqlx::query_as(FIND_SUBJECT)
                .bind(key_id)
                .fetch_optional(&self.pool)
                .await
                .map_err(unavailable)?;
            row.map(StoredSubjectKey::try_from).transpose()
        }
        .boxed()
    }

    fn of_user(&self, user: UserId) -> BoxFuture<'_, Result<Vec<StoredSubjectKey>, KeyError>> {
        async move {
            let rows: Vec<SubjectRow> = sqlx::query_as(LIST_SUBJECT)
                .bind(user.0)
                .fetch_all(&self.pool)
                .await
                .map_err(unavailable)?;
            rows.into_iter().map(StoredSubjectKey::try_from).collect()
        }
        .boxed()
    }

    fn destroy(&self, key_id: Uuid) -> BoxFuture<'_, Result<bool, KeyError>> {
        async move {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(DURABLE).execute(&mut *transaction).await?;
            let deleted =
                sqlx::query(DELETE_SUBJECT).bind(key_id).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(deleted.rows_affected() > 0)
        }
        .map(|result: Result<bool, sqlx::Error>| result.map_err(unavailable))
        .boxed()
    }

    fn insert_server(&self, key: StoredServerKey) -> BoxFuture<'_, Result<(), KeyError>> {
        async move {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(DURABLE).execute(&mut *transaction).await?;
            sqlx::query(INSERT_SERVER)
                .bind(key.name.as_str())
                .bind(key.generation)
                .bind(key.key_id)
                .bind(key.wrapped)
                .bind(key.kek_id)
                .bind(key.created_at_ms)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        }
        .map(|result| result.map_err(unavailable))
        .boxed()
    }

    fn server_keys(
        &self,
        name: ServerKeyName,
    ) -> BoxFuture<'_, Result<Vec<StoredServerKey>, KeyError>> {
        async move {
            let rows: Vec<ServerRow> = sqlx::query_as(LIST_SERVER)
                .bind(name.as_str())
                .fetch_all(&self.pool)
                .await
                .map_err(unavailable)?;
            let stored = |row: ServerRow| StoredServerKey {
                key_id: row.key_id,
                name,
                generation: row.generation,
                wrapped: row.wrapped,
                kek_id: row.kek_id,
                created_at_ms: row.created_at_ms,
            };
            Ok(rows.into_iter().map(stored).collect())
        }
        .boxed()
    }

    fn kek_ids(&self) -> BoxFuture<'_, Result<Vec<String>, KeyError>> {
        sqlx::query_scalar(LIST_KEKS)
            .fetch_all(&self.pool)
            .map(|result| result.map_err(unavailable))
            .boxed()
    }
}

fn unavailable(error: sqlx::Error) -> KeyError {
    KeyError::Unavailable(Box::new(error))
}
