//! Group commit: one task writes what all waiting commands have decided.
//!
//! The price of the head lock and of the fsync is paid once per call, so throughput grows with
//! the number of waiting commands while each waits for little more than one fsync. Members of one
//! call must not share a key; those that do wait for the next call, in their order of arrival.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use super::append::{self, SealedMember};
use super::kept::Kept;
use super::member::{AppendError, Outcome};
use super::wake::Waker;

/// Members of one call. Past this the call's own time outweighs what sharing an fsync saves.
const MAX_MEMBERS: usize = 512;
/// Bytes of one call, so that one large import does not hold the head lock for everybody.
const MAX_BYTES: usize = 4 << 20;
/// Commands that may wait; past it callers are told to come back.
const QUEUE: usize = 4096;

/// Who has waited this long for a call is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

struct Waiting {
    member: SealedMember,
    since: Instant,
    answer: oneshot::Sender<Result<Outcome, AppendError>>,
}

/// Handle of the appender task; clones share it.
#[derive(Clone)]
pub(crate) struct Appender {
    queue: mpsc::Sender<Waiting>,
}

impl Appender {
    /// Starts the task on a pool of its own (one connection each for the two lanes it uses).
    pub fn start(pool: PgPool, waker: Waker) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(pool, waker, waiting));
        Self { queue }
    }

    /// Appends one member and waits until it is durable or refused.
    pub async fn append(&self, member: SealedMember) -> Result<Outcome, AppendError> {
        if member.size() > MAX_BYTES {
            return Err(AppendError::TooLarge("a change may hold at most 4 MiB"));
        }
        let (answer, outcome) = oneshot::channel();
        let waiting = Waiting { member, since: Instant::now(), answer };
        self.queue.try_send(waiting).map_err(|_| AppendError::Unavailable)?;
        outcome.await.map_err(|_| AppendError::Unavailable)?
    }
}

async fn run(pool: PgPool, waker: Waker, mut queue: mpsc::Receiver<Waiting>) {
    let mut connection = Kept::of(pool);
    let mut backlog: VecDeque<Waiting> = VecDeque::new();
    loop {
        if backlog.is_empty() {
            tokio::select! {
                waiting = queue.recv() => match waiting {
                    Some(waiting) => backlog.push_back(waiting),
                    None => return,
                },
                () = connection.closing() => return,
            }
        }
        while backlog.len() < MAX_MEMBERS * 2 {
            match queue.try_recv() {
                Ok(waiting) => backlog.push_back(waiting),
                Err(_) => break,
            }
        }
        refuse_stale(&mut backlog);
        let batch = take_disjoint(&mut backlog);
        if !batch.is_empty() {
            write(&mut connection, &waker, batch).await;
        }
    }
}

/// Answers those who waited too long: behind a call that waited for a lock in vain, others would
/// each wait as long again.
fn refuse_stale(backlog: &mut VecDeque<Waiting>) {
    while backlog.front().is_some_and(|waiting| waiting.since.elapsed() > PATIENCE) {
        if let Some(waiting) = backlog.pop_front() {
            let _ = waiting.answer.send(Err(AppendError::Unavailable));
        }
    }
}

