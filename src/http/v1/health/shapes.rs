//! How the API's document describes what read models say of their freshness. The types themselves
//! belong to the pure core, which knows nothing of HTTP.

use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The freshness of one item.
pub enum FreshnessShape {}

/// The summary of a whole answer.
pub enum SummaryShape {}

/// Whether all input was looked at.
pub enum QualityShape {}

fn of(kind: Type) -> Object {
    ObjectBuilder::new().schema_type(kind).build()
}

fn words(words: &[&'static str]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).build()
}

impl PartialSchema for FreshnessShape {
    fn schema() -> RefOr<Schema> {
        let computed = SchemaType::Array(vec![Type::String, Type::Null]);
        let watermark = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A decimal number: what the row was computed from"));
        ObjectBuilder::new()
            .property("status", words(&["READY", "COMPUTING", "STALE", "FAILED", "NO_DATA"]))
            .property("computedAtIso", ObjectBuilder::new().schema_type(computed))
            .property("sourceWatermark", watermark)
            .property("computeVersion", of(Type::Integer))
            .required("status")
            .required("computedAtIso")
            .required("sourceWatermark")
            .required("computeVersion")
            .into()
    }
}

impl ToSchema for FreshnessShape {
    fn name() -> std::borrow::Cow<'static, str> {
        "Freshness".into()
    }
}

impl PartialSchema for SummaryShape {
    fn schema() -> RefOr<Schema> {
        let states = ["READY", "COMPUTING", "STALE", "NO_DATA", "PARTIAL", "EMPTY", "FAILED"];
        let counted = ["ready", "computing", "noData", "failed", "stale"];
        let counts = counted.into_iter().fold(ObjectBuilder::new(), |counts, name| {
            counts.property(name, of(Type::Integer)).required(name)
        });
        ObjectBuilder::new()
            .property("state", words(&states))
            .property("totalItems", of(Type::Integer))
            .property("statusCounts", counts)
            .required("state")
            .required("totalItems")
            .required("statusCounts")
            .into()
    }
}

impl ToSchema for SummaryShape {
    fn name() -> std::borrow::Cow<'static, str> {
        "Summary".into()
    }
}

impl PartialSchema for QualityShape {
    fn schema() -> RefOr<Schema> {
        words(&["FULL", "PARTIAL_TRUNCATED"]).into()
    }
}

impl ToSchema for QualityShape {
    fn name() -> std::borrow::Cow<'static, str> {
        "DataQuality".into()
    }
}
