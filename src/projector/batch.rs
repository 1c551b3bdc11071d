//! One page for one projector: routed to people, computed, committed in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use aggregates::{Purpose, Recorded, UserId};
use futures_util::FutureExt;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::checkpoint::{self, Generation, Held};
use super::error::DIED;
use super::progress::{self, Standing, Step};
use super::settle::{rehearse, settle};
use super::source::{LogReader, Page, SourceError, StateReader, Unreadable};
use super::{ProjectorError, generation};
use crate::read_models::{Change, Folded, Stopped};

/// How a transaction moves its checkpoints.
pub struct Advance<'a> {
    pub held: &'a [Held],
    pub to: i64,
    /// Seconds the lease is renewed for.
    pub lease: f64,
}

/// What a page does to one person.
#[derive(Debug)]
pub struct Person {
    user: UserId,
    was: Standing,
    floor: i64,
    /// What the page erases.
    wiped: BTreeSet<Purpose>,
    change: Change,
    step: Option<Step>,
    fate: Fate,
}

/// What becomes of a person beside their rows.
#[derive(Debug)]
enum Fate {
    /// Rows are written over what is there.
    Goes,
    /// Rows take the place of everything there is, as the log has it: no longer parked, without
    /// these events.
    Anew { skipped: BTreeSet<i64> },
    /// The person is parked before this event. With rows, those take the place of what is there.
    Parked { stopped: Stopped, anew: Option<BTreeSet<i64>> },
}

/// A person's events in a page.
#[derive(Default)]
struct Mail<'a> {
    events: Vec<&'a Recorded>,
    /// The first of those that cannot be read.
    unreadable: Option<&'a Unreadable>,
}

impl Mail<'_> {
    fn first(&self) -> i64 {
        let readable = self.events.first().map(|event| event.position);
        let unreadable = self.unreadable.map(|event| event.position);
        readable.into_iter().chain(unreadable).min().unwrap_or(0)
    }
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
            routed.entry(event.user).or_default().events.push(event);
        }
    }
    for event in &page.unreadable {
        if wanted(event.user, &event.aggregate_type, event.position) {
            routed.entry(event.user).or_default().unreadable.get_or_insert(event);
        }
    }
    routed
}

/// Computes what a page changes, person by person, before any transaction begins.
///
/// # Errors
/// Transient failures only: one person's broken data is part of the answer.
pub async fn prepare<S: LogReader + StateReader>(
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
    let users: Vec<Uuid> = routed.keys().map(|user| user.0).collect();
    let standings = progress::standings(&mut *pool.acquire().await?, generation, &users).await?;
    let desk = Desk { pool, source, generation, through: page.through };
    let mut people = Vec::with_capacity(routed.len());
    for (user, mail) in routed {
        let was = standings.get(&user).copied().unwrap_or_default();
        people.push(desk.person(user, was, &mail).await?);
    }
    Ok(people)
}

/// Where one page is worked on.
struct Desk<'a, S> {
    pool: &'a PgPool,
    source: &'a S,
    generation: &'a Generation,
    through: i64,
}

