//! Generations: each lives in a schema of its own, and one of them is live.

use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, PgConnection, Row};

use super::ProjectorError;
use super::checkpoint::{self, Generation};
use crate::read_models::{Change, ReadModel};

/// Shards of a new generation. More of them let more processes share the work of one projector.
pub const SHARDS: i16 = 8;

/// So many builds have to end with their process before no more are begun unasked.
pub const DEATHS: i64 = 3;

/// A generation as the register lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub projector: String,
    pub generation: i32,
    pub compute_version: i32,
    /// `building`, `live` or `retired`; `died` where its builder did and its tables are gone, and
    /// `given up` where so many have that no more are begun unasked.
    pub state: String,
    /// The position every shard has reached.
    pub position: i64,
    pub parked: i64,
}

pub(super) const LIST: &str = "
SELECT g.projector, g.generation, g.compute_version,
       CASE WHEN g.state <> 'building' THEN g.state
            WHEN to_regnamespace('p_' || replace(g.projector, '-', '_') || '_g' || g.generation)
                 IS NOT NULL THEN 'building'
            WHEN count(*) FILTER (WHERE g.state = 'building')
                 OVER (PARTITION BY g.projector, g.compute_version) < $1 THEN 'died'
            ELSE 'given up' END,
       (SELECT coalesce(min(c.position), 0) FROM projector.checkpoints c
        WHERE c.projector = g.projector AND c.generation = g.generation),
       (SELECT count(*) FROM projector.parked p
        WHERE p.projector = g.projector AND p.generation = g.generation)
FROM projector.generations g ORDER BY g.projector, g.generation";

/// All generations, for operators.
///
/// # Errors
/// Database errors.
pub async fn list(db: &mut PgConnection) -> Result<Vec<Listed>, ProjectorError> {
    let rows = sqlx::query(LIST).bind(DEATHS).fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            Ok(Listed {
                projector: row.try_get(0)?,
                generation: row.try_get(1)?,
                compute_version: row.try_get(2)?,
                state: row.try_get(3)?,
                position: row.try_get(4)?,
                parked: row.try_get(5)?,
            })
        })
        .collect()
}

pub(super) const LIVE: &str = "
SELECT generation, shards, compute_version FROM projector.generations
WHERE projector = $1 AND state = 'live'";

/// The live generation.
///
/// # Errors
/// Database errors.
pub async fn live(
    db: &mut PgConnection,
    model: ReadModel,
) -> Result<Option<Generation>, ProjectorError> {
    let row = sqlx::query(LIVE).bind(model.spec().name).fetch_optional(db).await?;
    row.map(|row| of_row(model, &row)).transpose()
}

/// The live generation; the first one is created here, at position 0.
///
/// # Errors
/// Database errors.
pub async fn ensure_live(
    db: &mut PgConnection,
    model: ReadModel,
) -> Result<Generation, ProjectorError> {
    if let Some(generation) = live(db, model).await? {
        return Ok(generation);
    }
    let mut tx = db.begin().await?;
    register_lock(&mut tx).await?;
    if let Some(generation) = live(&mut tx, model).await? {
        return Ok(generation);
    }
    let generation = create(&mut tx, model, SHARDS).await?;
    activate(&mut tx, &generation).await?;
    tx.commit().await?;
    Ok(generation)
}

/// One change of the register at a time: two processes that start together create one generation.
async fn register_lock(db: &mut PgConnection) -> Result<(), ProjectorError> {
    sqlx::query("LOCK TABLE projector.generations IN SHARE ROW EXCLUSIVE MODE").execute(db).await?;
    Ok(())
}

pub(super) const INSERT: &str = "
INSERT INTO projector.generations (projector, generation, compute_version, shards, state)
SELECT $1, coalesce(max(generation), 0) + 1, $2, $3, 'building'
FROM projector.generations WHERE projector = $1
RETURNING generation";

pub(super) const INSERT_CHECKPOINTS: &str = "
INSERT INTO projector.checkpoints (projector, generation, shard)
SELECT $1, $2, shard FROM generate_series(0, $3::int2 - 1) AS shard";

