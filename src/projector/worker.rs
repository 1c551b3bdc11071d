//! One worker: takes free shards, reads pages of the log once and carries every projector forward.
//!
//! Per projector and page there is one transaction: it advances the checkpoints of all held shards
//! by compare-and-set, then writes rows and progress. What a page needs is read and computed before
//! that transaction begins, so that it is short, and a worker that lost the race has written
//! nothing.

use std::time::Duration;

use aggregates::recorded::Content;
use sqlx::PgPool;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::batch::{self, Advance};
use super::checkpoint::{self, Generation, Held, LEASE_SECONDS};
use super::error::DIED;
use super::heartbeat::Heartbeat;
use super::source::{LogReader, Page, StateReader};
use super::{ProjectorError, generation};
use crate::read_models::ReadModel;

/// Events a page holds at most. Larger pages share one commit among more events and make one
/// person's burst of uploads one recomputation.
pub const PAGE: i64 = 500;

/// So many workers have to have died of one event before it is not looked at any more.
const ATTEMPTS: i32 = 3;

/// One generation and the shards of it that this worker holds.
#[derive(Clone, Debug)]
struct Lane {
    generation: Generation,
    held: Vec<Held>,
}

/// A worker over the live generations of some projectors, or over one generation being built.
pub struct Worker<S> {
    pool: PgPool,
    source: S,
    owner: Uuid,
    lease_seconds: f64,
    target: Target,
    lanes: Vec<Lane>,
    claimed: Option<Instant>,
    /// Events of a page. Halved when a step fails, so that a page which takes longer than others
    /// wait comes down to one that does not; doubled again with success.
    limit: i64,
}

/// What a worker works on.
#[derive(Clone, Debug)]
enum Target {
    Live(Vec<ReadModel>),
    One(Generation),
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Events that were looked at.
    pub events: usize,
    /// Where the slowest held shard stands now; `None` when nothing is held.
    pub position: Option<i64>,
}

impl<S: LogReader + StateReader> Worker<S> {
    /// A worker over live generations. `owner` is unique to the process.
    pub fn live(pool: PgPool, source: S, owner: Uuid, models: Vec<ReadModel>) -> Self {
        Self::new(pool, source, owner, Target::Live(models))
    }

    /// A worker over one generation.
    pub fn of_generation(pool: PgPool, source: S, owner: Uuid, generation: Generation) -> Self {
        Self::new(pool, source, owner, Target::One(generation))
    }

    fn new(pool: PgPool, source: S, owner: Uuid, target: Target) -> Self {
        let lease_seconds = LEASE_SECONDS;
        let (lanes, claimed, limit) = (Vec::new(), None, PAGE);
        Self { pool, source, owner, lease_seconds, target, lanes, claimed, limit }
    }

    /// With another lease; tests let it expire at once.
    #[must_use]
    pub fn with_lease_seconds(mut self, seconds: f64) -> Self {
        self.lease_seconds = seconds;
        self
    }

    /// Takes what is free and reads, computes and commits one page. Does nothing at the head.
    ///
    /// # Errors
    /// Transient failures, to be retried with the same call after a pause. Failures of one
    /// person's data park that person and are no error.
    pub async fn step(&mut self) -> Result<Stepped, ProjectorError> {
        self.take_shards().await?;
        let Some(after) = self.position() else { return Ok(Stepped::default()) };
        let heartbeat = Heartbeat::start(&self.pool, self.owner, self.lease_seconds);
        let result = self.step_from(after).await;
        drop(heartbeat);
        match result {
            Ok(_) => self.limit = (self.limit * 2).min(PAGE),
            Err(_) => self.limit = (self.limit / 2).max(1),
        }
        result
    }

