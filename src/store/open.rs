//! Opening events: from what the table holds to what the domain says.
//!
//! Events are opened by the page. Keys come first, each once, because that may ask a database;
//! the rest is pure computation and runs on a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::upcast::UpcastError;
use aggregates::{
    AnyEvent, Content, Metadata, Purpose, Recorded, StreamId, UserId, registry, upcast,
};
use uuid::Uuid;

use super::page::{RawPage, RowSeal};
use super::read::{EventRow, RawEvent, ReadError};
use super::seal::{Envelope, Sealer};
use crate::keys::{KeyError, KeyStatus, SubjectKey};
use crate::sealing::{Aad, EventContext, EventParts};

/// An event that is there but does not open.
#[derive(Debug)]
pub struct Unopened {
    pub position: i64,
    pub user: UserId,
    pub aggregate_type: String,
    pub error: ReadError,
}

/// What an event turned out to be.
pub type Opened = Result<Recorded, Unopened>;

/// What the events of a page are sealed with.
pub(crate) struct PageKeys {
    seals: Vec<Seal>,
    /// The place in `seals` for each row.
    of_row: Vec<usize>,
    /// The same for each key.
    of_key: HashMap<(UserId, Uuid), usize>,
}

/// Where in [`PageKeys::seals`] every page has these.
const CLEAR: usize = 0;
const NO_ENVELOPE: usize = 1;

/// What one event is sealed with.
enum Seal {
    /// Nothing: it is not personal.
    None,
    Key(Arc<SubjectKey>),
    /// A key that was destroyed at the person's request.
    Shredded,
    /// A key that is not there, though nobody destroyed it.
    Missing(Uuid),
    /// A key that is not the one the log speaks of.
    Corrupt(Uuid),
    /// Nobody can say what, for this reason.
    Unknown(&'static str),
}

impl Sealer {
    /// Opens a stored event, upcasts it and gives it its type.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] for bytes that do not open or decode, [`ReadError::Newer`] for what
    /// only a newer program can read, [`ReadError::Key`] for keys that are missing though nobody
    /// destroyed them.
    pub async fn open(&self, raw: RawEvent) -> Result<Recorded, ReadError> {
        let row = raw.row();
        let keys = self.page_keys(std::iter::once(Ok(row.seal()))).await?;
        let seal = keys.seals().next().unwrap_or(&Seal::None);
        Opener::new(self.log_id).open(&row, seal)
    }

    /// Opens events in the order they come in, each to what it says or why it does not open.
    ///
    /// # Errors
    /// Where the databases that know about keys do not answer.
    pub async fn open_each(&self, raw: &[RawEvent]) -> Result<Vec<Opened>, ReadError> {
        let keys = self.page_keys(raw.iter().map(|event| Ok(event.row().seal()))).await?;
        let mut opener = Opener::new(self.log_id);
        let rows = raw.iter().map(RawEvent::row).zip(keys.seals());
        Ok(rows.map(|(row, seal)| opener.each(&row, seal)).collect())
    }

    /// The keys of a page: one look-up for each that occurs.
    ///
    /// # Errors
    /// As [`open_each`](Self::open_each).
    pub(crate) async fn page_keys<'a>(
        &self,
        rows: impl Iterator<Item = Result<RowSeal<'a>, ReadError>> + Send,
    ) -> Result<PageKeys, ReadError> {
        let mut keys = PageKeys {
            seals: vec![Seal::None, Seal::Unknown("its envelope does not decode")],
            of_row: Vec::new(),
            of_key: HashMap::new(),
        };
        // Neighbours are mostly of one person and purpose, and then their envelopes are equal.
        let mut last = None;
        for row in rows {
            let row = row?;
            let place = match last {
                _ if !row.sealed => CLEAR,
                Some((user, payload, place)) if (user, payload) == (row.user, row.payload) => place,
                _ => {
                    let place = self.place(&mut keys, &row).await?;
                    last = Some((row.user, row.payload, place));
                    place
                }
            };
            keys.of_row.push(place);
        }
        Ok(keys)
    }

    /// Where a sealed row's key is, looked up at its first occurrence.
    async fn place(&self, keys: &mut PageKeys, row: &RowSeal<'_>) -> Result<usize, ReadError> {
        let Ok(Envelope { k, .. }) = serde_json::from_str(row.payload) else {
            return Ok(NO_ENVELOPE);
        };
        if let Some(place) = keys.of_key.get(&(row.user, k)) {
            return Ok(*place);
        }
        let seal = match self.seal_of(row.user, k).await {
            Err(ReadError::Corrupt { .. }) => Seal::Unknown("its owner's key entry is damaged"),
            seal => seal?,
        };
        let place = keys.seals.len();
        keys.seals.push(seal);
        keys.of_key.insert((row.user, k), place);
        Ok(place)
    }