/// A new, empty generation in state `building`.
///
/// # Errors
/// Database errors.
pub async fn create(
    db: &mut PgConnection,
    model: ReadModel,
    shards: i16,
) -> Result<Generation, ProjectorError> {
    let spec = model.spec();
    let mut tx = db.begin().await?;
    let number: i32 = sqlx::query_scalar(INSERT)
        .bind(spec.name)
        .bind(spec.compute_version)
        .bind(shards)
        .fetch_one(&mut *tx)
        .await?;
    let compute_version = spec.compute_version;
    let generation = Generation { model, number, shards, compute_version };
    sqlx::query(INSERT_CHECKPOINTS)
        .bind(spec.name)
        .bind(number)
        .bind(shards)
        .execute(&mut *tx)
        .await?;
    let sql = format!("CREATE SCHEMA {}", generation.schema());
    tx.execute(sqlx::raw_sql(&sql)).await?;
    use_schema(&mut tx, &generation).await?;
    tx.execute(sqlx::raw_sql(model.ddl())).await?;
    tx.commit().await?;
    Ok(generation)
}

/// Lets unqualified table names mean this generation's until the transaction ends.
///
/// # Errors
/// Database errors.
pub async fn use_schema(
    db: &mut PgConnection,
    generation: &Generation,
) -> Result<(), ProjectorError> {
    sqlx::query("SELECT set_config('search_path', $1, true)")
        .bind(generation.schema())
        .execute(db)
        .await?;
    Ok(())
}

pub(super) const RETIRE: &str = "
UPDATE projector.generations SET state = 'retired', retired_at = now()
WHERE projector = $1 AND state = 'live'";

pub(super) const FENCE_OFF: &str = "
UPDATE projector.checkpoints c SET fence = fence + 1, owner = NULL, lease_until = NULL
FROM projector.generations g
WHERE g.projector = c.projector AND g.generation = c.generation
  AND g.projector = $1 AND g.state = 'retired'";

pub(super) const ACTIVATE: &str = "
UPDATE projector.generations SET state = 'live', activated_at = now(), retired_at = NULL
WHERE projector = $1 AND generation = $2";

/// Retires the live generation, makes this one live and points the views at it. The caller's
/// transaction makes it one step for everybody else.
///
/// # Errors
/// Database errors.
pub async fn activate(
    db: &mut PgConnection,
    generation: &Generation,
) -> Result<(), ProjectorError> {
    let spec = generation.model.spec();
    sqlx::query(RETIRE).bind(spec.name).execute(&mut *db).await?;
    sqlx::query(FENCE_OFF).bind(spec.name).execute(&mut *db).await?;
    sqlx::query(ACTIVATE).bind(spec.name).bind(generation.number).execute(&mut *db).await?;
    let schema = generation.schema();
    for table in spec.tables {
        // Dropped and made anew, because a view cannot be replaced by one of other columns.
        let sql = format!("DROP VIEW IF EXISTS live.{table}");
        db.execute(sqlx::raw_sql(&sql)).await?;
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(format!("{schema}.{table}"))
            .fetch_one(&mut *db)
            .await?;
        if exists {
            let sql = format!("CREATE VIEW live.{table} AS SELECT * FROM {schema}.{table}");
            db.execute(sqlx::raw_sql(&sql)).await?;
        }
    }
    Ok(())
}

pub(super) const CARRY_WATERMARKS: &str = "
UPDATE projector.user_progress n SET health_seq = o.health_seq
FROM projector.user_progress o
WHERE n.projector = $1 AND n.generation = $2 AND o.projector = $1 AND o.generation = $3
  AND o.user_id = n.user_id AND o.health_seq > n.health_seq";

