//! What can happen to a product of the catalogue.

use serde::{Deserialize, Serialize};

use crate::entity::{Edit, Fields};
use crate::event::{DecodeError, Encoded, EventType, StoredEvent, from_payload, to_payload};

/// `aggregate_type` of a product's stream.
pub const TYPE: &str = "catalogue_product";

/// What happened to a product of the catalogue.
///
/// Its serde form is what `cqrs_es` repositories store as the payload, so it is the payload that
/// [`encode`](StoredEvent::encode) makes, with no tag around it: the type has a column of its own.
/// Reading it back tells the variants apart by the fields that only one of them requires, tried
/// in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CatalogueProductEvent {
    Defined(ProductDefined),
    Updated(ProductUpdated),
    Withdrawn(ProductWithdrawn),
}

/// A product came into the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProductDefined {
    /// Canonical names and normalised values, defaults included.
    pub fields: Fields,
    pub edit: Edit,
}

/// A product's description changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProductUpdated {
    /// The new values; null clears.
    pub set: Fields,
    pub edit: Edit,
}

/// A product left the catalogue; what was consumed of it keeps pointing at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProductWithdrawn {
    pub edit: Edit,
}

const fn event_type(name: &'static str, summary: &'static str) -> EventType {
    EventType { name, version: 1, aggregate: TYPE, purpose: None, summary }
}

pub(super) static TYPES: [EventType; 3] = [
    event_type("catalogue_product.defined", "A product came into the public catalogue."),
    event_type("catalogue_product.updated", "A public product's description changed."),
    event_type("catalogue_product.withdrawn", "A product left the public catalogue."),
];

impl cqrs_es::DomainEvent for CatalogueProductEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for CatalogueProductEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        let index = match self {
            Self::Defined(_) => 0,
            Self::Updated(_) => 1,
            Self::Withdrawn(_) => 2,
        };
        &TYPES[index]
    }

    fn encode(&self) -> Encoded {
        let payload = match self {
            Self::Defined(data) => to_payload(data),
            Self::Updated(data) => to_payload(data),
            Self::Withdrawn(data) => to_payload(data),
        };
        Encoded { payload, blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        let t = event_type;
        match t {
            "catalogue_product.defined" => from_payload(t, payload).map(Self::Defined),
            "catalogue_product.updated" => from_payload(t, payload).map(Self::Updated),
            "catalogue_product.withdrawn" => from_payload(t, payload).map(Self::Withdrawn),
            _ => Err(DecodeError::unknown(t)),
        }
    }
}