/// The longest run of members that share no key, in order of arrival. A member that waits for an
/// earlier one also holds back later ones of the same keys.
fn take_disjoint(backlog: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let mut taken = Vec::new();
    let mut kept = VecDeque::new();
    let mut keys: HashSet<Key> = HashSet::new();
    let mut subjects = Subjects::default();
    let mut bytes = 0;
    while let Some(waiting) = backlog.pop_front() {
        let own = keys_of(&waiting.member);
        let size = waiting.member.size();
        let full = taken.len() == MAX_MEMBERS || (bytes + size > MAX_BYTES && !taken.is_empty());
        let own_subjects = Subjects::of(&waiting.member);
        let free = own.iter().all(|key| !keys.contains(key)) && subjects.allow(&own_subjects);
        keys.extend(own);
        subjects.extend(own_subjects);
        if full || !free {
            kept.push_back(waiting);
        } else {
            bytes += size;
            taken.push(waiting);
        }
    }
    *backlog = kept;
    taken
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Stream(aggregates::StreamId),
    Receipt(uuid::Uuid, &'static str, Vec<u8>),
    Reservation(&'static str, Vec<u8>),
}

fn keys_of(member: &SealedMember) -> Vec<Key> {
    let streams = member.streams.iter().map(|stream| Key::Stream(stream.stream.clone()));
    let receipts = member
        .receipts
        .iter()
        .map(|receipt| Key::Receipt(receipt.user.0, receipt.scope, receipt.hmac.clone()));
    let reservations =
        member.reservations.iter().map(|held| Key::Reservation(held.scope, held.hmac.clone()));
    streams.chain(receipts).chain(reservations).collect()
}

/// Whose keys and privacy rules members change, and whose they rely on. A member that changes a
/// person's goes alone among that person's members: the call checks them before it changes any.
#[derive(Default)]
struct Subjects {
    changed: HashSet<uuid::Uuid>,
    /// Those changed among them.
    used: HashSet<uuid::Uuid>,
}

impl Subjects {
    fn of(member: &SealedMember) -> Self {
        let changed: HashSet<_> =
            member.subject_changes.iter().map(|change| change.user.0).collect();
        let sealed = member.keys.iter().map(|key| key.user);
        let streams = member.streams.iter().map(|stream| stream.user);
        let guarded = member.privacy.iter().map(|guard| guard.user.0);
        let used = sealed.chain(streams).chain(guarded).chain(changed.iter().copied()).collect();
        Self { changed, used }
    }

    /// Whether a member may share a call with these.
    fn allow(&self, member: &Self) -> bool {
        self.changed.is_disjoint(&member.used) && self.used.is_disjoint(&member.changed)
    }

    fn extend(&mut self, member: Self) {
        self.changed.extend(member.changed);
        self.used.extend(member.used);
    }
}

/// Writes one batch and answers its members.
async fn write(connection: &mut Kept, waker: &Waker, batch: Vec<Waiting>) {
    let oldest = batch.iter().map(|waiting| waiting.since).min();
    let members: Vec<&SealedMember> = batch.iter().map(|waiting| &waiting.member).collect();
    metrics::histogram!(crate::metrics::APPEND_GROUP_SIZE).record(count(members.len()));
    let started = Instant::now();
    let call = async |connection: &mut PgConnection| append::call(connection, &members, None).await;
    let outcomes = connection.run(call).await;
    metrics::histogram!(crate::metrics::APPEND_SECONDS, "lane" => "fast")
        .record(started.elapsed().as_secs_f64());
    if let Some(oldest) = oldest {
        metrics::histogram!(crate::metrics::APPEND_QUEUE_SECONDS)
            .record((started - oldest).as_secs_f64());
    }
    match outcomes {
        Ok(outcomes) => {
            if let Some(position) = outcomes.iter().filter_map(last_position).max() {
                metrics::gauge!(crate::metrics::LOG_POSITION).set(position as f64);
                waker.wake();
            }
            for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                // The caller may have gone; the events are durable all the same.
                let _ = waiting.answer.send(Ok(outcome));
            }
        }
        Err(error) if batch.len() > 1 && is_refusal(&error) => {
            // One of them is malformed: find it without failing its neighbours.
            tracing::error!(members = batch.len(), error = %error, "append refused; retrying one by one");
            for waiting in batch {
                Box::pin(write(connection, waker, vec![waiting])).await;
            }
        }
        Err(cause) => {
            tracing::error!(cause = %cause, members = batch.len(), "append failed");
            let error = classify(cause);
            for waiting in batch {
                let _ = waiting.answer.send(Err(error.clone()));
            }
            // A database that is down answers at once; do not spin on it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn last_position(outcome: &Outcome) -> Option<i64> {
    match outcome {
        Outcome::Appended { last, .. } if *last > 0 => Some(*last),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of members, at most a few hundred")]
fn count(n: usize) -> f64 {
    n as f64
}

/// Whether the database answered and said no, in contrast to not being there.
fn is_refusal(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(database) if !is_passing(database.code().as_deref()))
}

/// Classes of SQLSTATE that pass by themselves: connection, resources, operator intervention,
/// rollbacks, lock timeouts, and invalid states such as those of a standby.
fn is_passing(code: Option<&str>) -> bool {
    code.is_some_and(|code| {
        ["08", "25", "53", "57", "40", "55"].iter().any(|class| code.starts_with(class))
    })
}

/// The caller's view of a database error.
pub(crate) fn classify(error: sqlx::Error) -> AppendError {
    match &error {
        sqlx::Error::Database(database) if !is_passing(database.code().as_deref()) => {
            AppendError::Internal(Arc::new(error))
        }
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            AppendError::Internal(Arc::new(error))
        }
        _ => AppendError::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use aggregates::{Purpose, UserId};
    use uuid::Uuid;

    use super::*;
    use crate::store::append::RequiredKey;
    use crate::store::member::{SubjectChange, SubjectChangeKind};

    fn sealed_for(user: u128) -> SealedMember {
        let key =
            RequiredKey { user: Uuid::from_u128(user), purpose: "activity", key_id: Uuid::nil() };
        SealedMember { keys: vec![key], ..SealedMember::default() }
    }

    fn destroys(user: u128) -> SealedMember {
        let change = SubjectChange {
            user: UserId(Uuid::from_u128(user)),
            purpose: Purpose::Activity,
            kind: SubjectChangeKind::Destroyed,
        };
        SealedMember { subject_changes: vec![change], ..SealedMember::default() }
    }

    /// How many members each call takes.
    fn calls(members: Vec<SealedMember>) -> Vec<usize> {
        let mut backlog: VecDeque<Waiting> = members
            .into_iter()
            .map(|member| {
                let (answer, _) = oneshot::channel();
                Waiting { member, since: Instant::now(), answer }
            })
            .collect();
        let mut calls = Vec::new();
        while !backlog.is_empty() {
            calls.push(take_disjoint(&mut backlog).len());
        }
        calls
    }

    #[test]
    fn who_changes_a_persons_keys_shares_no_call_with_who_uses_them() {
        assert_eq!(calls(vec![sealed_for(1), sealed_for(1), sealed_for(2)]), [3]);
        assert_eq!(calls(vec![sealed_for(1), destroys(1), sealed_for(2)]), [2, 1]);
        assert_eq!(calls(vec![destroys(1), sealed_for(1), sealed_for(2)]), [2, 1]);
        assert_eq!(calls(vec![destroys(1), destroys(1), destroys(2)]), [2, 1]);
        // Who comes after one that waits for its turn waits for it too.
        assert_eq!(calls(vec![sealed_for(1), destroys(1), sealed_for(1)]), [1, 1, 1]);
    }
}