    async fn step_from(&mut self, after: i64) -> Result<Stepped, ProjectorError> {
        if let Some(stepped) = self.condemn(after).await? {
            return Ok(stepped);
        }
        let limit = if self.is_careful() { 1 } else { self.limit };
        let page = self.source.page(after, limit).await?;
        for index in 0..self.lanes.len() {
            self.carry(index, &page).await?;
        }
        let events = page.events.len() + page.unreadable.len();
        if events == 0 {
            self.acquit().await?;
        }
        Ok(Stepped { events, position: self.position() })
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.lanes.iter().flat_map(|lane| &lane.held)
    }

    /// Whether a worker has died near here.
    fn is_careful(&self) -> bool {
        self.held().any(|held| held.position < held.careful_until)
    }

    /// Parks the person of the next event without looking at it, if several workers in a row took
    /// it alone and none came back. The lanes are carried in their order, so the first that has not
    /// passed the event is the one they died in; if no lane hears it, opening it was enough.
    async fn condemn(&mut self, after: i64) -> Result<Option<Stepped>, ProjectorError> {
        let desperate = |held: &Held| held.position == after && held.attempts > ATTEMPTS;
        if !self.is_careful() || !self.held().any(desperate) {
            return Ok(None);
        }
        let page = self.source.unopened(after, 1, DIED).await?;
        let Some(event) = page.unreadable.first() else { return Ok(None) };
        let hears = |lane: &Lane| {
            let shard = lane.generation.shard_of(event.user);
            let concerned = lane.held.iter().find(|held| held.shard == shard);
            let hears = lane.generation.model.hears(&event.aggregate_type);
            concerned.filter(|held| hears && held.position == after).map(desperate)
        };
        let first = self.lanes.iter().enumerate().find_map(|(at, lane)| Some((at, hears(lane)?)));
        if matches!(first, Some((_, false))) {
            return Ok(None);
        }
        for index in 0..self.lanes.len() {
            let hears = |lane: &Lane| lane.generation.model.hears(&event.aggregate_type);
            let concerned = self.lanes.get(index).is_some_and(hears);
            // Who does not hear the event passes it as well, lest it be opened for nothing.
            if !concerned || first.is_some_and(|(first, _)| first == index) {
                self.carry(index, &page).await?;
            }
        }
        self.acquit().await?;
        Ok(Some(Stepped { events: 1, position: self.position() }))
    }

    /// Nobody has died: what was counted against the held shards is forgotten.
    async fn acquit(&mut self) -> Result<(), ProjectorError> {
        if self.held().any(|held| held.attempts > 0) {
            checkpoint::acquit(&mut *self.pool.acquire().await?, self.owner).await?;
            for held in self.lanes.iter_mut().flat_map(|lane| &mut lane.held) {
                held.attempts = 0;
            }
        }
        Ok(())
    }

