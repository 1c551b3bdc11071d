//! The log against itself, from its stored bytes alone: no key is needed.
//!
//! Two passes over a fixed head, both by pages, both in constant memory. Events in the order of
//! positions: dense positions, times that never decrease, leaf hashes, known types. Events in the
//! order of streams: dense sequences that rise with positions, one owner, and a stream head that
//! agrees with the last event. Appends may go on meanwhile; they lie beyond the head.
//!
//! A leaf covers all columns of its event but the position, which is its place in the tree, and
//! `committed_ms`, which is given under the head lock. A changed time is found where it breaks the
//! order of times or is that of a stream's last event.

use std::pin::pin;

use aggregates::{Purpose, StreamId, UserId, registry};
use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::Faults;
use crate::sealing::LeafInput;
use crate::store::page::{Leaves, RawPage};
use crate::store::read;
use crate::store::scan::computed;
use crate::store::{EventRow, Filter, Head, ReadError, Store};

/// Rows of the second pass are small.
const STREAM_PAGE: i64 = 10_000;

/// Events in the order of their streams, each with its stream's head. What was erased is asked for
/// only where a head is missing.
pub(crate) const BY_STREAM: &str = "SELECT e.aggregate_type, e.aggregate_id, e.sequence, \
     e.position, e.user_id, e.event_type, e.committed_ms, s.sequence, s.position, s.user_id, \
     s.committed_ms, \
     CASE WHEN s.position IS NULL THEN ARRAY(SELECT j.purpose FROM subjects j \
          WHERE j.user_id = e.user_id AND j.status > 1) ELSE '{}' END \
     FROM events e LEFT JOIN streams s \
       ON s.aggregate_type = e.aggregate_type AND s.aggregate_id = e.aggregate_id \
     WHERE (e.aggregate_type, e.aggregate_id, e.sequence) > ($1, $2, $3) AND e.position <= $4 \
     ORDER BY e.aggregate_type, e.aggregate_id, e.sequence LIMIT $5";

/// What a check of the log found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Positions checked, both included; none where `from` lies beyond the head.
    pub from: i64,
    pub to: i64,
    pub events: u64,
    pub streams: u64,
    #[serde(flatten)]
    pub faults: Faults,
}

/// Checks the log from a position (1 for all of it) to where it stands now. `progress` hears how
/// many events are done, of two for each event of the log, once in each pass.
///
/// # Errors
/// Where the database does not answer. What is wrong with the log is no error but the answer.
pub async fn verify_log(
    store: &Store,
    from: i64,
    keep: usize,
    mut progress: impl FnMut(u64),
) -> Result<LogReport, ReadError> {
    let head = store.head().await?;
    let from = from.max(1);
    let before = match from {
        1 => i64::MIN,
        _ => committed_at(store, from - 1).await?.unwrap_or(i64::MIN),
    };
    let mut order = OrderCheck::starting(from, before, keep);
    let look_at_all = |_, page: RawPage| async {
        computed(move || page.rows().map(|row| Ok(look(&row?))).collect::<Result<Vec<_>, _>>())
            .await
    };
    let mut pages = pin!(store.scan_raw(from - 1, head.position, Leaves::With, look_at_all));
    while let Some(events) = pages.try_next().await? {
        progress(events.len() as u64);
        for event in events {
            order.event(event);
        }
    }
    let (events, mut faults) = order.finish(&head);

    let mut streams = StreamCheck::new(&head, std::mem::take(&mut faults));
    let mut key = (String::new(), String::new(), 0_i64);
    loop {
        let rows = sqlx::query(BY_STREAM)
            .bind(&key.0)
            .bind(&key.1)
            .bind(key.2)
            .bind(head.position)
            .bind(STREAM_PAGE)
            .fetch_all(store.pool())
            .await?;
        let steps = rows.iter().map(Step::from_row).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = steps.last() else { break };
        let StreamId { aggregate_type, aggregate_id } = last.stream.clone();
        key = (aggregate_type, aggregate_id, last.sequence);
        progress(steps.len() as u64);
        for step in steps {
            streams.step(step);
        }
    }
    let (streams, faults) = streams.finish();
    Ok(LogReport { from, to: head.position, events, streams, faults })
}

async fn committed_at(store: &Store, position: i64) -> Result<Option<i64>, ReadError> {
    let all = Filter::default();
    let found = read::raw_page(store.pool(), position - 1, position, 1, &all).await?;
    Ok(found.first().map(|event| event.committed_ms))
}