/// Swaps `next` in for `old` if no shard of it is behind; otherwise says no and changes nothing.
/// Served watermarks never go back: a person whose uploads were erased keeps the number that
/// phones have seen, although the new generation could no longer count them.
///
/// # Errors
/// Database errors.
pub async fn swap(
    tx: &mut PgConnection,
    old: &Generation,
    next: &Generation,
) -> Result<bool, ProjectorError> {
    let stands = checkpoint::lock(tx, old, None).await?;
    let reached = checkpoint::lock(tx, next, None).await?;
    if live(tx, old.model).await?.is_none_or(|live| live.number != old.number) {
        return Ok(false);
    }
    let needed = stands.iter().map(|(_, position)| *position).max().unwrap_or(0);
    if reached.iter().any(|(_, position)| *position < needed) {
        return Ok(false);
    }
    sqlx::query(CARRY_WATERMARKS)
        .bind(next.model.spec().name)
        .bind(next.number)
        .bind(old.number)
        .execute(&mut *tx)
        .await?;
    activate(tx, next).await?;
    Ok(true)
}

pub(super) const NEWEST_RETIRED: &str = "
SELECT generation, shards, compute_version FROM projector.generations
WHERE projector = $1 AND state = 'retired' AND NOT rejected
ORDER BY retired_at DESC LIMIT 1";

/// The generation that was live before this one, unless it was taken back or dropped.
///
/// # Errors
/// Database errors.
pub async fn newest_retired(
    db: &mut PgConnection,
    model: ReadModel,
) -> Result<Option<Generation>, ProjectorError> {
    let row = sqlx::query(NEWEST_RETIRED).bind(model.spec().name).fetch_optional(db).await?;
    row.map(|row| of_row(model, &row)).transpose()
}

pub(super) const REJECT: &str = "
UPDATE projector.generations SET rejected = true WHERE projector = $1 AND generation = $2";

/// Marks a generation as taken back.
///
/// # Errors
/// Database errors.
pub async fn reject(db: &mut PgConnection, generation: &Generation) -> Result<(), ProjectorError> {
    sqlx::query(REJECT)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .execute(db)
        .await?;
    Ok(())
}

/// What speaks against building a generation with this program's formulas unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// An operator took one back.
    pub rejected: bool,
    /// Builds that ended with their process, and are not finished.
    pub unfinished: i64,
}

pub(super) const HISTORY: &str = "
SELECT coalesce(bool_or(rejected), false), count(*) FILTER (WHERE state = 'building')
FROM projector.generations WHERE projector = $1 AND compute_version = $2";

/// How earlier generations with this program's formulas have fared.
///
/// # Errors
/// Database errors.
pub async fn history(db: &mut PgConnection, model: ReadModel) -> Result<History, ProjectorError> {
    let spec = model.spec();
    let (rejected, unfinished) =
        sqlx::query_as(HISTORY).bind(spec.name).bind(spec.compute_version).fetch_one(db).await?;
    Ok(History { rejected, unfinished })
}

pub(super) const OTHERS: &str = "
SELECT generation, shards, compute_version FROM projector.generations
WHERE projector = $1 AND generation <> $2
  AND to_regclass('p_' || replace(projector, '-', '_') || '_g' || generation || '.' || $3)
      IS NOT NULL
ORDER BY generation";

/// Erases from all other generations of a projector what is erased from this one: nobody carries
/// them on, but they hold rows, and one of them may be live again. Leaves the search path at the
/// last of them.
///
/// # Errors
/// Database errors.
pub async fn erase_elsewhere(
    tx: &mut PgConnection,
    generation: &Generation,
    erased: &[Change],
) -> Result<(), ProjectorError> {
    let spec = generation.model.spec();
    let (false, Some(table)) = (erased.is_empty(), spec.tables.first()) else { return Ok(()) };
    let rows = sqlx::query(OTHERS)
        .bind(spec.name)
        .bind(generation.number)
        .bind(table)
        .fetch_all(&mut *tx)
        .await?;
    let erased: Vec<&Change> = erased.iter().collect();
    for row in rows {
        use_schema(tx, &of_row(generation.model, &row)?).await?;
        generation.model.write(tx, &erased).await?;
    }
    Ok(())
}

pub(super) const UNFINISHED: &str = "
SELECT generation, shards, compute_version FROM projector.generations
WHERE projector = $1 AND state = 'building'";

