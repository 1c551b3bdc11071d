//! Sealing: from what the domain says to what the table holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregates::{Purpose, StreamId, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::append::{Class, RequiredKey, SealedEvent, SealedMember, SealedStream};
use super::member::{
    AppendError, Member, NewEvent, StreamChange, SubjectChange, SubjectChangeKind,
};
use super::read::ReadError;
use super::subjects::Subjects;
use crate::keys::{KeyError, KeyStatus, Keyring, SubjectKey, SubjectKeyRef};
use crate::sealing::{Aad, EventContent, EventContext, LeafInput};

/// One event's payload may hold this much; a longer one is a mistake or an attack.
const MAX_PAYLOAD: usize = 1 << 20;

/// So many events at once are worth the way to other threads.
const MANY: usize = 128;

/// An event with its sequence and the key that seals it.
type Ready = (i64, NewEvent, Option<Arc<SubjectKey>>);

/// What stays readable of a personal event's payload: which key seals it.
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) v: u8,
    pub(super) k: Uuid,
}

/// Seals and opens for one log.
#[derive(Clone)]
pub struct Sealer {
    pub(crate) log_id: Uuid,
    pub(crate) keyring: Keyring,
    pub(crate) subjects: Subjects,
}

impl Sealer {
    /// Where keys come from.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The person's key for a purpose, for hashes and segments.
    ///
    /// # Errors
    /// [`ReadError::Key`] where it is destroyed, missing or damaged.
    pub async fn key(&self, user: UserId, purpose: Purpose) -> Result<Arc<SubjectKey>, ReadError> {
        let subject = self.subjects.of(user).await?;
        let key = subject.key(purpose).ok_or(KeyError::Missing { key_id: Uuid::nil() })?;
        Ok(self.keyring.fetch(&key).await?)
    }

    /// Seals a member and puts its streams in the order in which they are locked.
    pub(crate) async fn seal(&self, mut member: Member) -> Result<SealedMember, AppendError> {
        member.streams.sort_by(|a, b| a.stream.cmp(&b.stream));
        let mut keys = WritingKeys::new(self, &member.subject_changes);
        let mut streams = Vec::with_capacity(member.streams.len());
        for change in member.streams {
            streams.push(self.seal_stream(change, &mut keys).await?);
        }
        let keys = keys.required();
        Ok(SealedMember {
            streams,
            receipts: member.receipts,
            reservations: member.reservations,
            subject_changes: member.subject_changes,
            keys,
            privacy: member.privacy,
        })
    }

    async fn seal_stream(
        &self,
        change: StreamChange,
        keys: &mut WritingKeys<'_>,
    ) -> Result<SealedStream, AppendError> {
        let StreamChange { stream, user, expected, events, op, origin, state } = change;
        let mut ready = Vec::with_capacity(events.len());
        let mut sequence = expected;
        for event in events {
            sequence += 1;
            let key = match event.event.descriptor().purpose {
                Some(purpose) => Some(keys.get(user, purpose).await?),
                None => None,
            };
            ready.push((sequence, event, key));
        }
        let sealed = match ready.len() < MANY {
            true => self.seal_events(&stream, user, ready)?,
            false => self.seal_many(&stream, user, ready).await?,
        };
        let (state_version, state) = match state {
            Some(state) => {
                let key = keys.get(user, state.purpose).await?;
                let aad = Aad::state(&stream, sequence);
                let bytes = key.sealing().seal(&aad, &state.json).map_err(Arc::new)?;
                (state.version, Some(bytes))
            }
            None => (0, None),
        };
        Ok(SealedStream {
            stream,
            user: user.0,
            expected,
            events: sealed,
            op,
            origin,
            state_version,
            state,
        })
    }

    fn seal_events(
        &self,
        stream: &StreamId,
        user: UserId,
        events: Vec<Ready>,
    ) -> Result<Vec<SealedEvent>, AppendError> {
        let sealed = events.into_iter().map(|(sequence, event, key)| {
            self.seal_event(stream, user, sequence, event, key.as_deref())
        });
        sealed.collect()
    }

