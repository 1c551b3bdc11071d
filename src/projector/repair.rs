//! One person's rows again: after the cause of a failure was mended, or to mend damaged rows.

use aggregates::UserId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::checkpoint::{self, Generation};
use super::progress::{self, Parked, Standing, Step};
use super::settle::settle;
use super::source::LogReader;
use super::{ProjectorError, generation};
use crate::read_models::{Change, Folded, ReadModel, Stopped};

/// So many folds may be overtaken by events of the same person.
const FOLDS: u32 = 5;

/// Replaces one person's live rows by a fold of the log and takes them off the list of the parked.
/// Their shard waits only while they are written. Answers where the person is parked now, if they
/// still are: then the rows are those before that event, unless they were further already.
///
/// # Errors
/// Transient failures, among them [`ProjectorError::Lost`] where the person's events come faster
/// than they are folded; others if no rows can be made at all, which leaves them as they were.
pub async fn refold<L: LogReader>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
    user: UserId,
) -> Result<Option<Stopped>, ProjectorError> {
    for _ in 0..FOLDS {
        // Folding may take longer than a transaction is allowed to wait, so none is open meanwhile.
        let mut db = pool.acquire().await?;
        let found = Found::read(&mut db, model, user).await?;
        drop(db);
        let span = (found.parked_at().map_or(0, |at| at - 1), found.position);
        let folded = settle(pool, log, &found.live, user, span).await?;

        let mut tx = pool.begin().await?;
        checkpoint::lock(&mut tx, &found.live, Some(found.live.shard_of(user))).await?;
        let now = Found::read(&mut tx, model, user).await?;
        if now.live != found.live || now.standing != found.standing {
            continue;
        }
        // The shard may have gone on, if only over other people's events.
        if now.position > found.position {
            let page = log.user_page(user, found.position, now.position, 1).await?;
            if !(page.events.is_empty() && page.unreadable.is_empty()) {
                continue;
            }
        }
        let stopped = replace(&mut tx, &found, user, folded).await?;
        tx.commit().await?;
        return Ok(stopped);
    }
    Err(ProjectorError::Lost { projector: model.spec().name })
}

/// How the live generation stands to one person.
struct Found {
    live: Generation,
    /// Of their shard.
    position: i64,
    standing: Standing,
}

impl Found {
    async fn read(
        db: &mut PgConnection,
        model: ReadModel,
        user: UserId,
    ) -> Result<Self, ProjectorError> {
        let live = generation::live(db, model)
            .await?
            .ok_or(ProjectorError::NoGeneration { projector: model.spec().name })?;
        let shard = checkpoint::lock(db, &live, Some(live.shard_of(user))).await?;
        let position = shard.first().map_or(0, |(_, position)| *position);
        let standings = progress::standings(db, &live, &[user.0]).await?;
        let standing = standings.get(&user).copied().unwrap_or_default();
        Ok(Self { live, position, standing })
    }

    fn parked_at(&self) -> Option<i64> {
        self.standing.parked_at
    }
}

/// Puts folded rows in the place of what is there, as far as they are no worse.
async fn replace(
    tx: &mut PgConnection,
    found: &Found,
    user: UserId,
    mut folded: Folded,
) -> Result<Option<Stopped>, ProjectorError> {
    let (live, parked_at) = (&found.live, found.parked_at());
    let stopped = folded.stopped.take();
    // Rows that are there already but cannot be made again stay.
    let worse = stopped.as_ref().is_some_and(|stopped| match parked_at {
        Some(at) => stopped.position < at,
        None => true,
    });
    generation::use_schema(tx, live).await?;
    if !worse {
        live.model.clear(tx, &[user.0]).await?;
        put(tx, live, user, folded).await?;
    }
    match &stopped {
        None => progress::unpark(tx, live, user).await?,
        Some(stopped) => {
            let position = parked_at.map_or(stopped.position, |at| at.max(stopped.position));
            progress::park(tx, live, user, position, &stopped.error.class()).await?;
        }
    }
    Ok(stopped)
}

/// Writes one person's folded rows, progress and skipped events into empty places.
///
/// # Errors
/// Database errors.
pub async fn put(
    db: &mut PgConnection,
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
