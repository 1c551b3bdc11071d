//! Rows from the log alone: rebuilding a read model, checking it, and repairing one person.
//!
//! All three are one fold, [`ReadModel::fold`], that reads no state a command keeps. So a rebuild
//! proves the live path, and a check of the rows checks that state as well.

use std::collections::{BTreeSet, HashSet};

use aggregates::UserId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::checkpoint::{self, Generation};
use super::progress::{self, Step};
use super::source::{LogReader, StateReader};
use super::{ProjectorError, Worker, generation};
use crate::read_models::reader::{Attempt, Pinned};
use crate::read_models::{Change, Folded, ReadModel, Row};

/// People listed at a time.
const USERS: i64 = 200;

/// What comparing two versions of all rows found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub same: u64,
    /// People whose events were still arriving; nothing can be said about them.
    pub unsettled: u64,
    /// People the live generation is parked for.
    pub parked: u64,
    pub differences: Vec<Difference>,
}

/// A person whose rows differ. Which rows and how is not said: they are personal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub user: UserId,
    /// Rows of the live generation that the log does not give.
    pub only_live: usize,
    /// Rows that the log gives and the live generation lacks.
    pub only_folded: usize,
}

impl Comparison {
    fn compare(&mut self, user: UserId, live: &[Row], folded: &[Row]) {
        if live == folded {
            self.same += 1;
            return;
        }
        let texts = |rows: &[Row]| rows.iter().map(|row| format!("{row:?}")).collect();
        let (live, folded): (HashSet<String>, HashSet<String>) = (texts(live), texts(folded));
        self.differences.push(Difference {
            user,
            only_live: live.difference(&folded).count(),
            only_folded: folded.difference(&live).count(),
        });
    }
}

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
/// two, and swaps. The old generation stays, retired. `on_progress` hears of people done. Takes up
/// to three connections of the pool at once.
///
/// # Errors
/// [`ProjectorError::Worse`] if the log does not give rows for people whom the live generation
/// shows; then, as with any other error, the live generation stays and the new one is removed.
pub async fn rebuild<S: LogReader + StateReader + Clone>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    owner: Uuid,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<Rebuilt, ProjectorError> {
    let (old, next) = {
        let mut db = pool.acquire().await?;
        let old = generation::ensure_live(&mut db, model).await?;
        (old, generation::create(&mut db, model, old.shards).await?)
    };
    let mut worker = Worker::of_generation(pool.clone(), source.clone(), owner, next);
    let built = build(pool, source, &old, &next, &mut worker, &mut on_progress).await;
    if built.is_err() {
        generation::remove(&mut *pool.acquire().await?, &next).await?;
    }
    built
}

async fn build<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    old: &Generation,
    next: &Generation,
    worker: &mut Worker<S>,
    on_progress: &mut (impl FnMut(u64) + Send),
) -> Result<Rebuilt, ProjectorError> {
    let name = next.model.spec().name;
    let behind = || ProjectorError::Behind { projector: name, generation: next.number };
    let head = source.head().await?;
    let (people, rows) = fill(pool, source, next, head, on_progress).await?;
    checkpoint::jump(&mut *pool.acquire().await?, next, head).await?;
    if !worker.catch_up(source.head().await?).await? {
        return Err(behind());
    }
    let comparison = compare(pool, source, old, next).await?;

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
            let folded = next.model.fold(log, user, head).await;
            let mut tx = pool.begin().await?;
            generation::use_schema(&mut tx, next).await?;
            match folded {
                Ok(folded) => {
                    rows += folded.rows.len() as u64;
                    put(&mut tx, next, user, folded).await?;
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => progress::park(&mut tx, next, user, 1, &error.class()).await?,
            }
            tx.commit().await?;
            people += 1;
        }
        on_progress(people);
    }
}

/// Writes one person's folded rows and progress.
async fn put(
    db: &mut PgConnection,
    generation: &Generation,
    user: UserId,
    folded: Folded,
) -> Result<(), ProjectorError> {
    let Folded { rows, health_seq, position, .. } = folded;
    if position == 0 {
        return Ok(());
    }
    let change = Change { user, wiped: BTreeSet::new(), rows, health_seq };
    generation.model.write(db, &[&change]).await?;
    progress::raise(db, generation, &[Step { user, position, health_seq }]).await
}

