//! What a consumption looks like on the wire and how conflicts in it are decided.

use crate::conflict::{Nulls, Policy};
use crate::entity::{
    EntityContract, EntityKind, Field, FieldDefault, Kind, Writable, entity_event_types,
};
use crate::{EventType, Purpose};

const TYPE: &str = "consumption";

static TYPES: [EventType; 3] = entity_event_types(
    TYPE,
    Some(Purpose::Activity),
    ["consumption.created", "consumption.updated", "consumption.deleted"],
    ["A consumption was logged.", "A consumption was edited.", "A consumption was deleted."],
);

/// The kind of entity, for [`crate::entity::Entity`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumptions;

impl EntityKind for Consumptions {
    const TYPE: &'static str = TYPE;

    fn contract() -> &'static EntityContract {
        &CONTRACT
    }
}

const LOCAL: Policy = Policy::LocalWins(Nulls::Count);
const LATEST: Policy = Policy::LastWriteWins(Nulls::Count);

/// The consumption contract.
pub static CONTRACT: EntityContract = EntityContract {
    entity_type: "consumptions",
    aliases: &["consumption"],
    aggregate_type: TYPE,
    purpose: Some(Purpose::Activity),
    client_id_field: Some("clientConsumptionId"),
    sync_order: 6,
    plain: true,
    fields: &[
        Field::new(
            "clientConsumptionId",
            Kind::Text { min: 1, max: 100 },
            Policy::LocalIfServerNull,
        )
        .required()
        .writable(Writable::Once),
        Field::new("timestamp", Kind::Instant, LATEST).required(),
        Field::new("durationMs", Kind::Int { min: 1, max: i64::MAX }, LOCAL).required(),
        Field::new("intensity", Kind::Number { min: 0.0, max: 10.0 }, LOCAL),
        Field::new("quantity", Kind::Decimal { precision: 12, scale: 3, signed: false }, LOCAL),
        Field::new("dosageMg", Kind::Decimal { precision: 12, scale: 2, signed: false }, LOCAL)
            .alias("estimatedThcMg"),
        Field::new("isJournaled", Kind::Bool, LOCAL).not_null().default(FieldDefault::Bool(false)),
        Field::new("notes", Kind::Text { min: 0, max: 2000 }, LOCAL),
        Field::new("sessionId", Kind::Ref { target: "sessions", strict: true }, Policy::ServerWins),
        // Whoever assigns another product means it.
        Field::new("productId", Kind::Ref { target: "products", strict: true }, LATEST),
        Field::new("purchaseId", Kind::Ref { target: "purchases", strict: true }, LATEST),
        Field::new("deviceId", Kind::Ref { target: "devices", strict: false }, Policy::ServerWins),
        Field::new("clientPurchaseId", Kind::Text { min: 1, max: 100 }, Policy::LocalIfServerNull),
    ],
    events: &TYPES,
};
