//! Opening sealed content for somebody who is not its owner: recorded first, shown after.

use std::collections::BTreeMap;

use aggregates::access::{self, Access, AccessCommand, AccessError, Revealed};
use aggregates::{Actor, Content, Metadata, Recorded, StreamId, UserId, registry};

use super::load::handle;
use super::observe::{ended, observed};
use super::{ATTEMPTS, CommandError, events_of};
use crate::ids;
use crate::keys::KeyStatus;
use crate::store::{Member, Op, Outcome, RawEvent, ReadError, Store, StreamChange};

/// Who wants to see sealed content, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Such as `ada@desk`.
    pub by: String,
    /// Such as `cli`.
    pub channel: &'static str,
    pub reason: String,
}

/// What the events to open are to each other, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Events from anywhere in the log.
    Events,
    /// Events of one stream.
    Stream,
}

/// Whether an event's content can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readability {
    /// It was never personal.
    Clear,
    /// With the person's key.
    Sealed,
    /// It was sealed and has been opened for the reader.
    Open,
    /// Its key was destroyed.
    Shredded,
}

/// Whether an event can be read, without reading it.
///
/// # Errors
/// Where the database does not answer.
pub async fn readability(store: &Store, event: &RawEvent) -> Result<Readability, ReadError> {
    if event.sealed.is_none() {
        return Ok(Readability::Clear);
    }
    let purpose = registry::find(&event.event_type).and_then(|entry| entry.purpose);
    let subject = store.subjects().of(event.user).await?;
    let key = purpose.and_then(|purpose| subject.key(purpose));
    Ok(match key {
        Some(key) if key.status == KeyStatus::Destroyed => Readability::Shredded,
        _ => Readability::Sealed,
    })
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum RevealError {
    #[error(transparent)]
    Refused(#[from] AccessError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<ReadError> for RevealError {
    fn from(error: ReadError) -> Self {
        Self::Command(error.into())
    }
}

/// Opens stored events for a reader, after an `access.revealed` event for each person whose sealed
/// content is among them is durable: all of them, or nothing is opened.
///
/// Events of a person whose identity is erased come back as shredded, whatever keys are left:
/// there is nobody any more to whom the access could be accounted for.
///
/// # Errors
/// [`RevealError::Refused`] without a proper reason, else where a database does not answer.
pub async fn reveal(
    store: &Store,
    events: Vec<RawEvent>,
    scope: Scope,
    reader: &Reader,
) -> Result<Vec<Recorded>, RevealError> {
    let mut erased = BTreeMap::new();
    for event in events.iter().filter(|event| event.sealed.is_some()) {
        if let std::collections::btree_map::Entry::Vacant(entry) = erased.entry(event.user) {
            entry.insert(store.subjects().fresh(event.user).await?.is_erased());
        }
    }
    let handling = record(store, &events, scope, reader, &erased);
    observed(access::TYPE, "reveal", handling, ended).await?;
    let mut opened = Vec::with_capacity(events.len());
    for event in events {
        opened.push(match erased.get(&event.user) {
            Some(true) if event.sealed.is_some() => withheld(event),
            _ => store.sealer().open(event).await?,
        });
    }
    Ok(opened)
}

async fn record(
    store: &Store,
    events: &[RawEvent],
    scope: Scope,
    reader: &Reader,
    erased: &BTreeMap<UserId, bool>,
) -> Result<(), RevealError> {
    let mut read: BTreeMap<UserId, Vec<&RawEvent>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.sealed.is_some()) {
        if erased.get(&event.user) == Some(&false) {
            read.entry(event.user).or_default().push(event);
        }
    }
    let metadata = Metadata {
        actor: Actor::Staff { subject: reader.by.clone() },
        ..Metadata::owner(ids::new_id())
    };
    let mut member = Member::default();
    for (user, events) in read {
        for chunk in events.chunks(access::MAX_POSITIONS) {
            member.streams.push(change(user, what(chunk, scope), reader, &metadata).await?);
        }
    }
    if member.streams.is_empty() {
        return Ok(());
    }
    for _ in 0..ATTEMPTS {
        match store.append(member.clone()).await.map_err(CommandError::from)? {
            Outcome::Appended { .. } => return Ok(()),
            // A key was destroyed meanwhile: what it sealed is not to be seen any more.
            Outcome::Refused => return Err(CommandError::NotFound.into()),
            Outcome::Conflict | Outcome::Duplicate | Outcome::Reserved => {}
        }
    }
    Err(CommandError::Busy.into())
}

/// What a record says was read.
fn what(events: &[&RawEvent], scope: Scope) -> Revealed {
    match (scope, events) {
        (Scope::Stream, [.., last]) => Revealed::Stream {
            aggregate_type: last.stream.aggregate_type.clone(),
            aggregate_id: last.stream.aggregate_id.clone(),
            upto: last.sequence,
        },
        _ => Revealed::Positions { positions: events.iter().map(|event| event.position).collect() },
    }
}

async fn change(
    user: UserId,
    what: Revealed,
    reader: &Reader,
    metadata: &Metadata,
) -> Result<StreamChange, RevealError> {
    Ok(StreamChange {
        stream: StreamId::new(access::TYPE, ids::new_id()),
        user,
        expected: 0,
        events: events_of(decide(reader, what).await?, metadata),
        op: Op::Create,
        origin: None,
        state: None,
    })
}

async fn decide(reader: &Reader, what: Revealed) -> Result<Vec<access::AccessEvent>, RevealError> {
    let command = AccessCommand::Reveal {
        by: reader.by.clone(),
        channel: reader.channel.to_owned(),
        reason: reader.reason.clone(),
        what,
    };
    Ok(handle(&mut Access::default(), command, &()).await?)
}

fn withheld(event: RawEvent) -> Recorded {
    Recorded {
        position: event.position,
        committed_ms: event.committed_ms,
        event_id: event.event_id,
        stream: event.stream,
        sequence: event.sequence,
        user: event.user,
        event_type: event.event_type,
        recorded_at_ms: event.recorded_at_ms,
        content: Content::Shredded,
    }
}
