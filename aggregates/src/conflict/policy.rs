//! The declared ways to decide a field that both sides changed.

use std::cmp::Ordering;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde_json::Value;

use super::Winner;

/// What an incoming or newer null means in a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// Null is a value like any other: it clears the field.
    Count,
    /// Null never beats a value that is there.
    Lose,
}

/// How a field that both sides changed is decided. Data, not code: the whole table of an entity
/// type can be read in its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The incoming value.
    LocalWins(Nulls),
    /// The stored value.
    ServerWins,
    /// Computed by the server; input is ignored everywhere.
    ServerDerived,
    /// The later edit by corrected edit time; on a tie the stored value.
    LastWriteWins(Nulls),
    /// Union of both lists as sets: stored elements first, then the new ones.
    MergeArrays,
    /// The value later in `order`. A stored value in `terminal` never changes again, and an
    /// incoming one beats every other.
    Monotonic { order: &'static [&'static str], terminal: &'static [&'static str] },
    /// The larger number.
    MaxValue,
    /// The smaller number.
    MinValue,
    /// The incoming value, or the stored one where the incoming is null.
    ServerIfLocalNull,
    /// The stored value, or the incoming one where the stored is null.
    LocalIfServerNull,
    /// Key by key; a key that both sides changed takes the incoming value.
    DeepMerge,
}

/// What a policy looks at.
pub(super) struct Sides<'a> {
    /// The value at the base, or `None` where no base is known.
    pub base: Option<&'a Value>,
    pub stored: &'a Value,
    pub incoming: &'a Value,
    /// Whether the incoming edit is strictly later than the stored one.
    pub incoming_is_newer: bool,
}

impl Policy {
    /// The stable name, as recorded in resolutions and shown to clients.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalWins(_) => "LOCAL_WINS",
            Self::ServerWins => "SERVER_WINS",
            Self::ServerDerived => "SERVER_DERIVED",
            Self::LastWriteWins(_) => "LAST_WRITE_WINS",
            Self::MergeArrays => "MERGE_ARRAYS",
            Self::Monotonic { .. } => "MONOTONIC",
            Self::MaxValue => "MAX_VALUE",
            Self::MinValue => "MIN_VALUE",
            Self::ServerIfLocalNull => "SERVER_IF_LOCAL_NULL",
            Self::LocalIfServerNull => "LOCAL_IF_SERVER_NULL",
            Self::DeepMerge => "DEEP_MERGE",
        }
    }

    /// Whether a stored value may never be replaced, not even by an edit that saw it.
    pub fn is_final(self, stored: &Value) -> bool {
        match self {
            Self::Monotonic { terminal, .. } => is_one_of(terminal, stored),
            _ => false,
        }
    }

    /// The value after a conflict, and whose it is.
    pub(super) fn decide(self, sides: &Sides<'_>) -> (Value, Winner) {
        let Sides { stored, incoming, .. } = *sides;
        let pick = |incoming_wins: bool| {
            if incoming_wins {
                (incoming.clone(), Winner::Incoming)
            } else {
                (stored.clone(), Winner::Stored)
            }
        };
        match self {
            Self::ServerWins | Self::ServerDerived => pick(false),
            Self::LocalWins(Nulls::Count) => pick(true),
            Self::LocalWins(Nulls::Lose) | Self::ServerIfLocalNull => pick(!incoming.is_null()),
            Self::LocalIfServerNull => pick(stored.is_null()),
            Self::LastWriteWins(Nulls::Count) => pick(sides.incoming_is_newer),
            Self::LastWriteWins(Nulls::Lose) => {
                pick(stored.is_null() || (sides.incoming_is_newer && !incoming.is_null()))
            }
            Self::MergeArrays => attribute(union(stored, incoming), sides),
            Self::DeepMerge => attribute(merge_keys(sides), sides),
            Self::Monotonic { order, terminal } => {
                if is_one_of(terminal, stored) {
                    return pick(false);
                }
                if is_one_of(terminal, incoming) {
                    return pick(true);
                }
                pick(rank(order, incoming) > rank(order, stored))
            }
            Self::MaxValue => pick(beats(incoming, stored, Ordering::Greater)),
            Self::MinValue => pick(beats(incoming, stored, Ordering::Less)),
        }
    }
}

/// A merged value belongs to the side it equals, else to both.
fn attribute(result: Value, sides: &Sides<'_>) -> (Value, Winner) {
    let winner = if result == *sides.stored {
        Winner::Stored
    } else if result == *sides.incoming {
        Winner::Incoming
    } else {
        Winner::Both
    };
    (result, winner)
}

fn is_one_of(values: &[&str], value: &Value) -> bool {
    value.as_str().is_some_and(|text| values.contains(&text))
}

/// Place in the declared order; a value that is not in it loses to every one that is.
fn rank(order: &[&str], value: &Value) -> Option<usize> {
    value.as_str().and_then(|text| order.iter().position(|entry| *entry == text))
}

/// Set union in a canonical order. Null counts as empty, duplicates are dropped.
pub(super) fn union(stored: &Value, incoming: &Value) -> Value {
    let mut result: Vec<Value> = Vec::new();
    for element in elements(stored).iter().chain(elements(incoming)) {
        if !result.contains(element) {
            result.push(element.clone());
        }
    }
    Value::Array(result)
}

/// The elements of a list; none for null and everything else.
pub(super) fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Keys of both objects; a key that only one side changed since the base keeps that side's value.
fn merge_keys(sides: &Sides<'_>) -> Value {
    let mut result = sides.stored.as_object().cloned().unwrap_or_default();
    let base = sides.base.and_then(Value::as_object);
    for (key, value) in sides.incoming.as_object().into_iter().flatten() {
        let untouched = base.and_then(|base| base.get(key)) == Some(value);
        if !untouched {
            result.insert(key.clone(), value.clone());
        }
    }
    Value::Object(result)
}

/// Whether the incoming number lies on the `wanted` side of the stored one. Null loses to a number.
fn beats(incoming: &Value, stored: &Value, wanted: Ordering) -> bool {
    match (number(incoming), number(stored)) {
        (Some(incoming), Some(stored)) => incoming.cmp(&stored) == wanted,
        (incoming, _) => incoming.is_some(),
    }
}

fn number(value: &Value) -> Option<Decimal> {
    match value {
        Value::String(text) => Decimal::from_str(text).ok(),
        Value::Number(number) => {
            let text = number.to_string();
            Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text)).ok()
        }
        _ => None,
    }
}