/// What one event shows by itself.
#[derive(Clone, Debug)]
struct Seen {
    position: i64,
    committed_ms: i64,
    /// Whether its bytes give its leaf hash.
    sound: bool,
    /// What the registry has against it.
    strange: Option<String>,
}

fn look(event: &EventRow<'_>) -> Seen {
    Seen {
        position: event.position,
        committed_ms: event.committed_ms,
        sound: leaf(event) == event.leaf,
        strange: strange(event),
    }
}

/// The first pass.
struct OrderCheck {
    next: i64,
    last_ms: i64,
    events: u64,
    faults: Faults,
}

impl OrderCheck {
    fn starting(from: i64, last_ms: i64, keep: usize) -> Self {
        Self { next: from, last_ms, events: 0, faults: Faults::keeping(keep) }
    }

    fn event(&mut self, event: Seen) {
        let at = event.position;
        if at != self.next {
            let detail = format!("positions {} to {} are missing", self.next, at - 1);
            self.faults.add(self.next, "gap", detail);
        }
        if event.committed_ms < self.last_ms {
            let detail = format!("it was committed before the event ahead of it, at {}", at - 1);
            self.faults.add(at, "time", detail);
        }
        if !event.sound {
            self.faults.add(at, "leaf", "its bytes do not give its leaf hash");
        }
        if let Some(detail) = event.strange {
            self.faults.add(at, "type", detail);
        }
        self.next = at + 1;
        self.last_ms = event.committed_ms;
        self.events += 1;
    }

    fn finish(mut self, head: &Head) -> (u64, Faults) {
        if self.next <= head.position {
            let detail = format!("positions {} to {} are missing", self.next, head.position);
            self.faults.add(self.next, "gap", detail);
        } else if self.events > 0 && self.last_ms != head.committed_ms {
            let detail = "the head's time is not that of the last event";
            self.faults.add(head.position, "head", detail);
        }
        (self.events, self.faults)
    }
}

fn leaf(event: &EventRow<'_>) -> [u8; 32] {
    LeafInput {
        event_id: event.event_id,
        aggregate_type: event.aggregate_type,
        aggregate_id: event.aggregate_id,
        sequence: event.sequence,
        event_type: event.event_type,
        event_version: event.event_version,
        user: event.user,
        recorded_at_ms: event.recorded_at_ms,
        payload: event.payload,
        metadata: event.metadata,
        sealed: event.sealed.unwrap_or_default(),
    }
    .hash()
}

/// What the registry has against an event.
fn strange(event: &EventRow<'_>) -> Option<String> {
    let name = event.event_type;
    let Some(entry) = registry::find(name) else {
        return Some(format!("{name} is not a known event type"));
    };
    if entry.aggregate != event.aggregate_type {
        let aggregate = event.aggregate_type;
        return Some(format!("{name} does not belong in a stream of {aggregate}"));
    }
    match event.event_version.parse::<u32>() {
        Ok(version) if (1..=entry.version).contains(&version) => {}
        _ => return Some(format!("{name} has no version {}", event.event_version)),
    }
    match (entry.purpose, event.sealed) {
        (Some(_), None) => Some(format!("{name} is personal and not sealed")),
        (None, Some(_)) => Some(format!("{name} is not personal and yet sealed")),
        _ => None,
    }
}

/// One event of the second pass, with the head of its stream.
#[derive(Clone, Debug)]
struct Step {
    stream: StreamId,
    sequence: i64,
    position: i64,
    user: UserId,
    event_type: String,
    committed_ms: i64,
    head: Option<StepHead>,
    /// Purposes of the owner whose keys are destroyed; only where there is no head.
    erased: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct StepHead {
    sequence: i64,
    position: i64,
    user: UserId,
    committed_ms: i64,
}

impl Step {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let sequence: Option<i64> = row.try_get(7)?;
        let head = match sequence {
            Some(sequence) => Some(StepHead {
                sequence,
                position: row.try_get(8)?,
                user: UserId(row.try_get(9)?),
                committed_ms: row.try_get(10)?,
            }),
            None => None,
        };
        Ok(Self {
            stream: StreamId { aggregate_type: row.try_get(0)?, aggregate_id: row.try_get(1)? },
            sequence: row.try_get(2)?,
            position: row.try_get(3)?,
            user: UserId(row.try_get(4)?),
            event_type: row.try_get(5)?,
            committed_ms: row.try_get(6)?,
            head,
            erased: row.try_get(11)?,
        })
    }

