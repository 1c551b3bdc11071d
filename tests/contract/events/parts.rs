//! What several events are made of.

use aggregates::Purpose;
use aggregates::conflict::{Basis, FieldResolution, Resolution, TwoWayReason, Winner};
use aggregates::entity::{Edit, Field, Fields, Kind};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use uuid::Uuid;

pub fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

pub fn purpose() -> impl Strategy<Value = Purpose> {
    select(Purpose::ALL.as_slice())
}

pub fn edit() -> impl Strategy<Value = Edit> {
    (any::<i64>(), any::<i64>(), prop::option::of(id()))
        .prop_map(|(at_ms, edited_at_ms, origin)| Edit { at_ms, edited_at_ms, origin })
}

/// Any subset of the declared fields, each with a value of its kind or, in a change, null.
pub fn fields(declared: &'static [Field], nulls: bool) -> impl Strategy<Value = Fields> {
    prop::collection::btree_map(0..declared.len(), any::<u64>(), 0..=declared.len()).prop_map(
        move |chosen| {
            let value = |(index, seed): (usize, u64)| {
                let field = &declared[index];
                let clear = nulls && field.nullable && seed.is_multiple_of(5);
                let value = if clear { Value::Null } else { value_of(&field.kind, seed) };
                (field.name.to_owned(), value)
            };
            chosen.into_iter().map(value).collect()
        },
    )
}

fn value_of(kind: &Kind, seed: u64) -> Value {
    let small = seed % 1000;
    let id = || Uuid::from_u64_pair(seed, !seed).to_string();
    match *kind {
        Kind::Text { min, .. } => "x\"é\\ ".repeat(min.max(1) + (small as usize % 3)).into(),
        Kind::Int { min, .. } => min.saturating_add(small as i64).into(),
        Kind::Number { .. } => json!(small as f64 / 7.0),
        Kind::Decimal { scale, .. } => format!("{small}.{}", "5".repeat(scale as usize)).into(),
        Kind::Bool => seed.is_multiple_of(2).into(),
        Kind::Instant => "2026-05-04T10:20:30.000Z".into(),
        Kind::Date => "2026-05-04".into(),
        Kind::Enum(words) | Kind::EnumAnyCase(words) => words[seed as usize % words.len()].into(),
        Kind::Uuid | Kind::Ref { .. } => id().into(),
        Kind::Object => json!({"note": id(), "count": small}),
        Kind::TextList { .. } => json!([id(), "calm"]),
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ]
}

/// Keys and values nobody declared: what a map in a payload may hold at most.
pub fn free_fields() -> impl Strategy<Value = Fields> {
    prop::collection::btree_map("[a-zA-Z]{1,12}", scalar(), 0..4)
}

pub fn resolution() -> impl Strategy<Value = Resolution> {
    let basis = select(vec![
        Basis::Current,
        Basis::ThreeWay,
        Basis::TwoWay { reason: TwoWayReason::BaseUnknown },
        Basis::TwoWay { reason: TwoWayReason::BaseTooOld },
    ]);
    let names = || prop::collection::vec("[a-z]{1,9}", 0..3);
    let fields = prop::collection::btree_map("[a-z]{1,9}", field_resolution(), 0..3);
    (basis, any::<Option<i64>>(), any::<i64>(), fields, names(), names()).prop_map(
        |(basis, base_version, stored_version, fields, taken, kept)| Resolution {
            basis,
            base_version,
            stored_version,
            fields,
            taken,
            kept,
        },
    )
}

fn field_resolution() -> impl Strategy<Value = FieldResolution> {
    let winner = select(vec![Winner::Incoming, Winner::Stored, Winner::Both]);
    (scalar(), scalar(), scalar(), scalar(), "[A-Z_]{1,20}", winner).prop_map(
        |(base, stored, incoming, result, policy, winner)| FieldResolution {
            base,
            stored,
            incoming,
            result,
            policy,
            winner,
        },
    )
}

pub fn maybe_resolution() -> impl Strategy<Value = Option<Resolution>> {
    prop::option::of(resolution())
}
