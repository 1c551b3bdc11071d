//! One person's rows from the log, as far as they can be made and go in.
//!
//! A fold knows itself which event it stopped at. Rows that cannot be made as a whole, or that the
//! tables refuse, say nothing about the event that is to blame: then the person's events are halved
//! until the one is found whose coming makes the difference.

use std::collections::BTreeSet;

use aggregates::UserId;
use sqlx::{Connection, PgPool};

use super::checkpoint::Generation;
use super::source::LogReader;
use super::{ProjectorError, generation};
use crate::read_models::{Change, Folded, ReadModel, Stopped};

/// Events of a person that are looked through at a time.
const PAGE: i64 = 1_000;

/// Folds a person's events up to a position. The rows of the answer go into the tables, and where
/// it says that it stopped, they are those before that event. Up to `known` rows have gone in
/// before; the blame is looked for after that.
///
/// # Errors
/// Transient ones; others if not even no rows at all go in.
pub async fn settle<L: LogReader>(
    pool: &PgPool,
    log: &L,
    generation: &Generation,
    user: UserId,
    (known, upto): (i64, i64),
) -> Result<Folded, ProjectorError> {
    match attempt(pool, log, generation, user, upto, &BTreeSet::new()).await {
        Err(error) if !error.is_transient() => {
            bisect(pool, log, generation, user, (known, upto), error).await
        }
        result => result,
    }
}

async fn attempt<L: LogReader>(
    pool: &PgPool,
    log: &L,
    generation: &Generation,
    user: UserId,
    upto: i64,
    skipped: &BTreeSet<i64>,
) -> Result<Folded, ProjectorError> {
    let folded = generation.model.fold_skipping(log, user, upto, skipped).await?;
    let Folded { health_seq, position, shredded, hidden, skipped, stopped, .. } = folded;
    let change = Change { rows: folded.rows, hidden, ..Change::wipe_only(user, BTreeSet::new()) };
    rehearse(pool, generation, &change, true).await?;
    Ok(Folded { rows: change.rows, health_seq, position, shredded, hidden, skipped, stopped })
}

/// Writes a change and takes it back.
///
/// # Errors
/// What writing it fails with.
pub async fn rehearse(
    pool: &PgPool,
    generation: &Generation,
    change: &Change,
    replaces: bool,
) -> Result<(), ProjectorError> {
    let mut db = pool.acquire().await?;
    let mut tx = db.begin().await?;
    generation::use_schema(&mut tx, generation).await?;
    if replaces {
        generation.model.clear(&mut tx, &[change.user.0]).await?;
    }
    generation.model.write(&mut tx, &[change]).await?;
    tx.rollback().await?;
    Ok(())
}

async fn bisect<L: LogReader>(
    pool: &PgPool,
    log: &L,
    generation: &Generation,
    user: UserId,
    (known, upto): (i64, i64),
    mut error: ProjectorError,
) -> Result<Folded, ProjectorError> {
    let (heard, skipped) = survey(log, generation.model, user, upto).await?;
    // With the first `good` events all is well, with the first `bad` it is not.
    let (mut good, mut bad) = (heard.partition_point(|at| *at <= known), heard.len());
    while bad - good > 1 {
        let half = good.midpoint(bad);
        match attempt(pool, log, generation, user, heard[half - 1], &skipped).await {
            Ok(_) => good = half,
            Err(other) if other.is_transient() => return Err(other),
            Err(other) => (bad, error) = (half, other),
        }
    }
    let Some(&position) = bad.checked_sub(1).and_then(|last| heard.get(last)) else {
        return Err(error);
    };
    let folded = attempt(pool, log, generation, user, position - 1, &skipped).await?;
    Ok(Folded { stopped: Some(Stopped { position, error }), ..folded })
}

/// The positions of the person's events that the projector hears, and those it is to leave out.
async fn survey<L: LogReader>(
    log: &L,
    model: ReadModel,
    user: UserId,
    upto: i64,
) -> Result<(Vec<i64>, BTreeSet<i64>), ProjectorError> {
    let (mut heard, mut skipped) = (Vec::new(), BTreeSet::new());
    let mut after = 0;
    while after < upto {
        let page = log.user_page(user, after, upto, PAGE).await?;
        for event in page.events.iter().filter(|one| model.hears(&one.stream.aggregate_type)) {
            heard.push(event.position);
            skipped.extend(model.skip(event));
        }
        let broken = page.unreadable.iter().filter(|one| model.hears(&one.aggregate_type));
        heard.extend(broken.map(|event| event.position));
        if page.through <= after {
            break;
        }
        after = page.through;
    }
    heard.sort_unstable();
    Ok((heard, skipped))
}
