//! Positions in the change feed, as a phone stores and compares them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::client::wire::wire_time;

/// The position in the feed of one entity type. Ordered by time, then by the id as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityCursor {
    at: DateTime<Utc>,
    id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    last_created_at: DateTime<Utc>,
    last_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Composite {
    last_created_at: String,
    last_id: String,
    entity_cursors: BTreeMap<String, String>,
    version: u32,
}

impl EntityCursor {
    /// Reads base64 of `{"lastCreatedAt", "lastId"}` as strictly as a phone does: no other
    /// members, the id a UUID. `None` when it is anything else.
    pub fn decode(text: &str) -> Option<Self> {
        let json = STANDARD.decode(text).ok()?;
        let wire: Wire = serde_json::from_slice(&json).ok()?;
        Uuid::try_parse(&wire.last_id).ok()?;
        Some(Self { at: wire.last_created_at, id: wire.last_id })
    }

    /// The wire form.
    pub fn encode(&self) -> String {
        encode(&serde_json::json!({"lastCreatedAt": wire_time(self.at), "lastId": self.id}))
    }
}

pub(super) fn composite(cursors: &BTreeMap<String, EntityCursor>) -> Option<String> {
    let least = cursors.values().min()?;
    Some(encode(&Composite {
        last_created_at: wire_time(least.at),
        last_id: least.id.clone(),
        entity_cursors: cursors.iter().map(|(t, c)| (t.clone(), c.encode())).collect(),
        version: 1,
    }))
}

fn encode(value: &impl Serialize) -> String {
    // Plain structs with text keys always convert.
    STANDARD.encode(serde_json::to_vec(value).unwrap_or_default())
}
