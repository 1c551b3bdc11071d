//! The wire's cursors: base64 of a small JSON object.
//!
//! Clients read and compare *entity cursors*, one for each type, and build the first *composite*
//! cursor of a run from those they have stored. While they page they hand the composite back
//! unread, so the state of the paging lives in it.
//!
//! Reading is lenient, because a client that is refused keeps its cursor for ever: what can be read
//! is used, and what cannot means the beginning, which costs a repetition and loses nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::base64;
use crate::entity::find_contract;
use crate::entity::time::{format_instant, parse_instant};

/// Version of the composite's layout.
pub const VERSION: i64 = 1;

/// Makes and reads the ids in cursors. Their text order is the order of positions.
pub trait Signer {
    /// The id of a position of the feed of one type.
    fn sign(&self, position: i64, type_code: u8) -> Option<Uuid>;

    /// The position of an id of our own making, of this person and of the log's present history.
    fn read(&self, id: Uuid) -> Option<i64>;
}

/// A place in the feed as clients store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// When the change at that place was committed, in ms since the Unix epoch.
    pub at_ms: i64,
    pub id: Uuid,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePair {
    last_created_at: String,
    last_id: String,
}

impl Pair {
    /// The entity cursor's text.
    pub fn encode(&self) -> String {
        base64::encode(crate::event::to_payload(&self.wire()).as_bytes())
    }

    /// The pair in an entity cursor's text.
    pub fn decode(text: &str) -> Option<Self> {
        Self::from_wire(&serde_json::from_slice(&base64::decode(text)?).ok()?)
    }

    fn wire(&self) -> WirePair {
        WirePair { last_created_at: format_instant(self.at_ms), last_id: self.id.to_string() }
    }

    fn from_wire(wire: &WirePair) -> Option<Self> {
        let at_ms = parse_instant(&wire.last_created_at)?;
        Some(Self { at_ms, id: Uuid::try_parse(&wire.last_id).ok()? })
    }

    /// Where to go on reading.
    pub fn place(&self, signer: &dyn Signer) -> Place {
        signer.read(self.id).map_or(Place::Time(self.at_ms), Place::Position)
    }
}

/// A place to go on reading from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After this position; 0 is the beginning.
    Position(i64),
    /// After what was committed before this time, in ms since the Unix epoch. What was committed at
    /// it is repeated: the place may be in the midst of it.
    Time(i64),
}

/// How far a run of pages has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paging {
    /// Children are delivered up to here, so that their parents came before them.
    pub up_to: i64,
    /// The rank of the type that comes next.
    pub rank: u8,
}

/// A composite cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composite {
    pub global: Option<Pair>,
    /// By canonical type name.
    pub entities: BTreeMap<&'static str, Pair>,
    /// Whether the request named entity cursors at all, readable or not.
    pub has_entities: bool,
    /// None in the first request of a run.
    pub paging: Option<Paging>,
}

/// Why a composite cursor cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("the cursor is not base64")]
    Encoding,
    #[error("the cursor is not a JSON object")]
    Shape,
    #[error("the cursor has neither a position nor entity cursors")]
    Empty,
    #[error("the cursor is of a version this server does not know")]
    Version,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireComposite {
    #[serde(flatten)]
    global: Option<WirePair>,
    entity_cursors: BTreeMap<&'static str, String>,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    paging: Option<Paging>,
}

impl Composite {
    /// The text handed to the client.
    pub fn encode(&self) -> String {
        let wire = WireComposite {
            global: self.global.map(|pair| pair.wire()),
            entity_cursors: self
                .entities
                .iter()
                .map(|(entity_type, pair)| (*entity_type, pair.encode()))
                .collect(),
            version: VERSION,
            paging: self.paging,
        };
        base64::encode(crate::event::to_payload(&wire).as_bytes())
    }

    /// Reads what a client sent: a composite, or a lone entity cursor.
    ///
    /// # Errors
    /// [`CursorError`] where nothing in it can be used.
    pub fn decode(text: &str) -> Result<Self, CursorError> {
        let bytes = base64::decode(text.trim()).ok_or(CursorError::Encoding)?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|_| CursorError::Shape)?;
        let object = json.as_object().ok_or(CursorError::Shape)?;
        if object.get("version").and_then(Value::as_i64).is_some_and(|v| v > VERSION) {
            return Err(CursorError::Version);
        }
        let global: Option<WirePair> = serde_json::from_value(json.clone()).ok();
        let named = object.get("entityCursors").and_then(Value::as_object);
        let mut entities = BTreeMap::new();
        for (name, cursor) in named.into_iter().flatten() {
            let pair = cursor.as_str().and_then(Pair::decode);
            if let (Some(contract), Some(pair)) = (find_contract(name), pair) {
                entities.insert(contract.entity_type, pair);
            }
        }
        let composite = Self {
            global: global.as_ref().and_then(Pair::from_wire),
            entities,
            has_entities: named.is_some_and(|named| !named.is_empty()),
            paging: object.get("paging").and_then(|p| serde_json::from_value(p.clone()).ok()),
        };
        if composite.global.is_none() && !composite.has_entities && composite.paging.is_none() {
            return Err(CursorError::Empty);
        }
        Ok(composite)
    }

    /// Where a type starts: at its own cursor, else at the beginning where there are others, else
    /// at the common one.
    pub fn start(&self, entity_type: &str, signer: &dyn Signer) -> Place {
        match (self.entities.get(entity_type), self.global) {
            (Some(pair), _) => pair.place(signer),
            (None, Some(pair)) if !self.has_entities => pair.place(signer),
            (None, _) => Place::Position(0),
        }
    }
}