impl<S: LogReader + StateReader> Desk<'_, S> {
    async fn person(
        &self,
        user: UserId,
        was: Standing,
        mail: &Mail<'_>,
    ) -> Result<Person, ProjectorError> {
        let model = self.generation.model;
        let wiped = model.wiped(&mail.events);
        let wiped_nothing = wiped.is_empty();
        let whose =
            Whose { user, was, floor: was.parked_at.unwrap_or_else(|| mail.first()), wiped };
        let skips = mail.events.iter().any(|event| model.skip(event).is_some());
        let turns = mail.unreadable.is_none() && mail.events.iter().any(|event| model.turns(event));
        if was.parked_at.is_some() && !skips && (wiped_nothing || was.fatal) {
            // Their events wait in the log. An erasure does not.
            let Whose { floor, wiped, .. } = whose;
            let change = Change::wipe_only(user, wiped.clone());
            return Ok(Person { user, was, floor, wiped, change, step: None, fate: Fate::Goes });
        }
        // Workers have died of this event: whatever else is to be done, nothing opens it again.
        if let Some(event) = mail.unreadable.filter(|event| event.class == DIED) {
            let error = SourceError::Unreadable { class: DIED }.into();
            return self.park(whose, Stopped { position: event.position, error }).await;
        }
        // With an event left out, current state is not what the rows follow from; and what could not
        // be opened may be none of ours any more once its key is destroyed.
        if turns || skips || was.partial || was.parked_at.is_some() {
            return self.fold_anew(whose).await;
        }
        let result = match mail.unreadable {
            Some(event) => Err(SourceError::Unreadable { class: event.class }.into()),
            None => self.refresh(user, &mail.events).await,
        };
        match result {
            Ok(change) => {
                let position = mail.events.last().map_or(0, |event| event.position);
                let step = Step { user, position, health_seq: change.health_seq };
                let Whose { floor, wiped, .. } = whose;
                Ok(Person { user, was, floor, wiped, change, step: Some(step), fate: Fate::Goes })
            }
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let stopped = self.first_to_fail(user, mail, error).await?;
                self.park(whose, stopped).await
            }
        }
    }

    async fn refresh(&self, user: UserId, events: &[&Recorded]) -> Result<Change, ProjectorError> {
        let model = self.generation.model;
        AssertUnwindSafe(model.refresh(self.source, user, events))
            .catch_unwind()
            .await
            .unwrap_or(Err(ProjectorError::Panicked { projector: model.spec().name }))
    }

    /// Which of a person's events a page fails at.
    async fn first_to_fail(
        &self,
        user: UserId,
        mail: &Mail<'_>,
        mut error: ProjectorError,
    ) -> Result<Stopped, ProjectorError> {
        let before = |event: &&&Recorded| {
            mail.unreadable.is_none_or(|unreadable| event.position < unreadable.position)
        };
        let events: Vec<&Recorded> = mail.events.iter().filter(before).copied().collect();
        // With the first `good` events all is well, with the first `bad` it is not; the unreadable
        // one comes after all of them.
        let (mut good, mut bad) = (0, events.len() + usize::from(mail.unreadable.is_some()));
        while bad - good > 1 {
            let half = good.midpoint(bad);
            match self.refresh(user, &events[..half]).await {
                Ok(_) => good = half,
                Err(other) if other.is_transient() => return Err(other),
                Err(other) => (bad, error) = (half, other),
            }
        }
        let event = bad.checked_sub(1).and_then(|last| events.get(last));
        let unreadable = mail.unreadable.map(|event| event.position);
        let position = event.map(|event| event.position).or(unreadable).unwrap_or(self.through);
        Ok(Stopped { position, error })
    }

    /// Parks a person with the rows of their events before the one that failed, as the log has
    /// them: current state may be ahead of it.
    async fn park(&self, whose: Whose, stopped: Stopped) -> Result<Person, ProjectorError> {
        let span = (whose.floor - 1, stopped.position - 1);
        match settle(self.pool, self.source, self.generation, whose.user, span).await {
            Ok(folded) => Ok(whose.stopped(folded, stopped)),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(whose.stays(stopped)),
        }
    }

    /// A person's rows from the log, up to the end of the page or to where they have to be parked.
    async fn fold_anew(&self, whose: Whose) -> Result<Person, ProjectorError> {
        let span = (whose.floor - 1, self.through);
        match settle(self.pool, self.source, self.generation, whose.user, span).await {
            Ok(mut folded) => Ok(match folded.stopped.take() {
                None => whose.goes_on(folded),
                Some(stopped) => whose.stopped(folded, stopped),
            }),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let position = whose.floor;
                Ok(whose.stays(Stopped { position, error }))
            }
        }
    }
}

/// A person, and what is known of them before anything is computed.
#[derive(Clone, Debug)]
struct Whose {
    user: UserId,
    was: Standing,
    /// The first event of the page for them, or the one they are parked before: rows are complete
    /// up to there and do not go back behind it.
    floor: i64,
    /// What the page erases.
    wiped: BTreeSet<Purpose>,
}

impl Whose {
    fn goes_on(self, folded: Folded) -> Person {
        let Self { user, was, floor, wiped } = self;
        let Folded { health_seq, position, .. } = folded;
        let skipped = folded.skipped.clone();
        let change = Change::whole(user, folded);
        let step = (position > 0).then_some(Step { user, position, health_seq });
        Person { user, was, floor, wiped, change, step, fate: Fate::Anew { skipped } }
    }

    /// Parked at the earlier of two places, with the rows before it.
    fn stopped(self, mut folded: Folded, stopped: Stopped) -> Person {
        let stopped = match folded.stopped.take() {
            // What is there cannot be made again now, so it stays.
            Some(earlier) if earlier.position < self.floor => return self.stays(earlier),
            Some(earlier) => earlier,
            None if stopped.position < self.floor => return self.stays(stopped),
            None => stopped,
        };
        let wiped = self.wiped.clone();
        let mut person = self.goes_on(folded);
        person.change.rows.retain(|row| row.survives(&wiped));
        if let Fate::Anew { skipped } = person.fate {
            person.fate = Fate::Parked { stopped, anew: Some(skipped) };
        }
        person
    }