    async fn seal_of(&self, user: UserId, key_id: Uuid) -> Result<Seal, ReadError> {
        let mut reference = self.subjects.of(user).await?.by_id(key_id);
        if reference.is_none() {
            reference = self.subjects.fresh(user).await?.by_id(key_id);
        }
        let Some(reference) = reference else { return Ok(Seal::Missing(key_id)) };
        match self.keyring.fetch(&reference).await {
            Ok(key) => Ok(Seal::Key(key)),
            Err(KeyError::Shredded { .. }) => Ok(Seal::Shredded),
            Err(KeyError::Missing { key_id }) => {
                // Destroyed a moment ago, perhaps: the log decides, not the key store.
                let now = self.subjects.fresh(user).await?.by_id(key_id);
                Ok(match now {
                    Some(now) if now.status == KeyStatus::Destroyed => Seal::Shredded,
                    _ => Seal::Missing(key_id),
                })
            }
            Err(KeyError::Corrupt { key_id }) => Ok(Seal::Corrupt(key_id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a stream's sealed state.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`], [`ReadError::Key`].
    pub async fn open_state(
        &self,
        stream: &StreamId,
        user: UserId,
        sequence: i64,
        purpose: Purpose,
        sealed: &[u8],
    ) -> Result<Vec<u8>, ReadError> {
        let key = self.key(user, purpose).await?;
        key.sealing().open(&Aad::state(stream, sequence), sealed).map_err(|_| ReadError::Corrupt {
            position: 0,
            reason: format!("the state of a {} does not open", stream.aggregate_type),
        })
    }
}

impl PageKeys {
    /// Opens the page that these are the keys of.
    ///
    /// # Errors
    /// That of the first event that does not open.
    pub(crate) fn open(&self, log_id: Uuid, page: &RawPage) -> Result<Vec<Recorded>, ReadError> {
        let mut opener = Opener::new(log_id);
        let mut events = Vec::with_capacity(page.len());
        for (row, seal) in page.rows().zip(self.seals()) {
            events.push(opener.open(&row?, seal)?);
        }
        Ok(events)
    }

    fn seals(&self) -> impl Iterator<Item = &Seal> {
        self.of_row.iter().map(|&place| self.seals.get(place).unwrap_or(&Seal::None))
    }
}

/// Opens one event after another in the same memory.
struct Opener {
    log_id: Uuid,
    buffer: Vec<u8>,
}

impl Opener {
    fn new(log_id: Uuid) -> Self {
        Self { log_id, buffer: Vec::new() }
    }

    fn each(&mut self, row: &EventRow<'_>, seal: &Seal) -> Opened {
        self.open(row, seal).map_err(|error| Unopened {
            position: row.position,
            user: row.user,
            aggregate_type: row.aggregate_type.to_owned(),
            error,
        })
    }

    fn open(&mut self, row: &EventRow<'_>, seal: &Seal) -> Result<Recorded, ReadError> {
        let stream = StreamId {
            aggregate_type: row.aggregate_type.to_owned(),
            aggregate_id: row.aggregate_id.to_owned(),
        };
        let content = match row.sealed {
            Some(sealed) => self.open_sealed(row, &stream, sealed, seal)?,
            None => {
                let metadata = serde_json::from_str(row.metadata)
                    .map_err(|_| corrupt(row, "its metadata does not decode"))?;
                content(row, row.payload, &[], metadata)?
            }
        };
        Ok(Recorded {
            position: row.position,
            committed_ms: row.committed_ms,
            event_id: row.event_id,
            stream,
            sequence: row.sequence,
            user: row.user,
            event_type: row.event_type.to_owned(),
            recorded_at_ms: row.recorded_at_ms,
            content,
        })
    }

    fn open_sealed(
        &mut self,
        row: &EventRow<'_>,
        stream: &StreamId,
        sealed: &[u8],
        seal: &Seal,
    ) -> Result<Content, ReadError> {
        let Some(entry) = registry::find(row.event_type) else {
            let event_type = row.event_type.to_owned();
            return Err(not_lifted(row, UpcastError::Unknown { event_type }));
        };
        let Some(purpose) = entry.purpose else {
            return Err(corrupt(row, "its type is not a personal one"));
        };
        let key = match seal {
            Seal::Key(key) => key,
            Seal::Shredded => return Ok(Content::Shredded),
            Seal::Missing(key_id) => return Err(KeyError::Missing { key_id: *key_id }.into()),
            Seal::Corrupt(key_id) => return Err(KeyError::Corrupt { key_id: *key_id }.into()),
            Seal::None => return Err(corrupt(row, "it is sealed with nothing")),
            Seal::Unknown(reason) => return Err(corrupt(row, reason)),
        };
        let aad = Aad::event(&EventContext {
            log_id: self.log_id,
            event_id: row.event_id,
            stream,
            sequence: row.sequence,
            event_type: row.event_type,
            event_version: row.event_version,
            user: row.user,
            purpose,
            key_id: key.key_id(),
        });
        let bytes = key
            .sealing()
            .open_in(&aad, sealed, &mut self.buffer)
            .map_err(|_| corrupt(row, "its seal does not open"))?;
        let parts =
            EventParts::of(&bytes).map_err(|_| corrupt(row, "its sealed content is malformed"))?;
        let metadata = Metadata::join(row.metadata, parts.metadata)
            .ok_or_else(|| corrupt(row, "its metadata does not decode"))?;
        content(row, parts.payload, parts.blob, metadata)
    }
}

fn content(
    row: &EventRow<'_>,
    payload: &str,
    blob: &[u8],
    metadata: Metadata,
) -> Result<Content, ReadError> {
    let version =
        row.event_version.parse().map_err(|_| corrupt(row, "its version is no number"))?;
    let current = upcast::to_current(row.event_type, version, payload)
        .map_err(|error| not_lifted(row, error))?;
    let event = AnyEvent::decode(row.event_type, &current, blob)
        .map_err(|error| corrupt(row, &error.to_string()))?;
    Ok(Content::Open { event: Box::new(event), metadata })
}

/// Why an event cannot be lifted: this program is too old for it, or it is damaged.
fn not_lifted(row: &EventRow<'_>, error: UpcastError) -> ReadError {
    match error {
        UpcastError::Unknown { .. } | UpcastError::Newer { .. } => {
            ReadError::Newer { position: row.position, source: error }
        }
        UpcastError::Hole { .. } | UpcastError::Payload { .. } => corrupt(row, &error.to_string()),
    }
}

fn corrupt(row: &EventRow<'_>, reason: &str) -> ReadError {
    ReadError::Corrupt { position: row.position, reason: reason.to_owned() }
}
