//! A simulated phone: rows, an outbox and cursors, kept the way the mobile app keeps them.
//!
//! It is written against the wire format and knows no rule of merging. Where a row has edits that
//! are not pushed yet, a pulled row is laid under them; everywhere else the server's row is taken.

mod cursor;

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::client::hash::canonical;
use crate::client::wire::{Change, ChangesPage, Operation, PushFailed, PushRequest, PushResult};
use crate::client::{ApiClient, ClientError};
pub use cursor::EntityCursor;

/// The entity types a phone pulls, parents first.
pub const PULLED: [&str; 8] = [
    "products",
    "devices",
    "purchases",
    "inventory_items",
    "sessions",
    "consumptions",
    "journal_entries",
    "goals",
];

/// The most changes of one push.
const MAX_PUSH: usize = 100;
/// The most pages of one pull.
const MAX_PAGES: usize = 15;
/// Further pushes while the outbox shrinks.
const MAX_PUSHES: usize = 20;

/// One entity as the phone shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its fields.
    pub data: Map<String, Value>,
    /// The server's version, 0 before the first push.
    pub version: i64,
}

/// Why a synchronisation stopped.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A cursor that is no cursor.
    #[error("the server sent an unreadable cursor for {0}")]
    BadCursor(String),
    /// A cursor before the one already stored: following it would repeat or lose changes.
    #[error("the server moved the cursor of {0} backwards")]
    CursorBackward(String),
    /// A page that goes on but does not move.
    #[error("the change feed does not advance")]
    Stuck,
}

/// What one synchronisation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Changes the server accepted.
    pub pushed: usize,
    /// Rows the feed delivered.
    pub pulled: usize,
}

/// A phone of one person.
#[derive(Clone, Debug)]
pub struct Phone {
    device_id: Uuid,
    rows: BTreeMap<String, BTreeMap<String, Row>>,
    outbox: VecDeque<Change>,
    cursors: BTreeMap<String, EntityCursor>,
    /// Ids the server replaced, by type and old id.
    ids: BTreeMap<(String, String), String>,
    dead_letters: Vec<(Change, PushFailed)>,
    conflicts: Vec<Value>,
    counter: u64,
}

impl Phone {
    /// A phone fresh from the shop.
    pub fn new(device_id: Uuid) -> Self {
        Self {
            device_id,
            rows: BTreeMap::new(),
            outbox: VecDeque::new(),
            cursors: BTreeMap::new(),
            ids: BTreeMap::new(),
            dead_letters: Vec::new(),
            conflicts: Vec::new(),
            counter: 0,
        }
    }