    /// Whether the stream's head was removed because its owner's key is destroyed.
    fn is_erased(&self) -> bool {
        registry::find(&self.event_type)
            .and_then(|entry| entry.purpose)
            .map(Purpose::as_str)
            .is_some_and(|purpose| self.erased.iter().any(|erased| erased == purpose))
    }
}

/// The second pass.
struct StreamCheck {
    log_head: i64,
    last: Option<Step>,
    streams: u64,
    faults: Faults,
}

impl StreamCheck {
    fn new(head: &Head, faults: Faults) -> Self {
        Self { log_head: head.position, last: None, streams: 0, faults }
    }

    fn step(&mut self, step: Step) {
        match self.last.take() {
            Some(last) if last.stream == step.stream => self.next_in_stream(&last, &step),
            last => {
                if let Some(last) = last {
                    self.end_of_stream(&last);
                }
                self.streams += 1;
                if step.sequence != 1 {
                    let detail = format!(
                        "a stream of {} begins at {}",
                        step.stream.aggregate_type, step.sequence
                    );
                    self.faults.add(step.position, "sequence", detail);
                }
            }
        }
        self.last = Some(step);
    }

    fn next_in_stream(&mut self, last: &Step, step: &Step) {
        if step.sequence != last.sequence + 1 {
            let detail = format!("sequence {} follows {}", step.sequence, last.sequence);
            self.faults.add(step.position, "sequence", detail);
        }
        if step.position <= last.position {
            let detail = "it lies in the log before the event ahead of it in its stream";
            self.faults.add(step.position, "order", detail);
        }
        if step.user != last.user {
            self.faults.add(step.position, "owner", "its stream belongs to somebody else");
        }
    }

    fn end_of_stream(&mut self, last: &Step) {
        let at = last.position;
        match last.head {
            None if last.is_erased() => {}
            None => self.faults.add(at, "stream_head", "its stream has no head"),
            Some(head) if head.user != last.user => {
                self.faults.add(at, "stream_head", "the head of its stream has another owner");
            }
            // The stream has moved on since the head of the log was read.
            Some(head) if head.position > self.log_head && head.sequence > last.sequence => {}
            Some(head) if (head.sequence, head.position) != (last.sequence, last.position) => {
                let detail = format!(
                    "its stream ends at {} here and at {} (position {}) in its head",
                    last.sequence, head.sequence, head.position
                );
                self.faults.add(at, "stream_head", detail);
            }
            Some(head) if head.committed_ms != last.committed_ms => {
                self.faults.add(at, "time", "the head of its stream has another time");
            }
            Some(_) => {}
        }
    }

