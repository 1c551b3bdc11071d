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

use super::store::{MasterState, Rewrapped, StoredMaster, Wrapped};
use super::{KeyError, KeyStore, ServerKeyName, StoredServerKey, StoredSubjectKey};

/// Two processes that start at once would trip over each other's `CREATE TABLE IF NOT EXISTS`.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('tidemark keys', 0))";

const MIGRATIONS: [&str; 6] = [
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
    "CREATE TABLE IF NOT EXISTS master_keys (
         number integer GENERATED ALWAYS AS IDENTITY,
         kek_id text PRIMARY KEY,
         state text NOT NULL CHECK (state IN ('current', 'accepted', 'retired')),
         since timestamptz NOT NULL DEFAULT now())",
    "CREATE UNIQUE INDEX IF NOT EXISTS master_keys_current
         ON master_keys (state) WHERE state = 'current'",
    // A store from before rotation was thought of: what wraps its keys is the current one.
    "INSERT INTO master_keys (kek_id, state)
     SELECT kek_id, CASE WHEN row_number() OVER (ORDER BY count(*) DESC) = 1
                         THEN 'current' ELSE 'accepted' END
     FROM (SELECT kek_id FROM subject_keys UNION ALL SELECT kek_id FROM server_keys) AS wrapped
     WHERE NOT EXISTS (SELECT FROM master_keys) GROUP BY kek_id",
];

/// Whatever the database's default is, a key that was reported stored or destroyed is.
const DURABLE: &str = "SET LOCAL synchronous_commit = on";

const INSERT_SUBJECT: &str = "
    INSERT INTO subject_keys (key_id, user_id, purpose, wrapped, kek_id, created_at)
    SELECT $1, $2, $3, $4, $5, to_timestamp($6 / 1000.0)
    FROM master_keys WHERE kek_id = $5 AND state = 'current' FOR SHARE";

