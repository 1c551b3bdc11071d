//! A read model anew: folded from the log into a new generation, compared, swapped in, taken back.
//!
//! The fold, [`ReadModel::fold`], reads no state that a command keeps. So a rebuild proves the live
//! path, and comparing the two checks that state as well.

use std::collections::BTreeSet;

use aggregates::UserId;
use sqlx::{Connection, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::checkpoint::{self, Generation};
use super::compare::{self, Comparison, Kind, USERS};
use super::error::DIED;
use super::progress;
use super::repair::put;
use super::settle::settle;
use super::source::{LogReader, SourceError, StateReader};
use super::{ProjectorError, Worker, generation};
use crate::read_models::{ReadModel, Stopped};

/// What a rebuild did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    pub retired: Generation,
    pub live: Generation,
    pub people: u64,
    pub rows: u64,
    /// The new generation against the one it replaced, just before the swap.
    pub comparison: Comparison,
}

/// Builds a new generation from the log while the old one serves, lets it catch up, compares the
/// two, and swaps. The old generation stays, retired, until [`generation::prune`]. `on_progress`
/// hears of people done. Takes up to four connections of the pool at once.
///
/// # Errors
/// [`ProjectorError::Worse`] if the log does not give rows for people whom the live generation
/// shows, [`ProjectorError::Building`] if somebody else builds one; then, as with any other error,
/// the live generation stays and the new one is removed.
pub async fn rebuild<S: LogReader + StateReader + Clone>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    owner: Uuid,
    on_progress: impl FnMut(u64) + Send,
) -> Result<Rebuilt, ProjectorError> {
    rebuild_expecting(pool, source, model, owner, None, on_progress).await
}

/// The same, but swaps only if rows differ in no other ways than `expected`, if any are said.
///
/// # Errors
/// As [`rebuild`]; [`ProjectorError::Differs`] with the whole report where rows differ otherwise.
pub async fn rebuild_expecting<S: LogReader + StateReader + Clone>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    owner: Uuid,
    expected: Option<&BTreeSet<Kind>>,
    on_progress: impl FnMut(u64) + Send,
) -> Result<Rebuilt, ProjectorError> {
    let never = CancellationToken::new();
    rebuild_unless(pool, source, (model, owner), expected, &never, on_progress).await
}

/// The same, until cancelled: then what was built so far is removed, so that nobody takes it for
/// the work of a process that died.
///
/// # Errors
/// As [`rebuild_expecting`]; [`ProjectorError::Cancelled`].
pub async fn rebuild_unless<S: LogReader + StateReader + Clone>(
    pool: &PgPool,
    source: &S,
    (model, owner): (ReadModel, Uuid),
    expected: Option<&BTreeSet<Kind>>,
    cancel: &CancellationToken,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<Rebuilt, ProjectorError> {
    let lock = BuildLock::take(pool, model).await?;
    let (old, next) = {
        let mut db = pool.acquire().await?;
        // Whoever holds the lock knows that nobody works on these any more.
        generation::clear_dead(&mut db, model).await?;
        let old = generation::ensure_live(&mut db, model).await?;
        (old, generation::create(&mut db, model, old.shards).await?)
    };
    let mut worker = Worker::of_generation(pool.clone(), source.clone(), owner, next);
    let build = Build { pool, source, old, next, expected };
    let built = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ProjectorError::Cancelled { projector: model.spec().name }),
        built = build.run(&mut worker, &mut on_progress) => built,
    };
    let mut db = pool.acquire().await?;
    if built.is_err() {
        generation::remove(&mut db, &next).await?;
    } else {
        generation::remove_unfinished(&mut db, model).await?;
    }
    drop(db);
    lock.release().await;
    built
}

/// Drops the tables of builds whose processes died. The register remembers that they did, until
/// one of the projector's builds ends well.
///
/// # Errors
/// [`ProjectorError::Building`] if one is being built; database errors.
pub async fn clear_dead(pool: &PgPool, model: ReadModel) -> Result<(), ProjectorError> {
    if !generation::any_unfinished(&mut *pool.acquire().await?, model).await? {
        return Ok(());
    }
    let mut lock = BuildLock::take(pool, model).await?;
    let cleared = generation::clear_dead(&mut lock.0, model).await;
    lock.release().await;
    cleared
}

/// At most one generation of a projector is being built.
struct BuildLock(PgConnection);

pub(super) const LOCK_BUILD: &str =
    "SELECT pg_try_advisory_lock(hashtext('tidemark build'), hashtext($1))";

impl BuildLock {
    async fn take(pool: &PgPool, model: ReadModel) -> Result<Self, ProjectorError> {
        let projector = model.spec().name;
        // Not of the pool any more: the lock must end with whoever holds it, also in a failure.
        let mut db = pool.acquire().await?.detach();
        match sqlx::query_scalar(LOCK_BUILD).bind(projector).fetch_one(&mut db).await? {
            true => Ok(Self(db)),
            false => Err(ProjectorError::Building { projector }),
        }
    }

    /// The lock ends with the session, whatever fails here; unlocking is only faster.
    async fn release(mut self) {
        sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut self.0).await.ok();
        self.0.close().await.ok();
    }
}

struct Build<'a, S> {
    pool: &'a PgPool,
    source: &'a S,
    old: Generation,
    next: Generation,
    expected: Option<&'a BTreeSet<Kind>>,
}

