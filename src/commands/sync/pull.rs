//! What has changed since a cursor.

use std::collections::BTreeMap;

use aggregates::UserId;
use aggregates::entity::EntityContract;
use aggregates::entity::time::format_instant;
use aggregates::sync::cursor::{Composite, Pair, Place, Signer};
use aggregates::sync::desk::EntityKey;
use aggregates::sync::pull::{FeedRow, Page, types};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::facts;
use super::names::Names;
use crate::commands::CommandError;
use crate::sealing::{CursorId, CursorKey};
use crate::store::installations::Acknowledgement;
use crate::store::streams::StreamHead;
use crate::store::{Op, Store};
use crate::{clock, ids};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// None: from the beginning.
    pub cursor: Option<Composite>,
    /// None: all types.
    pub types: Option<Vec<&'static EntityContract>>,
    /// Rows at most.
    pub limit: usize,
    /// What the client calls its installation.
    pub device_id: Option<String>,
}

/// One entity as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The canonical name of the type.
    pub entity_type: &'static str,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'static str,
    pub server_id: Uuid,
    /// The whole entity; of a deleted one only `id`, `deletedAt` and `version`.
    pub data: Map<String, Value>,
    /// When the change was committed.
    pub timestamp: String,
    /// `self` where the asking installation made the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'static str>,
}

/// One page of changes.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    pub changes: Vec<Change>,
    /// Where to go on; null where nothing was ever there.
    pub cursor: Option<String>,
    pub has_more: bool,
    pub records_returned: usize,
    /// For every type in this page, where it was left.
    pub entity_cursors: BTreeMap<&'static str, String>,
}

impl FeedRow for StreamHead {
    fn position(&self) -> i64 {
        self.position
    }
}

/// Signs cursor ids for one person and one history of the log.
struct UserSigner<'a> {
    key: &'a CursorKey,
    user: UserId,
    epoch: u8,
}

impl Signer for UserSigner<'_> {
    fn sign(&self, position: i64, type_code: u8) -> Option<Uuid> {
        Some(CursorId::new(self.epoch, position, type_code)?.pack(self.key, self.user))
    }

    fn read(&self, id: Uuid) -> Option<i64> {
        let place = CursorId::unpack(self.key, self.user, id)?;
        (place.epoch() == self.epoch).then(|| place.position())
    }
}

/// One page of a person's changes. The first page of a run acknowledges what its cursor covers.
///
/// # Errors
/// Where the log cannot be read.
pub async fn pull(
    store: &Store,
    key: &CursorKey,
    user: UserId,
    request: &PullRequest,
) -> Result<Changes, CommandError> {
    let signer = UserSigner { key, user, epoch: u8::try_from(store.epoch()).unwrap_or_default() };
    let head = store.head().await?;
    let mut given = request.cursor.clone().unwrap_or_default();
    // Nothing was ever committed at a time to come: the cursor is of a lost history or of a wrong
    // clock. It means the beginning, and handed back it would keep everything until then away.
    let past = |pair: &Pair| match pair.place(&signer) {
        Place::Position(_) => true,
        Place::Time(at_ms) => at_ms <= head.committed_ms,
    };
    given.entities.retain(|_, pair| past(pair));
    given.global = given.global.filter(past);
    let head = head.position;
    let types = types(request.types.as_deref());
    let mut pairs: BTreeMap<&'static str, Pair> = given.entities.clone();
    let mut positions = BTreeMap::new();
    for contract in &types {
        let position = match given.start(contract.entity_type, &signer) {
            Place::Position(position) => position.min(head),
            // Positions of one append share their time, and the cursor may stand between them.
            Place::Time(at_ms) => store.position_at(at_ms.saturating_sub(1)).await?,
        };
        positions.insert(contract.entity_type, position);
        if let (Some(pair), false) = (given.global, given.has_entities) {
            pairs.insert(contract.entity_type, pair);
        }
    }
    let starts = positions.clone();
    let mut page = Page::new(types, positions, head, given.paging, request.limit);
    while let Some(fetch) = page.wants() {
        let limit = i64::try_from(fetch.limit).unwrap_or(i64::MAX);
        let feed = store.feed(user, fetch.contract.aggregate_type, fetch.after, fetch.upto, limit);
        page = page.give(feed.await?);
    }
    let own = own_installation(store, user, request, &page).await?;
    let end = page.finish();
    let mut changes = Vec::with_capacity(end.rows.len());
    let mut entity_cursors = BTreeMap::new();
    for (contract, row) in end.rows {
        let pair = signer
            .sign(row.position, contract.sync_order)
            .map(|id| Pair { at_ms: row.committed_ms, id });
        if let Some(pair) = pair {
            pairs.insert(contract.entity_type, pair);
            entity_cursors.insert(contract.entity_type, pair.encode());
        }
        changes.push(change(store, user, contract, row, own).await?);
    }
    let moved = end.positions != starts;
    let cursor = if moved || (end.paging.is_some() && !pairs.is_empty()) {
        let global = pairs.values().min_by_key(|pair| (pair.at_ms, pair.id)).copied();
        let composite = Composite {
            global,
            has_entities: !pairs.is_empty(),
            entities: pairs,
            paging: end.paging,
        };
        Some(composite.encode())
    } else {
        // Nothing new: the same place, and the run is over.
        let stands = given.global.is_some() || !given.entities.is_empty();
        stands.then(|| Composite { paging: None, ..given }.encode())
    };
    Ok(Changes {
        records_returned: changes.len(),
        changes,
        cursor,
        has_more: end.paging.is_some(),
        entity_cursors,
    })
}

/// The asking installation, after its acknowledgement was kept.
async fn own_installation(
    store: &Store,
    user: UserId,
    request: &PullRequest,
    page: &Page<StreamHead>,
) -> Result<Option<Uuid>, CommandError> {
    let Some(device_id) = &request.device_id else { return Ok(None) };
    let names = Names::of(store, user).await?;
    let now_ms = clock::now_ms();
    let device = names.device(device_id);
    let installation = store.installation(user, &device, ids::new_id(), now_ms).await?;
    let first = request.cursor.as_ref().is_none_or(|cursor| cursor.paging.is_none());
    if let (true, Some(ack)) = (first, page.acknowledges()) {
        let said = Acknowledgement { head: ack.head, position: ack.position, acked_ms: now_ms };
        store.acknowledge(user, installation, said).await?;
    }
    Ok(Some(installation))
}

async fn change(
    store: &Store,
    user: UserId,
    contract: &'static EntityContract,
    row: StreamHead,
    own: Option<Uuid>,
) -> Result<Change, CommandError> {
    let id = Uuid::parse_str(&row.stream.aggregate_id).unwrap_or_default();
    let timestamp = format_instant(row.committed_ms);
    let origin = own.filter(|own| row.origin == Some(*own)).map(|_| "self");
    let (operation, data) = match row.op {
        Op::Delete => {
            let tombstone = json!({ "id": id, "deletedAt": timestamp, "version": row.sequence });
            ("DELETE", tombstone.as_object().cloned().unwrap_or_default())
        }
        Op::Create | Op::Update => {
            let operation = if row.op == Op::Create { "CREATE" } else { "UPDATE" };
            let entity = facts::open(store, EntityKey::new(contract, id), row).await?;
            (operation, entity.to_wire(id, user))
        }
    };
    Ok(Change {
        entity_type: contract.entity_type,
        operation,
        server_id: id,
        data,
        timestamp,
        origin,
    })
}
