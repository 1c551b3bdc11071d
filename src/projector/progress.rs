//! Per-person progress, parked people, and waiting for one's own write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aggregates::UserId;
use projections::freshness::Progress;
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

use super::ProjectorError;
use super::checkpoint::Generation;
use super::error::DIED;
use crate::read_models::ReadModel;

/// What a transaction adds to one person's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub user: UserId,
    /// The last event of the person in this step.
    pub position: i64,
    /// The health watermark after it; 0 where no upload was in it.
    pub health_seq: i64,
}

pub(super) const RAISE: &str = "
INSERT INTO projector.user_progress AS p (projector, generation, user_id, health_seq, position)
SELECT $1, $2, s.user_id, s.health_seq, s.position
FROM unnest($3::uuid[], $4::int8[], $5::int8[]) AS s(user_id, health_seq, position)
ORDER BY s.user_id
ON CONFLICT (projector, generation, user_id) DO UPDATE
SET health_seq = greatest(p.health_seq, excluded.health_seq), position = excluded.position";

/// Records the steps of one transaction, at most one a person. A watermark never falls.
///
/// # Errors
/// Database errors.
pub async fn raise(
    db: &mut PgConnection,
    generation: &Generation,
    steps: &[Step],
) -> Result<(), ProjectorError> {
    if steps.is_empty() {
        return Ok(());
    }
    let users: Vec<Uuid> = steps.iter().map(|step| step.user.0).collect();
    let health_seqs: Vec<i64> = steps.iter().map(|step| step.health_seq).collect();
    let positions: Vec<i64> = steps.iter().map(|step| step.position).collect();
    sqlx::query(RAISE)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(&users)
        .bind(&health_seqs)
        .bind(&positions)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) const OF_USER: &str = "
SELECT c.position, coalesce(u.health_seq, 0), p.position,
       EXISTS (SELECT FROM projector.skipped s
               WHERE s.projector = $1 AND s.generation = $2 AND s.user_id = $4)
FROM projector.checkpoints c
LEFT JOIN projector.user_progress u
    ON u.projector = $1 AND u.generation = $2 AND u.user_id = $4
LEFT JOIN projector.parked p
    ON p.projector = $1 AND p.generation = $2 AND p.user_id = $4
WHERE c.projector = $1 AND c.generation = $2 AND c.shard = $3";

/// How far a generation has come for a person.
///
/// # Errors
/// Database errors.
pub async fn of_user(
    db: &mut PgConnection,
    generation: &Generation,
    user: UserId,
) -> Result<Progress, ProjectorError> {
    let row: Option<(i64, i64, Option<i64>, bool)> = sqlx::query_as(OF_USER)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(generation.shard_of(user))
        .bind(user.0)
        .fetch_optional(db)
        .await?;
    Ok(row.map_or_else(Progress::default, |(checkpoint, health_seq, parked, partial)| {
        Progress::new(checkpoint, health_seq, parked).with_partial(partial)
    }))
}

/// A person a projector failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    pub user: UserId,
    pub position: i64,
    pub error: String,
    pub attempts: i32,
    /// Of the last attempt, in ms since the Unix epoch.
    pub at_ms: i64,
}

pub(super) const PARKED: &str = "
SELECT user_id, position, error, attempts, (extract(epoch FROM at) * 1000)::int8 FROM projector.parked
WHERE projector = $1 AND generation = $2 ORDER BY position, user_id";

/// Everybody a generation is parked for.
///
/// # Errors
/// Database errors.
pub async fn parked(
    db: &mut PgConnection,
    generation: &Generation,
) -> Result<Vec<Parked>, ProjectorError> {
    let rows: Vec<(Uuid, i64, String, i32, i64)> = sqlx::query_as(PARKED)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .fetch_all(db)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(user, position, error, attempts, at_ms)| Parked {
            user: UserId(user),
            position,
            error,
            attempts,
            at_ms,
        })
        .collect())
}

pub(super) const PARK: &str = "
INSERT INTO projector.parked AS p (projector, generation, user_id, position, error)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (projector, generation, user_id) DO UPDATE
SET position = excluded.position, error = excluded.error, at = now(),
    attempts = CASE WHEN p.position = excluded.position THEN p.attempts + 1 ELSE 1 END";

