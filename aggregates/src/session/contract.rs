//! What a session looks like on the wire and how conflicts in it are decided.

use super::event;
use crate::Purpose;
use crate::conflict::{Nulls, Policy};
use crate::entity::{EntityContract, Field, FieldDefault, Kind, Writable};

const WHOLE: Kind = Kind::Int { min: 0, max: i64::MAX };
const STATUSES: &[&str] = &["ACTIVE", "PAUSED", "COMPLETED", "CANCELLED"];

/// The session contract.
pub static CONTRACT: EntityContract = EntityContract {
    entity_type: "sessions",
    aliases: &["session"],
    aggregate_type: event::TYPE,
    purpose: Some(Purpose::Activity),
    client_id_field: Some("clientSessionId"),
    sync_order: 5,
    plain: false,
    fields: &[
        Field::new("clientSessionId", Kind::Text { min: 1, max: 100 }, Policy::LocalIfServerNull)
            .not_null()
            .writable(Writable::Once),
        Field::new(
            "deviceId",
            Kind::Ref { target: "devices", strict: false },
            Policy::LocalIfServerNull,
        ),
        Field::new(
            "purchaseId",
            Kind::Ref { target: "purchases", strict: true },
            Policy::LocalIfServerNull,
        ),
        // The consumptions decide it as soon as one of them names a product.
        Field::new(
            "primaryProductId",
            Kind::Ref { target: "products", strict: true },
            Policy::LastWriteWins(Nulls::Count),
        ),
        // The start counts until the first consumption is attached.
        Field::new("sessionStartTimestamp", Kind::Instant, Policy::ServerDerived)
            .required()
            .writable(Writable::OnCreate),
        // Only says that a session which arrives complete has ended; never stored as given.
        Field::new("sessionEndTimestamp", Kind::Instant, Policy::ServerDerived)
            .writable(Writable::OnCreate),
        Field::derived("eventCount", WHOLE).alias("hitCount"),
        Field::derived("totalDurationMs", WHOLE),
        Field::derived("avgEventDurationMs", WHOLE).alias("avgHitDurationMs"),
        Field::new(
            "sessionTypeHeuristic",
            Kind::Text { min: 0, max: 200 },
            Policy::LocalIfServerNull,
        ),
        Field::new(
            "observationFeature",
            Kind::Number { min: f64::MIN, max: f64::MAX },
            Policy::LocalIfServerNull,
        ),
        Field::new(
            "status",
            Kind::EnumAnyCase(STATUSES),
            Policy::Monotonic {
                order: &["ACTIVE", "PAUSED", "CANCELLED", "COMPLETED"],
                terminal: &["COMPLETED", "CANCELLED"],
            },
        )
        .not_null()
        .default(FieldDefault::Text("ACTIVE")),
        Field::new("notes", Kind::Text { min: 0, max: 2000 }, Policy::LocalWins(Nulls::Lose)),
        Field::new("summary", Kind::Object, Policy::LastWriteWins(Nulls::Count)),
        Field::new(
            "rating",
            Kind::Number { min: 0.0, max: 5.0 },
            Policy::LastWriteWins(Nulls::Count),
        ),
        Field::new("wouldRepeat", Kind::Bool, Policy::LastWriteWins(Nulls::Count)),
        // Minutes.
        Field::new(
            "plannedDuration",
            Kind::Int { min: 1, max: 1440 },
            Policy::LastWriteWins(Nulls::Count),
        ),
    ],
    events: &event::TYPES,
};