impl<S: LogReader + StateReader> Build<'_, S> {
    async fn run(
        &self,
        worker: &mut Worker<S>,
        on_progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<Rebuilt, ProjectorError> {
        let Self { pool, source, old, next, expected } = self;
        let name = next.model.spec().name;
        let behind = || ProjectorError::Behind { projector: name, generation: next.number };
        let head = source.head().await?;
        let (people, rows) = fill(pool, *source, old, next, head, on_progress).await?;
        checkpoint::jump(&mut *pool.acquire().await?, next, head).await?;
        if !worker.catch_up(source.head().await?).await? {
            return Err(behind());
        }
        let comparison = compare::generations(pool, *source, old, next).await?;
        if expected.is_some_and(|expected| !comparison.kinds().is_subset(expected)) {
            let report = Box::new(comparison);
            return Err(ProjectorError::Differs { projector: name, report });
        }
        // Comparing took its time. What has come meanwhile is made up before the old one has to wait.
        if !worker.catch_up(source.head().await?).await? {
            return Err(behind());
        }

        let mut tx = pool.begin().await?;
        // From here the old generation stands still, so that the new one can overtake it.
        let stands = checkpoint::lock(&mut tx, old, None).await?;
        let needed = stands.iter().map(|(_, position)| *position).max().unwrap_or(0);
        if !worker.catch_up(needed).await? {
            return Err(behind());
        }
        worker.stop().await?;
        let lost = newly_parked(&mut tx, old, next).await?;
        if lost > 0 {
            return Err(ProjectorError::Worse { projector: name, people: lost });
        }
        if !generation::swap(&mut tx, old, next).await? {
            return Err(behind());
        }
        tx.commit().await?;
        Ok(Rebuilt { retired: *old, live: *next, people, rows, comparison })
    }
}

/// Takes the last swap back: the generation that was live before is live again. Answers it, and
/// whether this program can carry it on. The one that is left will not be built again by itself.
///
/// Rows, watermarks and checkpoints go on from where that generation stopped; what has happened
/// since is missing until somebody with its formulas has made it up, and answers say so.
///
/// # Errors
/// [`ProjectorError::NoGeneration`] where nothing was retired; errors of database and source.
pub async fn rollback<S: LogReader + StateReader + Clone>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    owner: Uuid,
) -> Result<Generation, ProjectorError> {
    let missing = || ProjectorError::NoGeneration { projector: model.spec().name };
    let lock = BuildLock::take(pool, model).await?;
    let (live, before) = {
        let mut db = pool.acquire().await?;
        let live = generation::live(&mut db, model).await?.ok_or_else(missing)?;
        (live, generation::newest_retired(&mut db, model).await?.ok_or_else(missing)?)
    };
    if before.is_current() {
        // The formulas are ours: nobody needs to see old rows.
        let mut worker = Worker::of_generation(pool.clone(), source.clone(), owner, before);
        worker.catch_up(source.head().await?).await?;
        worker.stop().await?;
    }
    let mut tx = pool.begin().await?;
    checkpoint::lock(&mut tx, &live, None).await?;
    checkpoint::lock(&mut tx, &before, None).await?;
    generation::reject(&mut tx, &live).await?;
    generation::activate(&mut tx, &before).await?;
    tx.commit().await?;
    lock.release().await;
    Ok(before)
}

async fn newly_parked(
    db: &mut PgConnection,
    old: &Generation,
    next: &Generation,
) -> Result<usize, ProjectorError> {
    let before = progress::parked(db, old).await?;
    let before: BTreeSet<UserId> = before.into_iter().map(|one| one.user).collect();
    let after = progress::parked(db, next).await?;
    Ok(after.iter().filter(|one| !before.contains(&one.user)).count())
}

/// Fills an empty generation with everybody's rows as of `head`.
async fn fill<L: LogReader>(
    pool: &PgPool,
    log: &L,
    old: &Generation,
    next: &Generation,
    head: i64,
    on_progress: &mut (impl FnMut(u64) + Send),
) -> Result<(u64, u64), ProjectorError> {
    let (mut people, mut rows) = (0, 0);
    let mut after = None;
    loop {
        let users = log.users(after, USERS).await?;
        let Some(last) = users.last() else { return Ok((people, rows)) };
        after = Some(*last);
        for user in users {
            rows += fill_one(pool, log, old, next, user, head).await?;
            people += 1;
        }
        on_progress(people);
    }
}

/// Fills in one person; answers how many rows it were.
async fn fill_one<L: LogReader>(
    pool: &PgPool,
    log: &L,
    old: &Generation,
    next: &Generation,
    user: UserId,
    head: i64,
) -> Result<u64, ProjectorError> {
    let standing = progress::standings(&mut *pool.acquire().await?, old, &[user.0]).await?;
    let fatal = standing.get(&user).filter(|standing| standing.fatal);
    let (upto, mut stopped) = match fatal.and_then(|standing| standing.parked_at) {
        // Workers have died of this event. A rebuild does not try it again.
        Some(position) => {
            let error = SourceError::Unreadable { class: DIED }.into();
            (position - 1, Some(Stopped { position, error }))
        }
        None => (head, None),
    };
    let mut folded = settle(pool, log, next, user, (0, upto)).await?;
    if let Some(earlier) = folded.stopped.take() {
        stopped = Some(earlier);
    }
    let rows = folded.rows.len() as u64;
    let mut tx = pool.begin().await?;
    generation::use_schema(&mut tx, next).await?;
    put(&mut tx, next, user, folded).await?;
    if let Some(Stopped { position, error }) = stopped {
        progress::park(&mut tx, next, user, position, &error.class()).await?;
    }
    tx.commit().await?;
    Ok(rows)
}