    /// The rows of a type by id, as the person sees them.
    pub fn rows(&self, entity_type: &str) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.get(entity_type).into_iter().flatten().map(|(id, row)| (id.as_str(), row))
    }

    /// One row. Ids the server replaced still find it.
    pub fn row(&self, entity_type: &str, id: &str) -> Option<&Row> {
        self.rows.get(entity_type)?.get(self.current_id(entity_type, id))
    }

    /// Whether both phones show the same.
    pub fn agrees_with(&self, other: &Phone) -> bool {
        let shown = |phone: &Phone| -> BTreeMap<String, BTreeMap<String, Row>> {
            phone.rows.clone().into_iter().filter(|(_, rows)| !rows.is_empty()).collect()
        };
        shown(self) == shown(other)
    }

    /// Changes waiting to be pushed.
    pub fn pending(&self) -> usize {
        self.outbox.len()
    }

    /// Changes the server refused for good, with its reasons.
    pub fn dead_letters(&self) -> &[(Change, PushFailed)] {
        &self.dead_letters
    }

    /// Conflicts the server left to the person.
    pub fn conflicts(&self) -> &[Value] {
        &self.conflicts
    }

    /// Adds an entity offline; answers its id. `at` is the device's clock, ISO 8601.
    pub fn create(&mut self, entity_type: &str, data: Map<String, Value>, at: &str) -> String {
        let id = self.new_id();
        let mut data = data;
        if let Some(field) = client_id_field(entity_type) {
            data.entry(field).or_insert_with(|| Value::from(id.as_str()));
        }
        let row = Row { data: data.clone(), version: 0 };
        self.rows.entry(entity_type.into()).or_default().insert(id.clone(), row);
        self.enqueue(entity_type, &id, Operation::Create, data, 0, at);
        id
    }

    /// Edits fields offline. An entity the phone does not have is left alone.
    pub fn update(&mut self, entity_type: &str, id: &str, patch: Map<String, Value>, at: &str) {
        let id = self.current_id(entity_type, id).to_owned();
        let Some(row) = self.rows.get_mut(entity_type).and_then(|rows| rows.get_mut(&id)) else {
            return;
        };
        row.data.extend(patch.clone());
        let version = row.version;
        let earlier = self.outbox.iter_mut().rfind(|change| change.is_of(entity_type, &id));
        // An entity never pushed is created with its latest fields, and edits in a row are one.
        if let Some(Value::Object(data)) = earlier.map(|change| &mut change.data) {
            data.extend(patch);
            return;
        }
        self.enqueue(entity_type, &id, Operation::Update, patch, version, at);
    }

    /// Deletes an entity offline.
    pub fn delete(&mut self, entity_type: &str, id: &str, at: &str) {
        let id = self.current_id(entity_type, id).to_owned();
        let Some(row) = self.rows.get_mut(entity_type).and_then(|rows| rows.remove(&id)) else {
            return;
        };
        self.outbox.retain(|change| !change.is_of(entity_type, &id));
        // Even an entity that looks unpushed is deleted by name: its creation may have arrived
        // although the answer was lost.
        self.enqueue(entity_type, &id, Operation::Delete, Map::new(), row.version, at);
    }

    /// The next push: at most 100 changes, creations first. `None` when nothing waits.
    ///
    /// The same outbox gives the same operation id, so a repeated push is a repeated request.
    pub fn push_request(&self) -> Option<PushRequest> {
        if self.outbox.is_empty() {
            return None;
        }
        let mut changes: Vec<Change> = self.outbox.iter().take(MAX_PUSH).cloned().collect();
        changes.sort_by_key(|change| match change.change_type {
            Operation::Create => (0, parents_first(&change.entity_type)),
            Operation::Update => (1, 0),
            Operation::Delete => (2, PULLED.len() - parents_first(&change.entity_type)),
        });
        let content = serde_json::to_value(&changes).unwrap_or_default();
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical(&content).as_bytes());
        Some(PushRequest {
            device_id: self.device_id.to_string(),
            sync_operation_id: format!("sync-{}", hex::encode(digest)),
            changes,
        })
    }

    /// Takes the server's answer to a push.
    pub fn apply_push(&mut self, result: &PushResult) {
        for pushed in &result.successful {
            let Some(change) = self.take(&pushed.request_id) else { continue };
            let id = self.adopt_id(&change.entity_type, &change.entity_id, &pushed.server_id);
            if let Some(version) = pushed.version
                && let Some(row) =
                    self.rows.get_mut(&change.entity_type).and_then(|rows| rows.get_mut(&id))
            {
                row.version = row.version.max(version);
            }
        }
        for failed in &result.failed {
            if !failed.retryable
                && let Some(change) = self.take(&failed.request_id)
            {
                self.dead_letters.push((change, failed.clone()));
            }
        }
        for conflict in &result.conflicts {
            if let Some(request_id) = conflict["requestId"].as_str() {
                self.take(request_id);
            }
            self.conflicts.push(conflict.clone());
        }
    }

    /// The cursor a pull starts with: the least entity cursor, with all of them inside. `None` on
    /// a phone that never pulled.
    pub fn composite_cursor(&self) -> Option<String> {
        cursor::composite(&self.cursors)
    }

    /// Takes the rows of a page. Its cursors are kept by [`Phone::commit`] once the pull is over.
    pub fn apply_changes(&mut self, page: &ChangesPage) {
        for changed in &page.changes {
            let (entity_type, id) = (&changed.entity_type, &changed.server_id);
            let rows = self.rows.entry(entity_type.clone()).or_default();
            if changed.operation == Operation::Delete {
                rows.remove(id);
                continue;
            }
            let mut pending = self.outbox.iter().filter(|change| change.is_of(entity_type, id));
            let Value::Object(mut data) = changed.data.clone() else { continue };
            let version = data.get("version").and_then(Value::as_i64).unwrap_or_default();
            let deleted_here = pending.clone().any(|c| c.change_type == Operation::Delete);
            if deleted_here || rows.get(id).is_some_and(|row| row.version > version) {
                continue;
            }
            if let Some(Value::Object(edits)) = pending.next().map(|change| &change.data) {
                data.extend(edits.clone());
            }
            rows.insert(id.clone(), Row { data, version });
        }
    }

    /// Keeps the cursors of a finished pull: all of them, or none.
    ///
    /// # Errors
    /// [`PhoneError::BadCursor`] and [`PhoneError::CursorBackward`].
    pub fn commit(&mut self, cursors: &BTreeMap<String, String>) -> Result<(), PhoneError> {
        let mut next = self.cursors.clone();
        for (entity_type, text) in cursors {
            let cursor = EntityCursor::decode(text)
                .ok_or_else(|| PhoneError::BadCursor(entity_type.clone()))?;
            if next.get(entity_type).is_some_and(|stored| *stored > cursor) {
                return Err(PhoneError::CursorBackward(entity_type.clone()));
            }
            next.insert(entity_type.clone(), cursor);
        }
        self.cursors = next;
        Ok(())
    }

    /// Pushes what waits, then pulls what is new.
    ///
    /// # Errors
    /// [`PhoneError`]; the outbox and the cursors stay as they were for the next try.
    pub async fn sync(&mut self, client: &ApiClient) -> Result<SyncReport, PhoneError> {
        let pushed = self.push(client).await?;
        let pulled = self.pull(client).await?;
        Ok(SyncReport { pushed, pulled })
    }

    /// Pushes until the outbox is empty or the server takes nothing more.
    ///
    /// # Errors
    /// [`PhoneError::Client`].
    pub async fn push(&mut self, client: &ApiClient) -> Result<usize, PhoneError> {
        let mut pushed = 0;
        for _ in 0..MAX_PUSHES {
            let Some(request) = self.push_request() else { break };
            let before = self.pending();
            let result = client.push(&request).await?;
            pushed += result.successful.len();
            self.apply_push(&result);
            if self.pending() == before {
                break;
            }
        }
        Ok(pushed)
    }

    /// Pulls up to 15 pages and keeps their cursors.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub async fn pull(&mut self, client: &ApiClient) -> Result<usize, PhoneError> {
        let (mut cursor, mut pulled) = (self.composite_cursor(), 0);
        let mut reached = BTreeMap::new();
        for _ in 0..MAX_PAGES {
            let page = client.changes(cursor.as_deref(), &PULLED).await?;
            self.apply_changes(&page);
            pulled += page.changes.len();
            reached.extend(page.entity_cursors);
            if !page.has_more {
                break;
            }
            if page.cursor.is_none() || page.cursor == cursor {
                return Err(PhoneError::Stuck);
            }
            cursor = page.cursor;
        }
        self.commit(&reached)?;
        Ok(pulled)
    }

    fn enqueue(
        &mut self,
        entity_type: &str,
        id: &str,
        change_type: Operation,
        data: Map<String, Value>,
        base: i64,
        at: &str,
    ) {
        let request_id = self.new_id();
        self.outbox.push_back(Change {
            entity_type: entity_type.into(),
            entity_id: id.into(),
            change_type,
            client_id: Some(id.into()),
            request_id,
            data: Value::Object(data),
            version: base + 1,
            timestamp: at.into(),
            base_version: (base > 0).then_some(base),
        });
    }

    fn take(&mut self, request_id: &str) -> Option<Change> {
        let at = self.outbox.iter().position(|change| change.request_id == request_id)?;
        self.outbox.remove(at)
    }

    /// Uses the server's id from now on, everywhere; answers it.
    fn adopt_id(&mut self, entity_type: &str, old: &str, new: &str) -> String {
        if old != new {
            self.ids.insert((entity_type.into(), old.into()), new.into());
            if let Some(rows) = self.rows.get_mut(entity_type)
                && let Some(row) = rows.remove(old)
            {
                rows.insert(new.into(), row);
            }
            for change in self.outbox.iter_mut().filter(|c| c.is_of(entity_type, old)) {
                change.entity_id = new.into();
            }
            if let Some(field) = reference_field(entity_type) {
                let refer = |data: &mut Map<String, Value>| {
                    if data.get(field).and_then(Value::as_str) == Some(old) {
                        data.insert(field.into(), Value::from(new));
                    }
                };
                self.rows
                    .values_mut()
                    .flat_map(BTreeMap::values_mut)
                    .for_each(|r| refer(&mut r.data));
                self.outbox.iter_mut().filter_map(|c| c.data.as_object_mut()).for_each(refer);
            }
        }
        new.into()
    }

    fn current_id<'a>(&'a self, entity_type: &str, id: &'a str) -> &'a str {
        self.ids.get(&(entity_type.into(), id.into())).map_or(id, String::as_str)
    }

    /// Ids follow from the device and a counter, so that a simulation can be repeated.
    fn new_id(&mut self) -> String {
        self.counter += 1;
        Uuid::new_v5(&self.device_id, &self.counter.to_be_bytes()).to_string()
    }
}

impl Change {
    fn is_of(&self, entity_type: &str, id: &str) -> bool {
        self.entity_type == entity_type && self.entity_id == id
    }
}

fn parents_first(entity_type: &str) -> usize {
    PULLED.iter().position(|known| *known == entity_type).unwrap_or(PULLED.len())
}

/// The field that makes creations of the type idempotent.
fn client_id_field(entity_type: &str) -> Option<&'static str> {
    Some(match entity_type {
        "products" => "clientProductId",
        "purchases" => "clientPurchaseId",
        "inventory_items" => "clientInventoryId",
        "sessions" => "clientSessionId",
        "consumptions" => "clientConsumptionId",
        "journal_entries" => "clientEntryId",
        _ => return None,
    })
}

/// The field by which other types refer to this one.
fn reference_field(entity_type: &str) -> Option<&'static str> {
    Some(match entity_type {
        "products" => "productId",
        "devices" => "deviceId",
        "purchases" => "purchaseId",
        "sessions" => "sessionId",
        "consumptions" => "consumptionId",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