pub(super) const REJECTED_BEFORE: &str = "
SELECT generation, shards, compute_version FROM projector.generations
WHERE projector = $1 AND state = 'retired' AND retired_at <= now() - make_interval(secs => $2)
  AND rejected";

pub(super) const RETIRED_BEFORE: &str = "
SELECT generation, shards, compute_version FROM projector.generations
WHERE projector = $1 AND state = 'retired' AND retired_at <= now() - make_interval(secs => $2)
  AND (NOT rejected OR compute_version <= (
      SELECT l.compute_version FROM projector.generations l
      WHERE l.projector = $1 AND l.state = 'live'))";

/// Whether generations are being built, or were by processes that died.
///
/// # Errors
/// Database errors.
pub async fn any_unfinished(
    db: &mut PgConnection,
    model: ReadModel,
) -> Result<bool, ProjectorError> {
    let rows = sqlx::query(UNFINISHED).bind(model.spec().name).fetch_all(db).await?;
    Ok(!rows.is_empty())
}

/// Drops the tables of generations whose builders died, and leaves them in the register, where
/// they are counted. Only for whoever knows that none is being built.
///
/// # Errors
/// Database errors.
pub async fn clear_dead(db: &mut PgConnection, model: ReadModel) -> Result<(), ProjectorError> {
    let rows = sqlx::query(UNFINISHED).bind(model.spec().name).fetch_all(&mut *db).await?;
    for row in rows {
        drop_tables(db, &of_row(model, &row)?).await?;
    }
    Ok(())
}

/// Drops what a generation holds of people.
async fn drop_tables(db: &mut PgConnection, generation: &Generation) -> Result<(), ProjectorError> {
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", generation.schema());
    db.execute(sqlx::raw_sql(&sql)).await?;
    Ok(())
}

/// Drops generations whose builders died. Only for whoever knows that none is being built.
///
/// # Errors
/// Database errors.
pub async fn remove_unfinished(
    db: &mut PgConnection,
    model: ReadModel,
) -> Result<(), ProjectorError> {
    let rows = sqlx::query(UNFINISHED).bind(model.spec().name).fetch_all(&mut *db).await?;
    for row in rows {
        remove(db, &of_row(model, &row)?).await?;
    }
    Ok(())
}

/// Drops generations that were retired this many seconds ago or earlier; answers how many. One that
/// was taken back loses its tables then, and is remembered until newer formulas are live.
///
/// # Errors
/// Database errors.
pub async fn prune(
    db: &mut PgConnection,
    model: ReadModel,
    seconds: f64,
) -> Result<u64, ProjectorError> {
    let rows = sqlx::query(RETIRED_BEFORE)
        .bind(model.spec().name)
        .bind(seconds)
        .fetch_all(&mut *db)
        .await?;
    let mut pruned = 0;
    for row in rows {
        pruned += u64::from(remove(db, &of_row(model, &row)?).await?);
    }
    let rejected = sqlx::query(REJECTED_BEFORE)
        .bind(model.spec().name)
        .bind(seconds)
        .fetch_all(&mut *db)
        .await?;
    for row in rejected {
        drop_tables(db, &of_row(model, &row)?).await?;
    }
    Ok(pruned)
}

fn of_row(model: ReadModel, row: &PgRow) -> Result<Generation, ProjectorError> {
    Ok(Generation {
        model,
        number: row.try_get(0)?,
        shards: row.try_get(1)?,
        compute_version: row.try_get(2)?,
    })
}

/// Drops a generation that is not live, with its tables and its register entry.
///
/// # Errors
/// Database errors.
pub async fn remove(
    db: &mut PgConnection,
    generation: &Generation,
) -> Result<bool, ProjectorError> {
    const DELETE: &str = "
        DELETE FROM projector.generations
        WHERE projector = $1 AND generation = $2 AND state <> 'live'";
    let mut tx = db.begin().await?;
    let gone = sqlx::query(DELETE)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .execute(&mut *tx)
        .await?
        .rows_affected();
    if gone == 0 {
        return Ok(false);
    }
    drop_tables(&mut tx, generation).await?;
    tx.commit().await?;
    Ok(true)
}