/// Parks a person before `position`, or counts another failed attempt at it.
///
/// # Errors
/// Database errors.
pub async fn park(
    db: &mut PgConnection,
    generation: &Generation,
    user: UserId,
    position: i64,
    error: &str,
) -> Result<(), ProjectorError> {
    sqlx::query(PARK)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(user.0)
        .bind(position)
        .bind(error)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) const UNPARK: &str = "
DELETE FROM projector.parked WHERE projector = $1 AND generation = $2 AND user_id = $3";

/// Takes a person off the list.
///
/// # Errors
/// Database errors.
pub async fn unpark(
    db: &mut PgConnection,
    generation: &Generation,
    user: UserId,
) -> Result<(), ProjectorError> {
    sqlx::query(UNPARK)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(user.0)
        .execute(db)
        .await?;
    Ok(())
}

/// What is special about a person, for most of whom nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The event the projector is parked before.
    pub parked_at: Option<i64>,
    /// Whether that event has killed workers.
    pub fatal: bool,
    /// Whether an event was skipped.
    pub partial: bool,
}

pub(super) const STANDINGS: &str = "
SELECT user_id, max(parked_at), bool_or(fatal), bool_or(parked_at IS NULL)
FROM (
    SELECT user_id, position AS parked_at, error = $4 AS fatal FROM projector.parked
    WHERE projector = $1 AND generation = $2 AND user_id = ANY($3)
    UNION ALL
    SELECT user_id, NULL, false FROM projector.skipped
    WHERE projector = $1 AND generation = $2 AND user_id = ANY($3)
) AS special
GROUP BY user_id";

/// Those of these people who are parked or had an event skipped.
///
/// # Errors
/// Database errors.
pub async fn standings(
    db: &mut PgConnection,
    generation: &Generation,
    users: &[Uuid],
) -> Result<BTreeMap<UserId, Standing>, ProjectorError> {
    let rows: Vec<(Uuid, Option<i64>, bool, bool)> = sqlx::query_as(STANDINGS)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(users)
        .bind(DIED)
        .fetch_all(db)
        .await?;
    let standing =
        |(user, parked_at, fatal, partial)| (UserId(user), Standing { parked_at, fatal, partial });
    Ok(rows.into_iter().map(standing).collect())
}

pub(super) const UNSKIP: &str = "
DELETE FROM projector.skipped WHERE projector = $1 AND generation = $2 AND user_id = $3";

pub(super) const SKIP: &str = "
INSERT INTO projector.skipped (projector, generation, user_id, position)
SELECT $1, $2, $3, unnest($4::int8[])";

/// Notes which events of a person are left out of the rows.
///
/// # Errors
/// Database errors.
pub async fn skip(
    db: &mut PgConnection,
    generation: &Generation,
    user: UserId,
    skipped: &BTreeSet<i64>,
) -> Result<(), ProjectorError> {
    let name = generation.model.spec().name;
    sqlx::query(UNSKIP).bind(name).bind(generation.number).bind(user.0).execute(&mut *db).await?;
    if skipped.is_empty() {
        return Ok(());
    }
    let positions: Vec<i64> = skipped.iter().copied().collect();
    sqlx::query(SKIP)
        .bind(name)
        .bind(generation.number)
        .bind(user.0)
        .bind(&positions)
        .execute(db)
        .await?;
    Ok(())
}

/// Waits until the live generation has passed `position` for a person, at most until `deadline`.
/// Answers whether it has; a parked person's wait ends at once, since waiting will not help.
///
/// # Errors
/// Database errors.
pub async fn wait_until(
    pool: &PgPool,
    model: ReadModel,
    user: UserId,
    position: i64,
    deadline: Instant,
) -> Result<bool, ProjectorError> {
    const FIRST_PAUSE: Duration = Duration::from_millis(5);
    const LONGEST_PAUSE: Duration = Duration::from_millis(80);
    let mut pause = FIRST_PAUSE;
    loop {
        let progress = {
            // A connection is held for the question only, never while waiting.
            let mut db = pool.acquire().await?;
            match super::generation::live(&mut db, model).await? {
                Some(generation) => of_user(&mut db, &generation, user).await?,
                None => Progress::default(),
            }
        };
        if progress.covers(position) {
            return Ok(true);
        }
        if progress.parked || Instant::now() + pause > deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
