//! One page for one projector: routed to people, computed, committed in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use aggregates::{Recorded, UserId};
use futures_util::FutureExt;
use sqlx::{Connection, PgConnection, PgPool};

use super::checkpoint::{self, Generation, Held};
use super::progress::{self, Step};
use super::source::{Page, SourceError, StateReader};
use super::{ProjectorError, generation};
use crate::read_models::Change;

/// How a transaction moves its checkpoints.
pub struct Advance<'a> {
    pub held: &'a [Held],
    pub to: i64,
    /// Seconds the lease is renewed for.
    pub lease: f64,
}

/// How rows go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Everybody's in one statement a table.
    Together,
    /// Each person's under a savepoint; whose fail is parked.
    Singly,
}

/// What a page does to one person.
pub struct Person {
    user: UserId,
    /// The first event of the page that the projector listens to.
    first: i64,
    was_parked: bool,
    change: Change,
    step: Option<Step>,
    /// Why the person must be parked.
    park: Option<String>,
}

/// A person's events in a page.
#[derive(Default)]
struct Mail<'a> {
    first: i64,
    events: Vec<&'a Recorded>,
    unreadable: Option<&'static str>,
}

/// Sorts a page by person, leaving out what the projector does not hear, what is not in a held
/// shard and what its shard has passed already.
fn route<'a>(generation: &Generation, held: &[Held], page: &'a Page) -> BTreeMap<UserId, Mail<'a>> {
    let positions: BTreeMap<i16, i64> =
        held.iter().map(|held| (held.shard, held.position)).collect();
    let wanted = |user: UserId, aggregate_type: &str, position: i64| {
        generation.model.hears(aggregate_type)
            && positions.get(&generation.shard_of(user)).is_some_and(|at| position > *at)
    };
    let mut routed: BTreeMap<UserId, Mail<'a>> = BTreeMap::new();
    for event in &page.events {
        if wanted(event.user, &event.stream.aggregate_type, event.position) {
            routed
                .entry(event.user)
                .or_insert_with(|| Mail { first: event.position, ..Mail::default() })
                .events
                .push(event);
        }
    }
    for event in &page.unreadable {
        if wanted(event.user, &event.aggregate_type, event.position) {
            let mail = routed
                .entry(event.user)
                .or_insert_with(|| Mail { first: event.position, ..Mail::default() });
            mail.first = mail.first.min(event.position);
            mail.unreadable = Some(event.class);
        }
    }
    routed
}

/// Computes what a page changes, person by person, before any transaction begins.
///
/// # Errors
/// Transient failures only: one person's broken data is part of the answer.
pub async fn prepare<S: StateReader>(
    pool: &PgPool,
    source: &S,
    generation: &Generation,
    held: &[Held],
    page: &Page,
) -> Result<Vec<Person>, ProjectorError> {
    let routed = route(generation, held, page);
    if routed.is_empty() {
        return Ok(Vec::new());
    }
    let parked = parked(&mut *pool.acquire().await?, generation).await?;
    let mut people = Vec::with_capacity(routed.len());
    for (user, mail) in routed {
        let was_parked = parked.contains(&user);
        // An erasure reaches parked people as well.
        let wiped = Change::wipe_only(user, generation.model.wiped(&mail.events));
        let mut person =
            Person { user, first: mail.first, was_parked, change: wiped, step: None, park: None };
        if !was_parked {
            match compute(source, generation, user, &mail).await {
                Ok(change) => {
                    let position = mail.events.last().map_or(mail.first, |event| event.position);
                    person.step = Some(Step { user, position, health_seq: change.health_seq });
                    person.change = change;
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => person.park = Some(error.class()),
            }
        }
        people.push(person);
    }
    Ok(people)
}

async fn compute<S: StateReader>(
    source: &S,
    generation: &Generation,
    user: UserId,
    mail: &Mail<'_>,
) -> Result<Change, ProjectorError> {
    if let Some(class) = mail.unreadable {
        return Err(SourceError::Unreadable { class }.into());
    }
    let model = generation.model;
    AssertUnwindSafe(model.refresh(source, user, &mail.events))
        .catch_unwind()
        .await
        .unwrap_or(Err(ProjectorError::Panicked { projector: model.spec().name }))
}

async fn parked(
    db: &mut PgConnection,
    generation: &Generation,
) -> Result<BTreeSet<UserId>, ProjectorError> {
    Ok(progress::parked(db, generation).await?.into_iter().map(|one| one.user).collect())
}

/// Advances the checkpoints, writes rows and progress, parks who must be parked: all or nothing.
///
/// # Errors
/// [`ProjectorError::Lost`] if another worker was faster; database errors.
pub async fn commit(
    pool: &PgPool,
    generation: &Generation,
    advance: &Advance<'_>,
    people: &[Person],
    writing: Writing,
) -> Result<(), ProjectorError> {
    let mut db = pool.acquire().await?;
    let mut tx = db.begin().await?;
    checkpoint::advance(&mut tx, generation, advance.held, advance.to, advance.lease).await?;
    if !people.is_empty() {
        // The shards stand still from here on. If somebody was taken off the list of the parked or
        // put on it since it was read, the batch was computed for other people.
        let parked = parked(&mut tx, generation).await?;
        if people.iter().any(|person| parked.contains(&person.user) != person.was_parked) {
            return Err(ProjectorError::Lost { projector: generation.model.spec().name });
        }
        generation::use_schema(&mut tx, generation).await?;
        match writing {
            Writing::Together => write(&mut tx, generation, people).await?,
            Writing::Singly => {
                for person in people {
                    write_singly(&mut tx, generation, person).await?;
                }
            }
        }
        for person in people {
            if let Some(class) = &person.park {
                progress::park(&mut tx, generation, person.user, person.first, class).await?;
            }
        }
    }
    tx.commit().await?;
    Ok(())
}

async fn write(
    tx: &mut PgConnection,
    generation: &Generation,
    people: &[Person],
) -> Result<(), ProjectorError> {
    let changes: Vec<&Change> = people.iter().map(|person| &person.change).collect();
    generation.model.write(tx, &changes).await?;
    let steps: Vec<Step> = people.iter().filter_map(|person| person.step).collect();
    progress::raise(tx, generation, &steps).await
}

/// Parks the person if their rows do not go in.
async fn write_singly(
    tx: &mut PgConnection,
    generation: &Generation,
    person: &Person,
) -> Result<(), ProjectorError> {
    let mut savepoint = tx.begin().await?;
    match write(&mut savepoint, generation, std::slice::from_ref(person)).await {
        Ok(()) => Ok(savepoint.commit().await?),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            savepoint.rollback().await?;
            // Parked or not, an erasure holds.
            let wiped = Change::wipe_only(person.user, person.change.wiped.clone());
            generation.model.write(tx, &[&wiped]).await?;
            progress::park(tx, generation, person.user, person.first, &error.class()).await
        }
    }
}
