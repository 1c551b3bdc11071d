//! Checkpoints and leases: who tries, and who wins.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use aggregates::UserId;

use super::ProjectorError;
use crate::read_models::ReadModel;

/// How long a silent worker keeps its shards.
pub const LEASE_SECONDS: f64 = 15.0;

/// One generation of one projector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    pub model: ReadModel,
    pub number: i32,
    pub shards: i16,
    /// The formulas' version its rows were computed with.
    pub compute_version: i32,
}

impl Generation {
    /// Whether this binary computes rows as they are in it. If not, its rows are served as they
    /// are until a rebuild has replaced it; formulas are never mixed in one generation.
    pub fn is_current(&self) -> bool {
        self.compute_version == self.model.spec().compute_version
    }

    /// The shard of a person. Ids are random, so their last byte is too.
    pub fn shard_of(&self, user: UserId) -> i16 {
        let last = user.0.as_bytes()[15];
        i16::from(last) % self.shards
    }

    /// The Postgres schema that holds its tables. Made of our own literals, never of input.
    pub fn schema(&self) -> String {
        format!("p_{}_g{}", self.model.spec().name.replace('-', "_"), self.number)
    }
}

/// A shard a worker may try to advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub shard: i16,
    pub position: i64,
    pub fence: i64,
    /// Workers that took the shard since it last moved, this one included.
    pub attempts: i32,
    /// Up to here events are taken one at a time.
    pub careful_until: i64,
}

/// So many workers in a row took a shard without moving it: one has died, perhaps of an event. From
/// here on events are taken one at a time, as far as the page reached that it died with.
const SUSPICIOUS: i32 = 2;

// An attempt is counted here, before anything is handled, and in a statement that is committed: so
// a worker that dies of what it handles has been counted. Who renews is not counted again, and a
// lease of no time says nothing about whoever had it before.
//
// Nobody takes a lease of more than twice the usual length: one that seems to last longer was taken
// before the clock was set back, and must not keep the shard until the clock is there again.
pub(super) const CLAIM: &str = "
WITH free AS (
    SELECT shard,
           attempts + CASE WHEN $4 > 0 AND owner IS DISTINCT FROM $3 THEN 1 ELSE 0 END AS attempts
    FROM projector.checkpoints
    WHERE projector = $1 AND generation = $2
      AND (lease_until IS NULL OR lease_until < clock_timestamp() OR owner = $3
           OR lease_until > clock_timestamp() + make_interval(secs => 2 * greatest($4, $7)))
    ORDER BY shard FOR UPDATE SKIP LOCKED
)
UPDATE projector.checkpoints c
SET fence = c.fence + 1, owner = $3,
    lease_until = clock_timestamp() + make_interval(secs => $4),
    attempts = free.attempts,
    careful_until = CASE WHEN free.attempts >= $5 AND free.attempts > c.attempts
                         THEN greatest(c.careful_until, c.position + $6)
                         ELSE c.careful_until END
FROM free
WHERE c.projector = $1 AND c.generation = $2 AND c.shard = free.shard
RETURNING c.shard, c.position, c.fence, c.attempts, c.careful_until";

