//! One person's rows again: after the cause of a failure was mended, or to mend damaged rows.

use aggregates::UserId;
use sqlx::PgPool;
use uuid::Uuid;

use super::checkpoint::{self, Generation};
use super::progress::{self, Parked, Step};
use super::settle::settle;
use super::source::LogReader;
use super::{ProjectorError, generation};
use crate::read_models::{Change, Folded, ReadModel, Stopped};

/// Replaces one person's live rows by a fold of the log and takes them off the list of the parked.
/// Their shard waits meanwhile. Answers where the person is parked now, if they still are: then the
/// rows are those before that event, unless they were further already.
///
/// # Errors
/// Transient failures; others if no rows can be made at all, which leaves them as they were.
pub async fn refold<L: LogReader>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
    user: UserId,
) -> Result<Option<Stopped>, ProjectorError> {
    let mut tx = pool.begin().await?;
    let live = generation::live(&mut tx, model)
        .await?
        .ok_or(ProjectorError::NoGeneration { projector: model.spec().name })?;
    let shard = checkpoint::lock(&mut tx, &live, Some(live.shard_of(user))).await?;
    let position = shard.first().map_or(0, |(_, position)| *position);
    let standing = progress::standings(&mut tx, &live, &[user.0]).await?;
    let parked_at = standing.get(&user).and_then(|standing| standing.parked_at);
    let span = (parked_at.map_or(0, |at| at - 1), position);
    let mut folded = settle(pool, log, &live, user, span).await?;
    let stopped = folded.stopped.take();
    // Rows that are there already but cannot be made again stay.
    let worse = stopped.as_ref().is_some_and(|stopped| match parked_at {
        Some(at) => stopped.position < at,
        None => true,
    });
    generation::use_schema(&mut tx, &live).await?;
    if !worse {
        model.clear(&mut tx, &[user.0]).await?;
        put(&mut tx, &live, user, folded).await?;
    }
    match &stopped {
        None => progress::unpark(&mut tx, &live, user).await?,
        Some(stopped) => {
            let position = parked_at.map_or(stopped.position, |at| at.max(stopped.position));
            let class = stopped.error.class();
            progress::park(&mut tx, &live, user, position, &class).await?;
        }
    }
    tx.commit().await?;
    Ok(stopped)
}

/// Writes one person's folded rows, progress and skipped events into empty places.
///
/// # Errors
/// Database errors.
pub async fn put(
    db: &mut sqlx::PgConnection,
    generation: &Generation,
    user: UserId,
    folded: Folded,
) -> Result<(), ProjectorError> {
    let Folded { health_seq, position, .. } = folded;
    if !folded.skipped.is_empty() {
        progress::skip(db, generation, user, &folded.skipped).await?;
    }
    if position == 0 {
        return Ok(());
    }
    generation.model.write(db, &[&Change::whole(user, folded)]).await?;
    progress::raise(db, generation, &[Step { user, position, health_seq }]).await
}

/// Tries everybody who is parked again, or one of them; answers how many were freed and how many
/// were not.
///
/// # Errors
/// Transient failures only.
pub async fn retry<L: LogReader>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
    only: Option<UserId>,
) -> Result<(u64, u64), ProjectorError> {
    let (mut freed, mut failed) = (0, 0);
    let (live, parked) = {
        let mut db = pool.acquire().await?;
        let live = generation::ensure_live(&mut db, model).await?;
        (live, progress::parked(&mut db, &live).await?)
    };
    for one in parked.into_iter().filter(|one| only.is_none_or(|user| user == one.user)) {
        match refold(pool, log, model, one.user).await {
            Ok(None) => freed += 1,
            Ok(Some(_)) => failed += 1,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                let mut db = pool.acquire().await?;
                progress::park(&mut db, &live, one.user, one.position, &error.class()).await?;
                failed += 1;
            }
        }
    }
    Ok((freed, failed))
}

/// Everybody the live generation is parked for.
///
/// # Errors
/// Database errors.
pub async fn parked(pool: &PgPool, model: ReadModel) -> Result<Vec<Parked>, ProjectorError> {
    let mut db = pool.acquire().await?;
    match generation::live(&mut db, model).await? {
        Some(live) => progress::parked(&mut db, &live).await,
        None => Ok(Vec::new()),
    }
}

/// Where the live generation is parked for a person.
///
/// # Errors
/// Database errors.
pub async fn parked_at(
    pool: &PgPool,
    model: ReadModel,
    user: UserId,
) -> Result<Option<i64>, ProjectorError> {
    let mut db = pool.acquire().await?;
    let Some(live) = generation::live(&mut db, model).await? else { return Ok(None) };
    let users: [Uuid; 1] = [user.0];
    let standing = progress::standings(&mut db, &live, &users).await?;
    Ok(standing.get(&user).and_then(|standing| standing.parked_at))
}
