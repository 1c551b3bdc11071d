//! The three-way merge: one pure function over plain data.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::policy::{Sides, elements, union};
use super::{Basis, FieldResolution, Policy, Resolution, TwoWayReason, Winner};
use crate::entity::{Edit, EntityContract, Field, Fields, Kind, Stamp, Writable};

/// What the person was looking at while editing.
#[derive(Clone, Debug, PartialEq)]
pub enum Base {
    /// The stored version itself: the edit is not concurrent with anything.
    Current,
    /// An earlier version, with its fields as they were.
    At { version: i64, fields: Fields },
    /// Not known, or too old to rebuild.
    Unknown { reason: TwoWayReason },
}

impl Base {
    /// The version of the base, where it is known and not the stored one.
    pub fn version(&self) -> Option<i64> {
        match self {
            Self::At { version, .. } => Some(*version),
            Self::Current | Self::Unknown { .. } => None,
        }
    }
}

/// Everything a merge looks at.
#[derive(Clone, Copy, Debug)]
pub struct Merge<'a> {
    pub contract: &'static EntityContract,
    pub base: &'a Base,
    pub stored: &'a Fields,
    /// When, by whom and in which version each stored field was last set.
    pub stamps: &'a BTreeMap<String, Stamp>,
    pub stored_version: i64,
    /// Normalised incoming fields. An explicit null clears, an absent field is untouched.
    pub incoming: &'a Fields,
    /// The fields the client says it changed. Without it, a field counts as changed if it differs
    /// from the base.
    pub changed: Option<&'a BTreeSet<String>>,
    pub edit: &'a Edit,
}

/// What is to be written, what lost, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Fields to set, with their values after the merge; null clears.
    pub set: Fields,
    /// Incoming values that are not in the result.
    pub lost: Fields,
    pub resolution: Resolution,
}

/// What happens to one field.
enum Verdict {
    /// Neither side asks for anything.
    Same,
    /// Only others changed it.
    Kept,
    /// Only the incoming edit changed it.
    Taken(Value),
    /// Both changed it to the same value; the incoming edit is the later one and moves the clock
    /// that later conflicts are decided by.
    Confirmed,
    /// Both changed it.
    Conflict { result: Value, winner: Winner },
}

/// Merges an incoming edit into the stored fields.
pub fn resolve(merge: &Merge<'_>) -> Resolved {
    let mut resolved = Resolved {
        set: Fields::new(),
        lost: Fields::new(),
        resolution: Resolution {
            basis: merge.basis(),
            base_version: merge.base.version(),
            stored_version: merge.stored_version,
            fields: BTreeMap::new(),
            taken: Vec::new(),
            kept: Vec::new(),
        },
    };
    for (name, incoming) in merge.incoming {
        let Some(field) = merge.contract.field(name) else { continue };
        let stored = merge.stored.get(name).unwrap_or(&Value::Null);
        match merge.judge(field, stored, incoming) {
            Verdict::Same => {}
            Verdict::Kept => resolved.resolution.kept.push(name.clone()),
            Verdict::Taken(value) => {
                resolved.resolution.taken.push(name.clone());
                resolved.set.insert(name.clone(), value);
            }
            Verdict::Confirmed => {
                resolved.set.insert(name.clone(), stored.clone());
            }
            Verdict::Conflict { result, winner } => {
                if winner == Winner::Stored {
                    resolved.lost.insert(name.clone(), incoming.clone());
                } else {
                    resolved.set.insert(name.clone(), result.clone());
                }
                resolved.resolution.fields.insert(
                    name.clone(),
                    FieldResolution {
                        base: merge.base_value(name).cloned().unwrap_or(Value::Null),
                        stored: stored.clone(),
                        incoming: incoming.clone(),
                        result,
                        policy: field.policy.name().to_owned(),
                        winner,
                    },
                );
            }
        }
    }
    if resolved.set.is_empty() && resolved.lost.is_empty() {
        resolved.lost = merge.without_effect();
    }
    merge.keep_the_rest(&mut resolved.resolution);
    resolved
}