    /// The same on every core, while this one goes on with other people's requests.
    async fn seal_many(
        &self,
        stream: &StreamId,
        user: UserId,
        mut events: Vec<Ready>,
    ) -> Result<Vec<SealedEvent>, AppendError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = events.len().div_ceil(cores).max(MANY / 2);
        let mut sealed = Vec::with_capacity(events.len());
        let mut shares = Vec::new();
        while !events.is_empty() {
            let rest = events.split_off(share.min(events.len()));
            let share = std::mem::replace(&mut events, rest);
            let (sealer, stream) = (self.clone(), stream.clone());
            let work = move || sealer.seal_events(&stream, user, share);
            shares.push(tokio::task::spawn_blocking(work));
        }
        for share in shares {
            sealed.extend(share.await.map_err(|_| AppendError::Unavailable)??);
        }
        Ok(sealed)
    }

    fn seal_event(
        &self,
        stream: &StreamId,
        user: UserId,
        sequence: i64,
        event: NewEvent,
        key: Option<&SubjectKey>,
    ) -> Result<SealedEvent, AppendError> {
        let NewEvent { event_id, event, metadata, recorded_at_ms } = event;
        let descriptor = event.descriptor();
        let encoded = event.encode();
        if encoded.payload.len() + encoded.blob.len() > MAX_PAYLOAD {
            return Err(AppendError::TooLarge("an event may hold at most 1 MiB"));
        }
        let version = descriptor.version.to_string();
        let (payload, sealed, metadata) = match key {
            Some(key) => {
                let (clear, personal) = metadata.split();
                let content = EventContent {
                    payload: encoded.payload,
                    metadata: personal,
                    blob: encoded.blob,
                };
                let aad = Aad::event(&EventContext {
                    log_id: self.log_id,
                    event_id,
                    stream,
                    sequence,
                    event_type: descriptor.name,
                    event_version: &version,
                    user,
                    purpose: key.purpose(),
                    key_id: key.key_id(),
                });
                let sealed = key.sealing().seal(&aad, &content.to_bytes()).map_err(Arc::new)?;
                let payload = aggregates::event::to_payload(&Envelope { v: 1, k: key.key_id() });
                (payload, Some(sealed), clear)
            }
            None => (encoded.payload, None, metadata.whole()),
        };
        let leaf = LeafInput {
            event_id,
            aggregate_type: &stream.aggregate_type,
            aggregate_id: &stream.aggregate_id,
            sequence,
            event_type: descriptor.name,
            event_version: &version,
            user,
            recorded_at_ms,
            payload: &payload,
            metadata: &metadata,
            sealed: sealed.as_deref().unwrap_or_default(),
        }
        .hash();
        Ok(SealedEvent {
            event_id,
            event_type: descriptor.name,
            event_version: descriptor.version,
            recorded_at_ms,
            payload,
            metadata,
            sealed,
            leaf,
            class: Class::of(&stream.aggregate_type),
        })
    }
}

/// The keys one member is sealed with, and thereby depends on.
struct WritingKeys<'a> {
    sealer: &'a Sealer,
    changes: &'a [SubjectChange],
    used: BTreeMap<(UserId, Purpose), Arc<SubjectKey>>,
}

impl<'a> WritingKeys<'a> {
    fn new(sealer: &'a Sealer, changes: &'a [SubjectChange]) -> Self {
        Self { sealer, changes, used: BTreeMap::new() }
    }

    async fn get(
        &mut self,
        user: UserId,
        purpose: Purpose,
    ) -> Result<Arc<SubjectKey>, AppendError> {
        if let Some(key) = self.used.get(&(user, purpose)) {
            return Ok(Arc::clone(key));
        }
        let key = match self.created(user, purpose) {
            Some(created) => self.sealer.keyring.fetch(&created).await.map_err(ReadError::Key),
            None => self.sealer.key(user, purpose).await,
        };
        let key = key.map_err(|error| match error {
            ReadError::Key(error) => AppendError::Key(Arc::new(error)),
            _ => AppendError::Unavailable,
        })?;
        self.used.insert((user, purpose), Arc::clone(&key));
        Ok(key)
    }

    /// A key that the member itself announces.
    fn created(&self, user: UserId, purpose: Purpose) -> Option<SubjectKeyRef> {
        self.changes.iter().find_map(|change| match change.kind {
            SubjectChangeKind::Created { key_id, commitment }
                if change.user == user && change.purpose == purpose =>
            {
                Some(SubjectKeyRef { key_id, user, purpose, commitment, status: KeyStatus::Active })
            }
            _ => None,
        })
    }

    /// What must still be active when the member is numbered. Keys that the member announces
    /// become active only with it.
    fn required(&self) -> Vec<RequiredKey> {
        self.used
            .iter()
            .filter(|((user, purpose), _)| self.created(*user, *purpose).is_none())
            .map(|((user, purpose), key)| RequiredKey {
                user: user.0,
                purpose: purpose.as_str(),
                key_id: key.key_id(),
            })
            .collect()
    }
}