const FIND_SUBJECT: &str = "
    SELECT key_id, user_id, purpose, wrapped, kek_id,
           (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
    FROM subject_keys WHERE key_id = $1";

const LIST_SUBJECT: &str = "
    SELECT key_id, user_id, purpose, wrapped, kek_id,
           (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
    FROM subject_keys WHERE user_id = $1 ORDER BY created_at, key_id";

const DELETE_SUBJECT: &str = "DELETE FROM subject_keys WHERE key_id = $1";

const HOLD_CURRENT: &str =
    "SELECT true FROM master_keys WHERE kek_id = $1 AND state = 'current' FOR SHARE";

const INSERT_SERVER: &str = "
    INSERT INTO server_keys (name, generation, key_id, wrapped, kek_id, created_at)
    VALUES ($1, $2, $3, $4, $5, greatest(to_timestamp($6 / 1000.0), now()))
    ON CONFLICT (name, generation) DO NOTHING";

const LIST_SERVER: &str = "
    SELECT key_id, name, generation, wrapped, kek_id,
           (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms,
           (extract(epoch FROM clock_timestamp() - created_at) * 1000)::bigint AS age_ms
    FROM server_keys WHERE name = $1 ORDER BY generation DESC";

const LIST_MASTERS: &str = "SELECT kek_id, state FROM master_keys ORDER BY number";

/// Two rotations at once, or two processes that offer the first key, take turns.
const LOCK_MASTERS: &str = "LOCK TABLE master_keys IN SHARE ROW EXCLUSIVE MODE";

const SUPERSEDE: &str = "
    UPDATE master_keys SET state = 'accepted', since = now()
    WHERE state = 'current' AND kek_id <> $1";

const MAKE_CURRENT: &str = "
    INSERT INTO master_keys (kek_id, state) VALUES ($1, 'current')
    ON CONFLICT (kek_id) DO UPDATE SET state = 'current', since = now()
    WHERE master_keys.state = 'accepted'";

const PAGE_NOT_UNDER: &str = "
    SELECT key_id, user_id, purpose, wrapped, kek_id,
           (extract(epoch FROM created_at) * 1000)::bigint AS created_at_ms
    FROM subject_keys WHERE key_id > $2 AND kek_id <> $1 ORDER BY key_id LIMIT $3";

const REWRAP_SUBJECTS: &str = "
    UPDATE subject_keys k SET wrapped = w.wrapped, kek_id = $4
    FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS w(key_id, was, wrapped)
    WHERE k.key_id = w.key_id AND k.kek_id = w.was
      AND EXISTS (SELECT FROM master_keys WHERE kek_id = $4 AND state = 'current')";

const REWRAP_SERVER: &str = "
    UPDATE server_keys k SET wrapped = w.wrapped, kek_id = $4
    FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS w(key_id, was, wrapped)
    WHERE k.key_id = w.key_id AND k.kek_id = w.was
      AND EXISTS (SELECT FROM master_keys WHERE kek_id = $4 AND state = 'current')";

const RETIRE: &str = "
    UPDATE master_keys m SET state = 'retired', since = now() WHERE state = 'accepted'
       AND NOT EXISTS (SELECT FROM subject_keys k WHERE k.kek_id = m.kek_id)
       AND NOT EXISTS (SELECT FROM server_keys k WHERE k.kek_id = m.kek_id)
    RETURNING kek_id";

const COUNT_WRAPPED: &str = "
    SELECT kek_id, sum(subject)::bigint, sum(server)::bigint FROM (
        SELECT kek_id, count(*) AS subject, 0 AS server FROM subject_keys GROUP BY 1
        UNION ALL
        SELECT kek_id, 0, count(*) FROM server_keys GROUP BY 1) AS counted
    GROUP BY kek_id ORDER BY kek_id";

/// Every statement on keys, by name: a test prepares each against a fresh key store.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("migration lock", MIGRATION_LOCK),
    ("durable", DURABLE),
    ("insert subject", INSERT_SUBJECT),
    ("find subject", FIND_SUBJECT),
    ("list subject", LIST_SUBJECT),
    ("delete subject", DELETE_SUBJECT),
    ("hold current", HOLD_CURRENT),
    ("insert server", INSERT_SERVER),
    ("list server", LIST_SERVER),
    ("list masters", LIST_MASTERS),
    ("lock masters", LOCK_MASTERS),
    ("supersede", SUPERSEDE),
    ("make current", MAKE_CURRENT),
    ("page not under", PAGE_NOT_UNDER),
    ("rewrap subjects", REWRAP_SUBJECTS),
    ("rewrap server", REWRAP_SERVER),
    ("retire", RETIRE),
    ("count wrapped", COUNT_WRAPPED),
];

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

    async fn make_current_in(&self, kek_id: &str, only_first: bool) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(DURABLE).execute(&mut *transaction).await?;
        sqlx::query(LOCK_MASTERS).execute(&mut *transaction).await?;
        let known: Vec<MasterRow> =
            sqlx::query_as(LIST_MASTERS).fetch_all(&mut *transaction).await?;
        if only_first && !known.is_empty() {
            return Ok(true);
        }
        let is = |state| known.iter().any(|(known, is)| known == kek_id && is == state);
        if is("retired") {
            return Ok(false);
        }
        if !is("current") {
            sqlx::query(SUPERSEDE).bind(kek_id).execute(&mut *transaction).await?;
            sqlx::query(MAKE_CURRENT).bind(kek_id).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

type MasterRow = (String, String);

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
    age_ms: i64,
}

impl KeyStore for PostgresKeyStore {
    fn insert(&self, key: StoredSubjectKey) -> BoxFuture<'_, Result<bool, KeyError>> {
        async move {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(DURABLE).execute(&mut *transaction).await?;
            let inserted = sqlx::query(INSERT_SUBJECT)
                .bind(key.key_id)
                .bind(key.user.0)
                .bind(key.purpose.as_str())
                .bind(key.wrapped)
                .bind(key.kek_id)
                .bind(key.created_at_ms)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(inserted.rows_affected() > 0)
        }
        .map(|result: Result<bool, sqlx::Error>| result.map_err(unavailable))
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

    fn insert_server(&self, key: StoredServerKey) -> BoxFuture<'_, Result<bool, KeyError>> {
        async move {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(DURABLE).execute(&mut *transaction).await?;
            let current: Option<bool> = sqlx::query_scalar(HOLD_CURRENT)
                .bind(&key.kek_id)
                .fetch_optional(&mut *transaction)
                .await?;
            if current.is_none() {
                return Ok(false);
            }
            sqlx::query(INSERT_SERVER)
                .bind(key.name.as_str())
                .bind(key.generation)
                .bind(key.key_id)
                .bind(key.wrapped)
                .bind(key.kek_id)
                .bind(key.created_at_ms)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(true)
        }
        .map(|result: Result<bool, sqlx::Error>| result.map_err(unavailable))
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
                age_ms: row.age_ms,
            };
            Ok(rows.into_iter().map(stored).collect())
        }
        .boxed()
    }

    fn masters(&self) -> BoxFuture<'_, Result<Vec<StoredMaster>, KeyError>> {
        async move {
            let rows: Vec<MasterRow> =
                sqlx::query_as(LIST_MASTERS).fetch_all(&self.pool).await.map_err(unavailable)?;
            let stored = |(kek_id, state): MasterRow| {
                // The table admits no other state.
                let state = MasterState::parse(&state).unwrap_or(MasterState::Accepted);
                StoredMaster { kek_id, state }
            };
            Ok(rows.into_iter().map(stored).collect())
        }
        .boxed()
    }

    fn make_current(&self, kek_id: &str, only_first: bool) -> BoxFuture<'_, Result<(), KeyError>> {
        let kek_id = kek_id.to_owned();
        async move {
            match self.make_current_in(&kek_id, only_first).await.map_err(unavailable)? {
                true => Ok(()),
                false => Err(KeyError::RetiredMaster { kek_id }),
            }
        }
        .boxed()
    }

    fn subjects_not_under(
        &self,
        kek_id: &str,
        after: Uuid,
        limit: i64,
    ) -> BoxFuture<'_, Result<Vec<StoredSubjectKey>, KeyError>> {
        let kek_id = kek_id.to_owned();
        async move {
            let rows: Vec<SubjectRow> = sqlx::query_as(PAGE_NOT_UNDER)
                .bind(kek_id)
                .bind(after)
                .bind(limit)
                .fetch_all(&self.pool)
                .await
                .map_err(unavailable)?;
            rows.into_iter().map(StoredSubjectKey::try_from).collect()
        }
        .boxed()
    }

    fn rewrap(&self, keys: Vec<Rewrapped>, to: &str) -> BoxFuture<'_, Result<u64, KeyError>> {
        let to = to.to_owned();
        async move {
            let ids: Vec<Uuid> = keys.iter().map(|key| key.key_id).collect();
            let from: Vec<&str> = keys.iter().map(|key| key.from.as_str()).collect();
            let wrapped: Vec<&[u8]> = keys.iter().map(|key| key.wrapped.as_slice()).collect();
            let mut transaction = self.pool.begin().await?;
            sqlx::query(DURABLE).execute(&mut *transaction).await?;
            let mut replaced = 0;
            for statement in [REWRAP_SUBJECTS, REWRAP_SERVER] {
                let done = sqlx::query(statement)
                    .bind(&ids)
                    .bind(&from)
                    .bind(&wrapped)
                    .bind(&to)
                    .execute(&mut *transaction)
                    .await?;
                replaced += done.rows_affected();
            }
            transaction.commit().await?;
            Ok(replaced)
        }
        .map(|result: Result<u64, sqlx::Error>| result.map_err(unavailable))
        .boxed()
    }

    fn retire_unused(&self) -> BoxFuture<'_, Result<Vec<String>, KeyError>> {
        sqlx::query_scalar(RETIRE)
            .fetch_all(&self.pool)
            .map(|result| result.map_err(unavailable))
            .boxed()
    }

    fn wrapped(&self) -> BoxFuture<'_, Result<Vec<Wrapped>, KeyError>> {
        async move {
            let rows: Vec<(String, i64, i64)> =
                sqlx::query_as(COUNT_WRAPPED).fetch_all(&self.pool).await.map_err(unavailable)?;
            let counted =
                |(kek_id, subject_keys, server_keys)| Wrapped { kek_id, subject_keys, server_keys };
            Ok(rows.into_iter().map(counted).collect())
        }
        .boxed()
    }
}

fn unavailable(error: sqlx::Error) -> KeyError {
    KeyError::Unavailable(Box::new(error))
}