/// Takes every shard that is free, expired or already the owner's, each under a new fence.
///
/// # Errors
/// Database errors.
pub async fn claim(
    db: &mut PgConnection,
    generation: &Generation,
    owner: Uuid,
    lease_seconds: f64,
) -> Result<Vec<Held>, ProjectorError> {
    let rows = sqlx::query(CLAIM)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(owner)
        .bind(lease_seconds)
        .bind(SUSPICIOUS)
        .bind(super::worker::PAGE)
        .bind(LEASE_SECONDS)
        .fetch_all(db)
        .await?;
    let mut held = rows
        .iter()
        .map(|row| {
            Ok(Held {
                shard: row.try_get(0)?,
                position: row.try_get(1)?,
                fence: row.try_get(2)?,
                attempts: row.try_get(3)?,
                careful_until: row.try_get(4)?,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    held.sort_unstable_by_key(|shard| shard.shard);
    Ok(held)
}

// The rows are locked in the order of shards by the inner query, because an UPDATE with a join
// locks in any order it likes and two of them could wait for each other.
pub(super) const ADVANCE: &str = "
WITH mine AS (
    SELECT c.shard, m.to_position
    FROM unnest($3::int2[], $4::int8[], $5::int8[], $6::int8[])
         AS m(shard, from_position, fence, to_position)
    JOIN projector.checkpoints c ON c.projector = $1 AND c.generation = $2
        AND c.shard = m.shard AND c.position = m.from_position AND c.fence = m.fence
    ORDER BY c.shard FOR UPDATE OF c
)
UPDATE projector.checkpoints c
SET position = mine.to_position, updated_at = clock_timestamp(), attempts = 0,
    lease_until = clock_timestamp() + make_interval(secs => $7)
FROM mine
WHERE c.projector = $1 AND c.generation = $2 AND c.shard = mine.shard";

/// Moves all held shards to `to` (never back) and renews their leases. The first statement of the
/// transaction that also writes the rows: whoever loses here must roll back.
///
/// # Errors
/// [`ProjectorError::Lost`] if any of the shards is not where, or under whom, `held` says.
pub async fn advance(
    db: &mut PgConnection,
    generation: &Generation,
    held: &[Held],
    to: i64,
    lease_seconds: f64,
) -> Result<(), ProjectorError> {
    let name = generation.model.spec().name;
    let shards: Vec<i16> = held.iter().map(|shard| shard.shard).collect();
    let from: Vec<i64> = held.iter().map(|shard| shard.position).collect();
    let fences: Vec<i64> = held.iter().map(|shard| shard.fence).collect();
    let to: Vec<i64> = held.iter().map(|shard| shard.position.max(to)).collect();
    let moved = sqlx::query(ADVANCE)
        .bind(name)
        .bind(generation.number)
        .bind(&shards)
        .bind(&from)
        .bind(&fences)
        .bind(&to)
        .bind(lease_seconds)
        .execute(db)
        .await?
        .rows_affected();
    if usize::try_from(moved) == Ok(held.len()) {
        Ok(())
    } else {
        Err(ProjectorError::Lost { projector: name })
    }
}

// Who stops in good order has not died of anything.
pub(super) const RELEASE: &str = "
UPDATE projector.checkpoints
SET owner = NULL, lease_until = NULL, attempts = greatest(attempts - 1, 0)
WHERE projector = $1 AND generation = $2 AND owner = $3";

/// Gives up all shards of `owner`, so that the next worker need not wait for the lease to expire.
///
/// # Errors
/// Database errors.
pub async fn release(
    db: &mut PgConnection,
    generation: &Generation,
    owner: Uuid,
) -> Result<(), ProjectorError> {
    sqlx::query(RELEASE)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(owner)
        .execute(db)
        .await?;
    Ok(())
}

// In the order of shards, as everywhere; what is locked is being advanced, which renews as well.
pub(super) const RENEW: &str = "
WITH mine AS (
    SELECT projector, generation, shard FROM projector.checkpoints WHERE owner = $1
    ORDER BY projector, generation, shard FOR UPDATE SKIP LOCKED
)
UPDATE projector.checkpoints c
SET lease_until = clock_timestamp() + make_interval(secs => $2)
FROM mine
WHERE c.projector = mine.projector AND c.generation = mine.generation AND c.shard = mine.shard";

/// Renews the leases of everything that is still the owner's.
///
/// # Errors
/// Database errors.
pub async fn renew(
    db: &mut PgConnection,
    owner: Uuid,
    lease_seconds: f64,
) -> Result<(), ProjectorError> {
    sqlx::query(RENEW).bind(owner).bind(lease_seconds).execute(db).await?;
    Ok(())
}

pub(super) const IDLE: &str = "
WITH mine AS (
    SELECT projector, generation, shard FROM projector.checkpoints
    WHERE owner = $1 AND attempts > 0
    ORDER BY projector, generation, shard FOR UPDATE
)
UPDATE projector.checkpoints c SET attempts = 0
FROM mine
WHERE c.projector = mine.projector AND c.generation = mine.generation AND c.shard = mine.shard";

/// Notes that the owner is alive although its shards have not moved: there was nothing to do, or
/// the blame was found to lie with another projector.
///
/// # Errors
/// Database errors.
pub async fn acquit(db: &mut PgConnection, owner: Uuid) -> Result<(), ProjectorError> {
    sqlx::query(IDLE).bind(owner).execute(db).await?;
    Ok(())
}

pub(super) const SURVIVED: &str = "
WITH lost AS (
    SELECT shard FROM projector.checkpoints
    WHERE projector = $1 AND generation = $2 AND shard = ANY($3) AND attempts > 0
    ORDER BY shard FOR UPDATE
)
UPDATE projector.checkpoints c SET attempts = c.attempts - 1
FROM lost
WHERE c.projector = $1 AND c.generation = $2 AND c.shard = lost.shard";

/// Takes back the attempt of a worker that lost its shards to another, and lives.
///
/// # Errors
/// Database errors.
pub async fn survived(
    db: &mut PgConnection,
    generation: &Generation,
    held: &[Held],
) -> Result<(), ProjectorError> {
    let shards: Vec<i16> = held.iter().map(|held| held.shard).collect();
    sqlx::query(SURVIVED)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(&shards)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) const JUMP: &str = "
UPDATE projector.checkpoints SET position = $3, updated_at = clock_timestamp()
WHERE projector = $1 AND generation = $2 AND position < $3";

/// Puts all shards of a generation that was filled from the log where the log was read up to.
///
/// # Errors
/// Database errors.
pub async fn jump(
    db: &mut PgConnection,
    generation: &Generation,
    to: i64,
) -> Result<(), ProjectorError> {
    sqlx::query(JUMP)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(to)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) const LOCK: &str = "
SELECT shard, position FROM projector.checkpoints
WHERE projector = $1 AND generation = $2 AND ($3::int2 IS NULL OR shard = $3)
ORDER BY shard FOR UPDATE";

/// Holds a generation, or one of its shards, still until the transaction ends; answers where each
/// shard stands.
///
/// # Errors
/// Database errors.
pub async fn lock(
    db: &mut PgConnection,
    generation: &Generation,
    shard: Option<i16>,
) -> Result<Vec<(i16, i64)>, ProjectorError> {
    let rows = sqlx::query_as(LOCK)
        .bind(generation.model.spec().name)
        .bind(generation.number)
        .bind(shard)
        .fetch_all(db)
        .await?;
    Ok(rows)
}
