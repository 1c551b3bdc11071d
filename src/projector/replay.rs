//! Read models as they were at one position, in a schema of their own.
//!
//! The same fold as a rebuild ([`ReadModel::fold`]), cut at a position: it reads the log and no
//! state that a command keeps. What it leaves beside the rows is a manifest that says what they
//! are. The schema belongs to whoever asked for it; nothing else ever reads it or writes there.

use aggregates::UserId;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use super::{LogReader, ProjectorError};
use crate::postgres::connect::quote_identifier;
use crate::read_models::{Change, Folded, ReadModel, Stopped};

/// People whose rows are written in one transaction.
const PEOPLE: i64 = 20;
/// Folds under way at once.
const FOLDS: usize = 4;
/// What tells a schema that a replay made from any other. Written when it is created.
const MARK: &str = "made by tidemark replay";
/// Beginnings of names that are Postgres's and the projectors'.
const RESERVED: [&str; 2] = ["pg_", "p_"];

/// What the manifest holds, one row for each read model.
const MANIFEST: &str = "
CREATE TABLE manifest (
    model           text        PRIMARY KEY,
    log_id          uuid        NOT NULL,
    position        bigint      NOT NULL, -- the last event that counts
    committed_at    timestamptz,          -- when it was committed; null for an empty log
    compute_version integer     NOT NULL, -- of the model's formulas
    program_version text        NOT NULL,
    people          bigint      NOT NULL DEFAULT 0, -- with events that concern the model
    rows            bigint      NOT NULL DEFAULT 0,
    erased          bigint      NOT NULL DEFAULT 0, -- people left out, in part or whole: keys destroyed
    unreadable      bigint      NOT NULL DEFAULT 0, -- people left out: their log cannot be read
    started_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz           -- null: not finished, not to be used
)";
const ANNOUNCE: &str = "INSERT INTO manifest (model, log_id, position, committed_at, \
     compute_version, program_version) VALUES ($1, $2, $3, to_timestamp($4::bigint / 1000.0), $5, $6)";
const FINISH: &str = "UPDATE manifest SET people = $2, rows = $3, erased = $4, unreadable = $5, \
     finished_at = now() WHERE model = $1";
/// Whether the schema is there, and whether it bears the mark.
pub(super) const FIND: &str = "SELECT coalesce(obj_description(oid, 'pg_namespace') = $2, false) \
     FROM pg_namespace WHERE nspname = $1";
const UNFINISHED: &str = "SELECT EXISTS (SELECT FROM manifest WHERE finished_at IS NULL)";
pub(super) const LOCK: &str =
    "SELECT pg_try_advisory_lock(hashtextextended('tidemark replay into ' || $1, 0))";

/// A schema that a replay may make: lower-case letters, digits and underscores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// The name, if it is one.
    ///
    /// # Errors
    /// [`ReplayError::Name`].
    pub fn parse(name: &str) -> Result<Self, ReplayError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = (1..=63).contains(&name.len())
            && name.bytes().all(plain)
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !RESERVED.iter().any(|reserved| name.starts_with(reserved));
        if fits { Ok(Self(name.to_owned())) } else { Err(ReplayError::Name) }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is to be replayed.
#[derive(Clone, Debug)]
pub struct Request {
    pub into: SchemaName,
    pub models: Vec<ReadModel>,
    pub log_id: Uuid,
    /// The last position that counts; not beyond the head.
    pub position: i64,
    /// When the event there was committed, in ms since the Unix epoch.
    pub committed_ms: Option<i64>,
    /// Whether a finished replay in this schema may be replaced.
    pub replace: bool,
}

/// What became of one read model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filled {
    pub model: &'static str,
    /// People with events that concern it.
    pub people: u64,
    pub rows: u64,
    /// People of whom something is left out because its key was destroyed, then or since.
    pub erased: u64,
    /// People who are left out because their log cannot be read.
    pub unreadable: u64,
}

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(
        "that is no name for it (lower-case letters, digits and underscores, at most 63, \
         beginning with a letter but not with pg_ or p_)"
    )]
    Name,
    #[error("position {position} lies beyond the head of the log, which is at {head}")]
    Beyond { position: i64, head: i64 },
    #[error("schema {0} exists and was not made by a replay (choose another name)")]
    Foreign(String),
    #[error("schema {0} holds a finished replay (choose another name, or replace it: --replace)")]
    Finished(String),
    #[error("another replay into {0} is under way")]
    Busy(String),
    #[error("the replay failed")]
    Failed(#[from] ProjectorError),
}

impl From<sqlx::Error> for ReplayError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Folds the log up to a position into a schema of its own. `on_progress` hears of people done.
///
/// A schema that exists is only touched if a replay made it: one that was not finished is begun
/// anew, a finished one is replaced if the request says so.
///
/// # Errors
/// [`ReplayError`]; the schema is then gone, or as it was if it was refused.
pub async fn replay<L: LogReader>(
    pool: &PgPool,
    log: &L,
    request: &Request,
    on_progress: impl FnMut(u64) + Send,
) -> Result<Vec<Filled>, ReplayError> {
    let head = log.head().await.map_err(ProjectorError::from)?;
    if request.position > head {
        return Err(ReplayError::Beyond { position: request.position, head });
    }
    let mut db = lock(pool, &request.into).await?;
    prepare(&mut db, request).await?;
    let filled = fill(&mut db, log, request, on_progress).await;
    if filled.is_err() {
        // The first failure is the one to tell; what is left is unfinished and says so.
        let _ = db.execute(sqlx::raw_sql(&drop_schema(&request.into))).await;
    }
    filled
}

