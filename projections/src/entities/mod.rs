//! Readable rows of synced entities: what lists, filters and detail pages show.
//!
//! The log's database holds state only under seal, so nothing in it can be searched. Here each
//! synced entity is one plaintext row: the wire's snapshot, and the few columns that lists filter
//! and sort by. Deleted entities keep their row, marked.

mod fold;

#[cfg(test)]
mod tests;

use aggregates::entity::{AnyEntity, find_contract_of_stream, time::parse_instant};
use aggregates::subject::SubjectEvent;
use aggregates::{AnyEvent, Purpose, Recorded, StreamId, UserId};
use std::collections::BTreeSet;
use uuid::Uuid;

pub use fold::Fold;

/// An entity as of some position.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    pub user: UserId,
    pub stream: StreamId,
    /// Global position of the stream's last event.
    pub position: i64,
    pub state: AnyEntity,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityRow {
    /// The wire's name: `sessions`.
    pub entity_type: &'static str,
    pub id: Uuid,
    pub version: i64,
    pub position: i64,
    pub deleted: bool,
    /// The key that seals its input; destroying it removes the row.
    pub purpose: Option<Purpose>,
    pub status: Option<String>,
    pub session_id: Option<Uuid>,
    pub product_id: Option<Uuid>,
    /// When it took place, or else when it was created; in ms since the Unix epoch.
    pub at_ms: i64,
    /// The wire snapshot, a JSON object.
    pub data: String,
}

/// Fields that say when an entity took place, and which product it concerns.
const TIME_FIELDS: [&str; 2] = ["sessionStartTimestamp", "timestamp"];
const PRODUCT_FIELDS: [&str; 2] = ["productId", "primaryProductId"];

impl Entity {
    /// The entity's row; `None` before anything happened to it, and for ids that are not ours.
    pub fn row(&self) -> Option<EntityRow> {
        let id = Uuid::parse_str(&self.stream.aggregate_id).ok()?;
        let contract = self.state.contract();
        let state = self.state.state();
        let fields = self.state.visible_fields();
        let text = |name: &str| fields.get(name).and_then(|value| value.as_str());
        let reference = |name: &&str| text(name).and_then(|id| Uuid::parse_str(id).ok());
        let at = TIME_FIELDS.iter().find_map(|name| text(name).and_then(parse_instant));
        state.exists().then(|| EntityRow {
            entity_type: contract.entity_type,
            id,
            version: state.version,
            position: self.position,
            deleted: state.deleted,
            purpose: contract.purpose,
            status: text("status").map(str::to_owned),
            session_id: reference(&"sessionId"),
            product_id: PRODUCT_FIELDS.iter().find_map(reference),
            at_ms: at.unwrap_or(state.created_at_ms),
            data: serde_json::Value::Object(self.state.to_wire(id, self.user)).to_string(),
        })
    }
}

/// What one person's events of a page change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Purposes whose key was destroyed: their rows go first.
    pub wiped: BTreeSet<Purpose>,
    /// The entities to show anew, afterwards.
    pub streams: BTreeSet<StreamId>,
}

/// Whether events of such streams concern this read model.
pub fn hears(aggregate_type: &str) -> bool {
    aggregate_type == aggregates::subject::TYPE || find_contract_of_stream(aggregate_type).is_some()
}

/// The scope of a person's events, in order of position.
pub fn scope<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Scope {
    let mut scope = Scope::default();
    for event in events {
        match event.event() {
            Some(AnyEvent::Subject(SubjectEvent::KeyDestroyed(destroyed))) => {
                scope.wiped.insert(destroyed.purpose);
                scope.streams.retain(|stream| {
                    find_contract_of_stream(&stream.aggregate_type)
                        .is_none_or(|contract| contract.purpose != Some(destroyed.purpose))
                });
            }
            Some(_) if find_contract_of_stream(&event.stream.aggregate_type).is_some() => {
                scope.streams.insert(event.stream.clone());
            }
            _ => {}
        }
    }
    scope
}