    fn stays(self, stopped: Stopped) -> Person {
        let Self { user, was, floor, wiped } = self;
        let stopped = Stopped { position: stopped.position.max(floor), ..stopped };
        let fate = Fate::Parked { stopped, anew: None };
        let change = Change::wipe_only(user, wiped.clone());
        Person { user, was, floor, wiped, change, step: None, fate }
    }
}

/// Finds out whose rows do not go in, and takes theirs from the log instead, as far as it goes.
/// Answers whether there was anybody.
///
/// # Errors
/// Transient failures.
pub async fn blame<S: LogReader + StateReader>(
    pool: &PgPool,
    source: &S,
    generation: &Generation,
    page: &Page,
    people: &mut [Person],
) -> Result<bool, ProjectorError> {
    let desk = Desk { pool, source, generation, through: page.through };
    let mut found = false;
    for person in people {
        let anew = person.fate.anew().is_some();
        match rehearse(pool, generation, &person.change, anew).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => {
                let Person { user, was, floor, .. } = *person;
                let wiped = person.wiped.clone();
                *person = desk.fold_anew(Whose { user, was, floor, wiped }).await?;
                found = true;
            }
        }
    }
    Ok(found)
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
) -> Result<(), ProjectorError> {
    let mut db = pool.acquire().await?;
    let mut tx = db.begin().await?;
    checkpoint::advance(&mut tx, generation, advance.held, advance.to, advance.lease).await?;
    if !people.is_empty() {
        // The shards stand still from here on. If somebody was taken off the list of the parked or
        // put on it since it was read, the batch was computed for other people.
        let users: Vec<Uuid> = people.iter().map(|person| person.user.0).collect();
        let now = progress::standings(&mut tx, generation, &users).await?;
        if people.iter().any(|one| now.get(&one.user).copied().unwrap_or_default() != one.was) {
            return Err(ProjectorError::Lost { projector: generation.model.spec().name });
        }
        generation::use_schema(&mut tx, generation).await?;
        write(&mut tx, generation, people).await?;
        let erased = people.iter().filter(|person| !person.wiped.is_empty());
        let erased: Vec<Change> =
            erased.map(|person| Change::wipe_only(person.user, person.wiped.clone())).collect();
        generation::erase_elsewhere(&mut tx, generation, &erased).await?;
    }
    tx.commit().await?;
    for person in people {
        person.report(generation);
    }
    Ok(())
}

async fn write(
    tx: &mut PgConnection,
    generation: &Generation,
    people: &[Person],
) -> Result<(), ProjectorError> {
    let anew: Vec<Uuid> = people
        .iter()
        .filter(|person| person.fate.anew().is_some())
        .map(|person| person.user.0)
        .collect();
    if !anew.is_empty() {
        generation.model.clear(tx, &anew).await?;
    }
    let changes: Vec<&Change> = people.iter().map(|person| &person.change).collect();
    generation.model.write(tx, &changes).await?;
    let steps: Vec<Step> = people.iter().filter_map(|person| person.step).collect();
    progress::raise(tx, generation, &steps).await?;
    for person in people {
        if let Some(skipped) = person.fate.anew() {
            progress::skip(tx, generation, person.user, skipped).await?;
        }
        match &person.fate {
            Fate::Goes => {}
            Fate::Anew { .. } => progress::unpark(tx, generation, person.user).await?,
            Fate::Parked { stopped, .. } => {
                let class = stopped.error.class();
                progress::park(tx, generation, person.user, stopped.position, &class).await?;
            }
        }
    }
    Ok(())
}

impl Fate {
    /// The events left out of rows that take the place of everything there is.
    fn anew(&self) -> Option<&BTreeSet<i64>> {
        match self {
            Self::Goes => None,
            Self::Anew { skipped } => Some(skipped),
            Self::Parked { anew, .. } => anew.as_ref(),
        }
    }
}

impl Person {
    /// Says to operators what has become of the person, once it is certain.
    fn report(&self, generation: &Generation) {
        let projector = generation.model.spec().name;
        match &self.fate {
            Fate::Parked { stopped, .. } => {
                let Stopped { position, error } = stopped;
                let cause = error.cause();
                metrics::counter!(
                    crate::metrics::PROJECTOR_POISON, "name" => projector, "cause" => cause
                )
                .increment(1);
                tracing::error!(
                    projector,
                    user = %self.user,
                    position,
                    class = %error.class(),
                    "an event could not be projected: its person waits, everybody else goes on; \
                     mend the cause and run `tidemark projectors retry`, or leave the event out \
                     with `tidemark projectors skip`"
                );
            }
            Fate::Anew { .. } if self.was.parked_at.is_some() => {
                tracing::info!(projector, user = %self.user, "a person is no longer parked");
            }
            Fate::Anew { .. } | Fate::Goes => {}
        }
    }
}
