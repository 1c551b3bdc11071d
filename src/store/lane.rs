//! The slow lane: work that must see and change one person's data with nobody else in between,
//! such as health batches, changes of privacy, erasure and imports.
//!
//! The lane is a session lock on the person, taken on a connection of its own. Reading and
//! deciding happen under it but outside any transaction; the append is one call at the end, so no
//! round trip to us ever happens while the head lock is held. The lock comes before every row
//! lock, so it cannot be part of a deadlock with the fast lane.
//!
//! Who waits for a lane must not keep those who hold one from working: their reads need connections
//! of the same pool. So the waiting happens in memory, one person at a time, before a connection is
//! taken; the lock in the database orders processes; and lanes never take more than half the pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregates::UserId;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::Store;
use super::append::{self, Class, HealthWrites};
use super::member::{AppendError, Member, Outcome};
use super::read::ReadError;
use super::trouble;

pub(crate) const LOCK: &str = "SELECT pg_advisory_lock($1)";
pub(crate) const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";

/// How long a caller waits in memory; longer and the answer is "try again later".
const PATIENCE: Duration = Duration::from_secs(10);
/// Mutexes in memory. Two people may share one by chance; then one waits a little longer.
const QUEUES: usize = 256;

/// Where callers wait for a lane. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gate {
    queues: Arc<[Arc<Mutex<()>>]>,
    slots: Arc<Semaphore>,
}

impl Gate {
    /// For lanes on connections of this pool.
    pub fn new(pool: &PgPool) -> Self {
        let lanes = (pool.options().get_max_connections() / 2).max(1);
        Self {
            queues: (0..QUEUES).map(|_| Arc::default()).collect(),
            slots: Arc::new(Semaphore::new(lanes as usize)),
        }
    }

    async fn pass(&self, user: UserId) -> Result<Pass, sqlx::Error> {
        let queue = key(user).cast_unsigned() % QUEUES as u64;
        let queue = Arc::clone(&self.queues[queue as usize]);
        let waiting = async {
            let turn = queue.lock_owned().await;
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            slot.map(|slot| Pass { _turn: turn, _slot: slot })
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(pass)) => Ok(pass),
            Ok(Err(_)) => Err(sqlx::Error::PoolClosed),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }
}

/// The right to take a connection for one person's lane.
struct Pass {
    _turn: OwnedMutexGuard<()>,
    _slot: OwnedSemaphorePermit,
}

/// The lock on one person. Given back by [`release`](Self::release); a lane that is dropped
/// without it closes its connection, which gives the lock back too.
pub struct UserLane {
    store: Store,
    user: UserId,
    connection: Option<PoolConnection<Postgres>>,
    _pass: Pass,
}

impl Store {
    /// Waits for the lane of a person, for some seconds at most.
    ///
    /// # Errors
    /// Where the database does not answer or somebody holds the lane for too long.
    pub async fn lane(&self, user: UserId) -> Result<UserLane, ReadError> {
        let pass = self.gate.pass(user).await?;
        let connection = Some(self.pool.acquire().await?);
        let mut lane = UserLane { store: self.clone(), user, connection, _pass: pass };
        if let Some(connection) = &mut lane.connection {
            sqlx::query(LOCK).bind(key(user)).execute(&mut **connection).await?;
        }
        Ok(lane)
    }
}

/// Here too, two people may share a lock by chance.
fn key(user: UserId) -> i64 {
    let (high, low) = user.0.as_u64_pair();
    (high ^ low).cast_signed()
}

impl UserLane {
    /// The person whose lane it is.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// The connection that holds the lock, for reads that belong to the decision.
    pub(crate) fn connection(&mut self) -> Result<&mut PoolConnection<Postgres>, ReadError> {
        self.connection.as_mut().ok_or(ReadError::Database(sqlx::Error::PoolClosed))
    }

    /// Appends one member, with its samples if it has any, in one autocommitted call.
    ///
    /// # Errors
    /// [`AppendError`] where nothing is known to have been written.
    pub(crate) async fn append(
        &mut self,
        member: Member,
        health: Option<HealthWrites>,
    ) -> Result<Outcome, AppendError> {
        let span = trouble::append_span(&member);
        let result = self.append_sealed(member, health).instrument(span.clone()).await;
        trouble::record(&span, &result);
        self.store.trouble.note(&result);
        result
    }

    async fn append_sealed(
        &mut self,
        member: Member,
        health: Option<HealthWrites>,
    ) -> Result<Outcome, AppendError> {
        let mut sealed = self.store.sealer.seal(member).await?;
        if health.as_ref().is_some_and(|health| !health.changed) {
            let events = sealed.streams.iter_mut().flat_map(|stream| &mut stream.events);
            events.for_each(|event| event.class = Class::Quiet);
        }
        let keys_change = !sealed.subject_changes.is_empty();
        let connection = self.connection.as_mut().ok_or(AppendError::Unavailable)?;
        let started = Instant::now();
        let called = append::call(connection, &[&sealed], health.as_ref()).await;
        let outcomes = called.map_err(|cause| self.store.trouble.tell("slow", 1, cause))?;
        metrics::histogram!(crate::metrics::APPEND_SECONDS, "lane" => "slow")
            .record(started.elapsed().as_secs_f64());
        let outcome = outcomes.into_iter().next().ok_or(AppendError::Unavailable)?;
        if keys_change || outcome == Outcome::Refused {
            self.store.sealer.subjects.invalidate(self.user).await;
        }
        if let Outcome::Appended { last, .. } = outcome
            && last > 0
        {
            metrics::gauge!(crate::metrics::LOG_POSITION).set(last as f64);
            self.store.waker.wake();
        }
        Ok(outcome)
    }

    /// Gives the lane back.
    pub async fn release(mut self) {
        // The connection stays with the lane until the lock is gone: should the caller be cancelled
        // meanwhile, the lane is dropped and closes it, and no lock returns to the pool.
        let Some(connection) = &mut self.connection else { return };
        let unlocked = sqlx::query(UNLOCK).bind(key(self.user)).execute(&mut **connection).await;
        if unlocked.is_ok() {
            self.connection = None;
        }
    }
}

impl Drop for UserLane {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close_on_drop();
        }
    }
}