/// A connection that holds the schema's lock until it is dropped, which closes it.
async fn lock(pool: &PgPool, into: &SchemaName) -> Result<PoolConnection<Postgres>, ReplayError> {
    let mut db = pool.acquire().await?;
    db.close_on_drop();
    let ours: bool = sqlx::query_scalar(LOCK).bind(into.as_str()).fetch_one(&mut *db).await?;
    if ours { Ok(db) } else { Err(ReplayError::Busy(into.as_str().to_owned())) }
}

fn drop_schema(name: &SchemaName) -> String {
    format!("DROP SCHEMA IF EXISTS {} CASCADE", quote_identifier(name.as_str()))
}

/// Lets unqualified table names mean this schema's until the transaction ends.
async fn use_schema(db: &mut PgConnection, name: &SchemaName) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('search_path', $1, true)")
        .bind(name.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Makes the schema with its empty tables and a manifest that says it is not finished.
async fn prepare(db: &mut PgConnection, request: &Request) -> Result<(), ReplayError> {
    let name = &request.into;
    let mut tx = db.begin().await?;
    let made_by_us: Option<bool> =
        sqlx::query_scalar(FIND).bind(name.as_str()).bind(MARK).fetch_optional(&mut *tx).await?;
    if made_by_us == Some(false) {
        return Err(ReplayError::Foreign(name.as_str().to_owned()));
    }
    if made_by_us == Some(true) {
        use_schema(&mut tx, name).await?;
        let unfinished: bool = sqlx::query_scalar(UNFINISHED).fetch_one(&mut *tx).await?;
        if !unfinished && !request.replace {
            return Err(ReplayError::Finished(name.as_str().to_owned()));
        }
        tx.execute(sqlx::raw_sql(&drop_schema(name))).await?;
    }
    // Both are of our own making: a checked name and a literal.
    let quoted = quote_identifier(name.as_str());
    let create = format!("CREATE SCHEMA {quoted}; COMMENT ON SCHEMA {quoted} IS '{MARK}'");
    tx.execute(sqlx::raw_sql(&create)).await?;
    use_schema(&mut tx, name).await?;
    tx.execute(sqlx::raw_sql(MANIFEST)).await?;
    for model in &request.models {
        tx.execute(sqlx::raw_sql(model.ddl())).await?;
        let spec = model.spec();
        sqlx::query(ANNOUNCE)
            .bind(spec.name)
            .bind(request.log_id)
            .bind(request.position)
            .bind(request.committed_ms)
            .bind(spec.compute_version)
            .bind(env!("CARGO_PKG_VERSION"))
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn fill<L: LogReader>(
    db: &mut PgConnection,
    log: &L,
    request: &Request,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<Vec<Filled>, ReplayError> {
    let mut filled: Vec<Filled> = request.models.iter().map(|&model| Filled::new(model)).collect();
    let (mut after, mut people) = (None, 0);
    loop {
        let users = log.users(after, PEOPLE).await.map_err(ProjectorError::from)?;
        let Some(last) = users.last() else { break };
        after = Some(*last);
        people += users.len() as u64;
        let mut folded = Vec::with_capacity(filled.len());
        for (&model, counts) in request.models.iter().zip(&mut filled) {
            folded.push((model, fold(log, model, &users, request.position, counts).await?));
        }
        // Begun only now: folding may take longer than a transaction is allowed to wait.
        let mut tx = db.begin().await?;
        use_schema(&mut tx, &request.into).await?;
        for (model, changes) in &folded {
            model.write(&mut tx, &changes.iter().collect::<Vec<_>>()).await?;
        }
        tx.commit().await?;
        on_progress(people);
    }
    let mut tx = db.begin().await?;
    use_schema(&mut tx, &request.into).await?;
    for one in &filled {
        let counts = [one.people, one.rows, one.erased, one.unreadable];
        let mut finish = sqlx::query(FINISH).bind(one.model);
        for count in counts {
            finish = finish.bind(i64::try_from(count).unwrap_or(i64::MAX));
        }
        finish.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(filled)
}

/// What the log up to a position gives for some people.
async fn fold<L: LogReader>(
    log: &L,
    model: ReadModel,
    users: &[UserId],
    upto: i64,
    counts: &mut Filled,
) -> Result<Vec<Change>, ReplayError> {
    let folds = users.iter().map(|&user| async move { (user, model.fold(log, user, upto).await) });
    let mut folds = stream::iter(folds).buffered(FOLDS);
    let mut changes = Vec::with_capacity(users.len());
    while let Some((user, folded)) = folds.next().await {
        match folded {
            // Half of a person's rows would look like all of them.
            Ok(Folded { stopped: Some(Stopped { error, .. }), .. }) => {
                counts.leave_out(user, &error);
            }
            Ok(Folded { position: 0, .. }) => {}
            Ok(folded) => {
                counts.people += 1;
                counts.rows += folded.rows.len() as u64;
                counts.erased += u64::from(folded.shredded > 0);
                changes.push(Change::whole(user, folded));
            }
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => counts.leave_out(user, &error),
        }
    }
    Ok(changes)
}

impl Filled {
    fn new(model: ReadModel) -> Self {
        Self { model: model.spec().name, people: 0, rows: 0, erased: 0, unreadable: 0 }
    }

    fn leave_out(&mut self, user: UserId, error: &ProjectorError) {
        tracing::warn!(%user, model = self.model, class = error.class(), "left out");
        self.unreadable += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_belong_to_nobody_else() {
        for name in ["march", "then", "as_of_2026", "_x", "people"] {
            assert!(SchemaName::parse(name).is_ok(), "{name}");
        }
        let long = "x".repeat(64);
        for name in ["", "1st", "March", "a-b", "a\"b", "a;b", "pg_toast", "p_entities_g1", &long] {
            assert!(matches!(SchemaName::parse(name), Err(ReplayError::Name)), "{name}");
        }
    }
}