/// Compares two generations, person by person.
async fn compare<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    old: &Generation,
    next: &Generation,
) -> Result<Comparison, ProjectorError> {
    let mut comparison = Comparison::default();
    let mut after = None;
    loop {
        let users = source.users(after, USERS).await?;
        let Some(last) = users.last() else { return Ok(comparison) };
        after = Some(*last);
        for user in users {
            let mut sides = Vec::with_capacity(2);
            for generation in [old, next] {
                let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
                generation::use_schema(&mut tx, generation).await?;
                let progress = progress::of_user(&mut tx, generation, user).await?;
                sides.push((generation.model.rows_of(&mut tx, user).await?, progress));
            }
            // Read last: what both cover now, both covered when their rows were read.
            let heard = source.user_head(user).await?.heard(old.model.spec().hears);
            match &sides[..] {
                [(_, live), _] if live.parked => comparison.parked += 1,
                [(live, at), (next, next_at)] if at.covers(heard) && next_at.covers(heard) => {
                    comparison.compare(user, live, next);
                }
                _ => comparison.unsettled += 1,
            }
        }
    }
}

/// Compares the live rows of everybody with a fold of the log.
///
/// # Errors
/// Database errors and errors of the source; a person whose log cannot be read counts as parked.
pub async fn verify<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    mut on_progress: impl FnMut(u64) + Send,
) -> Result<Comparison, ProjectorError> {
    let mut comparison = Comparison::default();
    let mut after = None;
    let mut people = 0;
    loop {
        let users = source.users(after, USERS).await?;
        let Some(last) = users.last() else { return Ok(comparison) };
        after = Some(*last);
        people += users.len() as u64;
        for user in users {
            verify_user(pool, source, model, user, &mut comparison).await?;
        }
        on_progress(people);
    }
}

async fn verify_user<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    model: ReadModel,
    user: UserId,
    comparison: &mut Comparison,
) -> Result<(), ProjectorError> {
    let mut pinned = Pinned::open(pool, model, user, Attempt::First).await?;
    let live = model.rows_of(&mut pinned.tx, user).await?;
    let progress = pinned.progress;
    pinned.tx.rollback().await?;
    let heard = source.user_head(user).await?.heard(model.spec().hears);
    if progress.parked {
        comparison.parked += 1;
    } else if !progress.covers(heard) {
        comparison.unsettled += 1;
    } else {
        match model.fold(source, user, progress.position).await {
            Ok(folded) => comparison.compare(user, &live, &folded.rows),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => comparison.parked += 1,
        }
    }
    Ok(())
}

/// Replaces one person's live rows by a fold of the log and takes them off the list of the parked.
/// Their shard waits meanwhile.
///
/// # Errors
/// What the fold failed with; the rows then stay as they were.
pub async fn refold<L: LogReader>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
    user: UserId,
) -> Result<(), ProjectorError> {
    let mut tx = pool.begin().await?;
    let live = generation::live(&mut tx, model)
        .await?
        .ok_or(ProjectorError::NoGeneration { projector: model.spec().name })?;
    let shard = checkpoint::lock(&mut tx, &live, Some(live.shard_of(user))).await?;
    let position = shard.first().map_or(0, |(_, position)| *position);
    let folded = model.fold(log, user, position).await?;
    generation::use_schema(&mut tx, &live).await?;
    model.clear(&mut tx, user).await?;
    put(&mut tx, &live, user, folded).await?;
    progress::unpark(&mut tx, &live, user).await?;
    tx.commit().await?;
    Ok(())
}

/// Tries everybody who is parked again; answers how many were freed and how many were not.
///
/// # Errors
/// Transient failures only.
pub async fn retry<L: LogReader>(
    pool: &PgPool,
    log: &L,
    model: ReadModel,
) -> Result<(u64, u64), ProjectorError> {
    let (mut freed, mut failed) = (0, 0);
    let (live, parked) = {
        let mut db = pool.acquire().await?;
        let live = generation::ensure_live(&mut db, model).await?;
        (live, progress::parked(&mut db, &live).await?)
    };
    for one in parked {
        match refold(pool, log, model, one.user).await {
            Ok(()) => freed += 1,
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