    /// Steps until the held shards have reached `head`; answers whether any are held.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn catch_up(&mut self, head: i64) -> Result<bool, ProjectorError> {
        loop {
            let stepped = self.step().await?;
            match stepped.position {
                None => return Ok(false),
                Some(position) if position >= head => return Ok(true),
                // The log ends before `head`: it was asked for too much.
                Some(_) if stepped.events == 0 => return Ok(true),
                Some(_) => {}
            }
        }
    }

    /// Gives all shards up.
    ///
    /// # Errors
    /// Database errors.
    pub async fn stop(&mut self) -> Result<(), ProjectorError> {
        self.claimed = None;
        let mut db = self.pool.acquire().await?;
        for lane in self.lanes.drain(..) {
            checkpoint::release(&mut db, &lane.generation, self.owner).await?;
        }
        Ok(())
    }

    /// What the worker reads.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Where the slowest held shard of each projector stands.
    pub fn positions(&self) -> impl Iterator<Item = (ReadModel, i64)> {
        self.lanes.iter().filter_map(|lane| {
            let slowest = lane.held.iter().map(|held| held.position).min()?;
            Some((lane.generation.model, slowest))
        })
    }

    fn position(&self) -> Option<i64> {
        self.lanes.iter().flat_map(|lane| &lane.held).map(|held| held.position).min()
    }

    /// Claims shards, and claims them anew well before the lease ends: that renews what is held and
    /// takes over what other workers left behind.
    async fn take_shards(&mut self) -> Result<(), ProjectorError> {
        let renew_after = Duration::from_secs_f64(self.lease_seconds / 3.0);
        let recent = self.claimed.is_some_and(|at| at.elapsed() < renew_after);
        if recent && self.lanes.iter().all(|lane| !lane.held.is_empty()) {
            return Ok(());
        }
        let mut db = self.pool.acquire().await?;
        let generations = match &self.target {
            Target::One(generation) => vec![*generation],
            Target::Live(models) => {
                let mut live = Vec::with_capacity(models.len());
                for model in models {
                    let generation = generation::ensure_live(&mut db, *model).await?;
                    if generation.is_current() {
                        live.push(generation);
                    }
                }
                live
            }
        };
        self.lanes.clear();
        for generation in generations {
            let held =
                checkpoint::claim(&mut db, &generation, self.owner, self.lease_seconds).await?;
            self.lanes.push(Lane { generation, held });
        }
        self.claimed = Some(Instant::now());
        Ok(())
    }

    /// Carries one projector over a page.
    async fn carry(&mut self, index: usize, page: &Page) -> Result<(), ProjectorError> {
        let Some(lane) = self.lanes.get(index) else { return Ok(()) };
        if lane.held.is_empty() || lane.held.iter().all(|held| held.position >= page.through) {
            return Ok(());
        }
        let started = Instant::now();
        let name = lane.generation.model.spec().name;
        let from = lane.held.iter().map(|held| held.position).min().unwrap_or_default();
        let span = tracing::info_span!("project", name, from, to = page.through);
        let result = self.carry_lane(lane, page).instrument(span.clone()).await;
        if result.is_ok() {
            span.in_scope(|| follow(lane.generation.model, page));
        }
        match result {
            Ok(()) => {
                metrics::histogram!(crate::metrics::PROJECTOR_BATCH_SECONDS, "name" => name)
                    .record(started.elapsed().as_secs_f64());
                for held in self.lanes.get_mut(index).map_or(&mut [][..], |lane| &mut lane.held) {
                    held.position = held.position.max(page.through);
                    held.attempts = 0;
                }
                Ok(())
            }
            Err(error) => {
                metrics::counter!(crate::metrics::PROJECTOR_FAILURES, "name" => name).increment(1);
                // Whatever happened, what is held is no longer certain.
                self.claimed = None;
                if matches!(error, ProjectorError::Lost { .. }) {
                    let mut db = self.pool.acquire().await?;
                    checkpoint::survived(&mut db, &lane.generation, &lane.held).await?;
                }
                Err(error)
            }
        }
    }

    async fn carry_lane(&self, lane: &Lane, page: &Page) -> Result<(), ProjectorError> {
        let generation = &lane.generation;
        let (pool, source) = (&self.pool, &self.source);
        let mut people = batch::prepare(pool, source, generation, &lane.held, page).await?;
        let advance = Advance { held: &lane.held, to: page.through, lease: self.lease_seconds };
        match batch::commit(pool, generation, &advance, &people).await {
            // Somebody's rows do not go in: find out whose, and let everybody else go on.
            Err(error) if !error.is_transient() => {
                match batch::blame(pool, source, generation, page, &mut people).await? {
                    true => batch::commit(pool, generation, &advance, &people).await,
                    false => Err(error),
                }
            }
            result => result,
        }
    }
}

/// For who follows one request through: which of its events a projector has seen to.
fn follow(model: ReadModel, page: &Page) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let heard = page.events.iter().filter(|event| model.hears(&event.stream.aggregate_type));
    for event in heard {
        if let Content::Open { metadata, .. } = &event.content {
            let correlation_id = metadata.correlation_id;
            tracing::debug!(position = event.position, %correlation_id, "projected");
        }
    }
}
