//! The written contract of the log: a JSON Schema for every event, and the event catalogue.
//!
//! Schemas are generated from the payload types and never edited. Once released they stay as they
//! are, whatever becomes of the types; the log is full of payloads that follow them.

mod catalogue;
mod metrics;
mod table;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::entity::{self, EntityEvent, SyncSuperseded};
use crate::{
    EventType, StoredEvent, access, health_batch, product, projection, registry, session, subject,
    user,
};

pub use catalogue::catalogue;

/// Event types that no longer happen. Their schemas and examples stay, because the log does.
pub const RETIRED: [&str; 0] = [];

/// A generated file: its path under the repository's root, and what belongs in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    pub path: String,
    pub content: String,
}

/// Every file that is derived from the registry and the metrics: one schema a type in its current
/// version, the event catalogue and the table of metrics.
pub fn files() -> Vec<Generated> {
    let schemas = registry::types().filter_map(|entry| {
        let content = pretty(schema_of(entry)?);
        Some(Generated { path: schema_path(entry.name, entry.version), content })
    });
    let catalogue = Generated { path: "docs/events.md".to_owned(), content: catalogue() };
    let metrics = Generated { path: "docs/metrics.md".to_owned(), content: metrics::metrics() };
    schemas.chain([catalogue, metrics]).collect()
}

/// Where the schema of one version of an event type is kept.
pub fn schema_path(event_type: &str, version: u32) -> String {
    format!("event-schemas/{}.v{version}.json", event_type.replacen('.', "/", 1))
}

/// The JSON Schema of an event's payload; `None` for a type that has no payload type here, which a
/// test rules out for everything in the registry.
pub fn schema_of(entry: &EventType) -> Option<Value> {
    let mut schema = payload_schema(entry.name)?;
    schema.insert("$id".to_owned(), format!("{}.v{}", entry.name, entry.version).into());
    schema.insert("title".to_owned(), entry.name.into());
    schema.insert("description".to_owned(), entry.summary.into());
    if let Some(packed) = packed_part(entry.name) {
        schema.insert("x-packed".to_owned(), packed.into());
    }
    if let Some(purpose) = entry.purpose {
        mark_personal(&mut schema, purpose.as_str());
    }
    Some(schema.to_value())
}

/// What the binary part beside the payload holds, for the types that have one. Their examples wrap
/// both parts: `{"payload": …, "packed": "<base64>"}`.
pub fn packed_part(event_type: &str) -> Option<&'static str> {
    match event_type {
        "health_batch.applied" => Some(
            "format byte; outcome of each sample; outcome of each deletion; columns of the \
             recorded, corrected (before, after) and deleted rows; tombstones",
        ),
        _ => None,
    }
}

/// The payload is sealed as a whole, so every part of it counts as personal.
fn mark_personal(schema: &mut Schema, purpose: &str) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for property in properties.values_mut() {
        if let Value::Object(property) = property {
            property.insert("x-pii".to_owned(), purpose.into());
        }
    }
}

fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

fn payload_schema(event_type: &str) -> Option<Schema> {
    Some(match event_type {
        "subject.key_created" => of::<subject::KeyCreated>(),
        "subject.key_destroyed" => of::<subject::KeyDestroyed>(),
        "access.revealed" => of::<access::AccessRevealed>(),
        "user.registered" => of::<user::UserRegistered>(),
        "user.profile_updated" => of::<user::UserProfileUpdated>(),
        "user.preferences_updated" => of::<user::UserPreferencesUpdated>(),
        "user.health_privacy_changed" => of::<user::UserHealthPrivacyChanged>(),
        "user.erasure_requested" => of::<user::UserErasureRequested>(),
        "session.started" => of::<session::SessionStarted>(),
        "session.updated" => of::<session::SessionUpdated>(),
        "session.paused" => of::<session::SessionPaused>(),
        "session.resumed" => of::<session::SessionResumed>(),
        "session.ended" => of::<session::SessionEnded>(),
        "session.cancelled" => of::<session::SessionCancelled>(),
        "session.consumption_attached" => of::<session::ConsumptionAttached>(),
        "session.consumption_changed" => of::<session::ConsumptionChanged>(),
        "session.consumption_detached" => of::<session::ConsumptionDetached>(),
        "session.deleted" => of::<session::SessionDeleted>(),
        "sync_recovery.superseded" => of::<SyncSuperseded>(),
        "catalogue_product.defined" => of::<product::ProductDefined>(),
        "catalogue_product.updated" => of::<product::ProductUpdated>(),
        "catalogue_product.withdrawn" => of::<product::ProductWithdrawn>(),
        "health_batch.applied" => of::<health_batch::Facts>(),
        "projection.event_skipped" => of::<projection::EventSkipped>(),
        _ => return entity_schema(event_type),
    })
}

/// All plain entity types share their three payloads.
fn entity_schema(event_type: &str) -> Option<Schema> {
    EntityEvent::types().iter().find(|entry| entry.name == event_type)?;
    match event_type.split_once('.')?.1 {
        "created" => Some(of::<entity::Created>()),
        "updated" => Some(of::<entity::Updated>()),
        "deleted" => Some(of::<entity::Deleted>()),
        _ => None,
    }
}

/// Sorted and indented, so that a change is a small diff.
fn pretty(mut schema: Value) -> String {
    schema.sort_all_objects();
    // A tree of JSON values always has a text.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