    fn finish(mut self) -> (u64, Faults) {
        if let Some(last) = self.last.take() {
            self.end_of_stream(&last);
        }
        (self.streams, self.faults)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::RawEvent;

    fn event(position: i64) -> RawEvent {
        let mut event = RawEvent {
            position,
            committed_ms: 1_000 + position,
            event_id: Uuid::from_u128(9),
            stream: StreamId::new("subject", "s"),
            sequence: 1,
            user: UserId(Uuid::from_u128(3)),
            event_type: "subject.key_created".to_owned(),
            event_version: "1".to_owned(),
            recorded_at_ms: 5,
            payload: "{}".to_owned(),
            metadata: "{}".to_owned(),
            sealed: None,
            leaf: Vec::new(),
        };
        event.leaf = leaf(&event.row()).to_vec();
        event
    }

    fn head(position: i64) -> Head {
        let log_id = Uuid::from_u128(1);
        Head { log_id, storage_format: 1, epoch: 1, position, committed_ms: 1_000 + position }
    }

    fn kinds(faults: &Faults) -> Vec<(Option<i64>, &'static str)> {
        faults.first.iter().map(|fault| (fault.position, fault.kind)).collect()
    }

    fn first_pass(events: &[RawEvent], upto: i64) -> Vec<(Option<i64>, &'static str)> {
        let mut check = OrderCheck::starting(1, i64::MIN, 10);
        events.iter().for_each(|event| check.event(look(&event.row())));
        kinds(&check.finish(&head(upto)).1)
    }

    #[test]
    fn a_sound_log_has_no_faults() {
        assert_eq!(first_pass(&[event(1), event(2), event(3)], 3), []);
        assert_eq!(first_pass(&[], 0), []);
    }

    #[test]
    fn holes_are_found_inside_and_at_the_end() {
        assert_eq!(first_pass(&[event(1), event(4)], 4), [(Some(2), "gap")]);
        assert_eq!(first_pass(&[event(1)], 2), [(Some(2), "gap")]);
        assert_eq!(first_pass(&[], 2), [(Some(1), "gap")]);
    }

    #[test]
    fn changed_bytes_and_times_are_found() {
        let mut changed = event(2);
        changed.metadata = "{ }".to_owned();
        let mut early = event(3);
        early.committed_ms = 1_001;
        let found = first_pass(&[event(1), changed, early], 3);
        assert_eq!(found, [(Some(2), "leaf"), (Some(3), "time"), (Some(3), "head")]);
    }

    #[test]
    fn what_the_registry_does_not_know_is_found() {
        let with = |change: fn(&mut RawEvent)| {
            let mut event = event(1);
            change(&mut event);
            event.leaf = leaf(&event.row()).to_vec();
            first_pass(&[event], 1)
        };
        let strange = [(Some(1), "type")];
        assert_eq!(with(|e| e.event_type = "no.such".to_owned()), strange);
        assert_eq!(with(|e| e.event_version = "2".to_owned()), strange);
        assert_eq!(with(|e| e.stream.aggregate_type = "user".to_owned()), strange);
        assert_eq!(with(|e| e.sealed = Some(vec![1])), strange);
        let plain = with(|e| {
            e.event_type = "session.started".to_owned();
            e.stream.aggregate_type = "session".to_owned();
        });
        assert_eq!(plain, strange);
    }

    fn step(id: &str, sequence: i64, position: i64) -> Step {
        let user = UserId(Uuid::from_u128(3));
        Step {
            stream: StreamId::new("session", id),
            sequence,
            position,
            user,
            event_type: "session.started".to_owned(),
            committed_ms: 7,
            head: Some(StepHead { sequence: 2, position: 5, user, committed_ms: 7 }),
            erased: Vec::new(),
        }
    }

    fn second_pass(steps: Vec<Step>) -> Vec<(Option<i64>, &'static str)> {
        let mut check = StreamCheck::new(&head(9), Faults::keeping(10));
        steps.into_iter().for_each(|step| check.step(step));
        kinds(&check.finish().1)
    }

    #[test]
    fn streams_are_dense_and_rise() {
        assert_eq!(second_pass(vec![step("a", 1, 3), step("a", 2, 5)]), []);
        assert_eq!(second_pass(vec![step("a", 2, 5)]), [(Some(5), "sequence")]);
        let out_of_order = vec![step("a", 1, 6), step("a", 2, 5)];
        assert_eq!(second_pass(out_of_order), [(Some(5), "order")]);
        let mut foreign = step("a", 2, 5);
        foreign.user = UserId::SYSTEM;
        let found = second_pass(vec![step("a", 1, 3), foreign]);
        assert_eq!(found, [(Some(5), "owner"), (Some(5), "stream_head")]);
    }

    #[test]
    fn heads_agree_with_the_last_event() {
        let heads = [(Some(3), "stream_head"), (Some(4), "stream_head")];
        assert_eq!(second_pass(vec![step("a", 1, 3), step("b", 1, 4)]), heads);
        let mut ahead = step("a", 1, 3);
        ahead.head = ahead.head.map(|head| StepHead { position: 10, ..head });
        assert_eq!(second_pass(vec![ahead]), [], "moved on after the check began");
        let mut late = step("a", 2, 5);
        late.committed_ms = 8;
        assert_eq!(second_pass(vec![step("a", 1, 3), late]), [(Some(5), "time")]);
        let mut erased = step("a", 1, 3);
        erased.head = None;
        assert_eq!(second_pass(vec![erased.clone()]), [(Some(3), "stream_head")]);
        erased.erased = vec!["activity".to_owned()];
        assert_eq!(second_pass(vec![erased]), []);
    }

    #[test]
    fn all_faults_are_counted_and_the_first_are_kept() {
        let mut faults = Faults::keeping(2);
        (1..=5).for_each(|position| faults.add(position, "gap", "x"));
        assert_eq!((faults.count, faults.first.len()), (5, 2));
    }
}