impl Merge<'_> {
    fn basis(&self) -> Basis {
        match self.base {
            Base::Current => Basis::Current,
            Base::At { version, .. } if *version >= self.stored_version => Basis::Current,
            Base::At { .. } => Basis::ThreeWay,
            Base::Unknown { reason } => Basis::TwoWay { reason: *reason },
        }
    }

    /// The field's value at the base: `None` without a base, null where it was empty.
    fn base_value(&self, name: &str) -> Option<&Value> {
        match self.base {
            Base::At { fields, .. } => Some(fields.get(name).unwrap_or(&Value::Null)),
            Base::Current | Base::Unknown { .. } => None,
        }
    }

    fn judge(&self, field: &Field, stored: &Value, incoming: &Value) -> Verdict {
        let closed = match field.writable {
            Writable::Always => false,
            Writable::Once => !stored.is_null(),
            Writable::OnCreate | Writable::Never => true,
        };
        if closed {
            return Verdict::Same;
        }
        let stamp = self.stamps.get(field.name);
        let current = self.basis() == Basis::Current;
        if let Some(result) = list_delta(field, stored, incoming) {
            return if result == *stored {
                Verdict::Same
            } else if current || self.own(stamp) {
                Verdict::Taken(result)
            } else {
                Verdict::Conflict { result, winner: Winner::Both }
            };
        }
        if current {
            return take(field, stored, incoming);
        }
        let listed = self.changed.is_some_and(|changed| changed.contains(field.name));
        let untouched = !listed && self.base_value(field.name) == Some(incoming);
        if self.own(stamp) {
            // An installation has always seen its own edits: they apply in the order in which they
            // were made, whatever order they arrive in.
            let later = stamp.is_none_or(|stamp| self.edit.edited_at_ms >= stamp.edited_at_ms);
            return match (later, untouched || stored == incoming) {
                (true, _) => take(field, stored, incoming),
                (false, true) => Verdict::Same,
                (false, false) => {
                    Verdict::Conflict { result: stored.clone(), winner: Winner::Stored }
                }
            };
        }
        let theirs = match self.base {
            Base::At { version, .. } => stamp.is_some_and(|stamp| stamp.version > *version),
            Base::Current | Base::Unknown { .. } => true,
        };
        match (untouched, theirs) {
            (true, true) if stored != incoming => Verdict::Kept,
            (true, _) => Verdict::Same,
            (false, false) => take(field, stored, incoming),
            (false, true) => self.conflict(field, stored, incoming, stamp),
        }
    }

    fn conflict(
        &self,
        field: &Field,
        stored: &Value,
        incoming: &Value,
        stamp: Option<&Stamp>,
    ) -> Verdict {
        let newer = stamp.is_none_or(|stamp| self.edit.edited_at_ms > stamp.clock_ms);
        if stored == incoming {
            let timed = matches!(field.policy, Policy::LastWriteWins(_));
            let known = self.basis() == Basis::ThreeWay;
            return if timed && newer && known { Verdict::Confirmed } else { Verdict::Same };
        }
        let sides =
            Sides { base: self.base_value(field.name), stored, incoming, incoming_is_newer: newer };
        let (result, winner) = field.policy.decide(&sides);
        let combines = matches!(field.policy, Policy::MergeArrays | Policy::DeepMerge);
        if combines && winner == Winner::Stored {
            // All that came in is there already.
            return Verdict::Kept;
        }
        Verdict::Conflict { result, winner }
    }

    /// Whether the stored value is the same installation's own.
    fn own(&self, stamp: Option<&Stamp>) -> bool {
        match (self.edit.origin, stamp.and_then(|stamp| stamp.origin)) {
            (Some(incoming), Some(stored)) => incoming == stored,
            _ => false,
        }
    }

    /// The values that stand against stored ones and are those of the base. Next to an effect they
    /// are what a whole entity brings along. Where they are all there is, somebody may have typed
    /// them, and they must not vanish without a trace.
    fn without_effect(&self) -> Fields {
        let differing = self.incoming.iter().filter(|(name, incoming)| {
            let stored = self.stored.get(*name).unwrap_or(&Value::Null);
            let Some(field) = self.contract.field(name) else { return false };
            self.changed.is_none()
                && self.base_value(name) == Some(*incoming)
                && matches!(self.judge(field, stored, incoming), Verdict::Kept)
        });
        differing.map(|(name, incoming)| (name.clone(), incoming.clone())).collect()
    }

    /// Notes the fields that others changed since the base and the edit does not mention.
    fn keep_the_rest(&self, resolution: &mut Resolution) {
        let Base::At { version, .. } = self.base else { return };
        if resolution.basis != Basis::ThreeWay {
            return;
        }
        for (name, stamp) in self.stamps {
            let theirs = stamp.version > *version && !self.own(Some(stamp));
            if theirs && !self.incoming.contains_key(name) {
                resolution.kept.push(name.clone());
            }
        }
        resolution.kept.sort();
    }
}

/// An edit without opposition: taken, unless the stored value is final.
fn take(field: &Field, stored: &Value, incoming: &Value) -> Verdict {
    if stored == incoming {
        Verdict::Same
    } else if field.policy.is_final(stored) {
        Verdict::Conflict { result: stored.clone(), winner: Winner::Stored }
    } else {
        Verdict::Taken(incoming.clone())
    }
}

/// The list after `{"$add": […], "$remove": […]}`, which says what to do rather than what to have
/// and therefore needs no base.
fn list_delta(field: &Field, stored: &Value, incoming: &Value) -> Option<Value> {
    if !matches!(field.kind, Kind::TextList { .. }) {
        return None;
    }
    let delta = incoming.as_object()?;
    if !delta.contains_key("$add") && !delta.contains_key("$remove") {
        return None;
    }
    let none = Value::Null;
    let removed = elements(delta.get("$remove").unwrap_or(&none));
    let left = elements(stored).iter().filter(|element| !removed.contains(element)).cloned();
    Some(union(&Value::Array(left.collect()), delta.get("$add").unwrap_or(&none)))
}
