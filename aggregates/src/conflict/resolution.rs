//! The record of a merge, kept in the event it led to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a merge had to do without a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TwoWayReason {
    /// Nothing says what the person was looking at.
    BaseUnknown,
    /// The base lies too far back to be rebuilt.
    BaseTooOld,
}

/// What the merge compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Basis {
    /// The edit was made on the stored version; only a final value could stand against it.
    Current,
    /// Base, stored and incoming.
    ThreeWay,
    /// Stored and incoming only: every difference counts as a conflict.
    TwoWay { reason: TwoWayReason },
}

/// Whose value a field has after the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Winner {
    Incoming,
    Stored,
    /// A combination that equals neither side.
    Both,
}

/// One field that both sides changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FieldResolution {
    /// The value at the base; null where it was empty or no base is known.
    pub base: Value,
    pub stored: Value,
    pub incoming: Value,
    /// The value after the merge.
    pub result: Value,
    /// The policy that decided, by name: `LAST_WRITE_WINS`.
    pub policy: String,
    pub winner: Winner,
}

impl FieldResolution {
    /// The value that is not in the result, if one side lost.
    pub fn lost(&self) -> Option<&Value> {
        match self.winner {
            Winner::Incoming => Some(&self.stored),
            Winner::Stored => Some(&self.incoming),
            Winner::Both => None,
        }
    }
}

/// How a concurrent edit was merged, field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resolution {
    pub basis: Basis,
    /// The version the edit was made on, if known.
    pub base_version: Option<i64>,
    /// The version it met.
    pub stored_version: i64,
    /// Fields that both sides changed.
    pub fields: BTreeMap<String, FieldResolution>,
    /// Fields that only the incoming edit changed: taken.
    pub taken: Vec<String>,
    /// Fields that only others changed since the base: kept.
    pub kept: Vec<String>,
}

impl Resolution {
    /// Whether two edits met: both sides changed something. Otherwise there is nothing to explain.
    pub fn is_merge(&self) -> bool {
        !self.fields.is_empty() || !self.kept.is_empty()
    }
}
