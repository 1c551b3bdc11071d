//! The one decision every synced change goes through, whether pushed or sent by REST.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::contract::{EntityContract, FieldDefault, Writable};
use super::event::{Created, Deleted, EntityEvent, EntityFact, Updated};
use super::fields::FieldError;
use super::state::{Context, EntityState, Fields};
use crate::conflict::{Base, Merge, Resolution, Resolved, resolve};

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeKind {
    Create,
    Update,
    Delete,
}

/// One change, its fields already normalised and its references translated.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityChange {
    pub kind: ChangeKind,
    /// Empty for a delete.
    pub fields: Fields,
    /// The fields the client says it changed, if it says so. A listed field counts as changed even
    /// where it has its old value again.
    pub changed: Option<BTreeSet<String>>,
}

impl EntityChange {
    /// A change that does not say which of its fields changed.
    pub fn new(kind: ChangeKind, fields: Fields) -> Self {
        Self { kind, fields, changed: None }
    }
}

/// Why a change was accepted and yet had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SupersededReason {
    /// The entity is deleted, and a delete is final.
    Deleted,
    /// Every field it changed was decided for the other side.
    LostMerge,
}

/// What a change without effect was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SupersededChange {
    /// To create the entity.
    Create,
    /// To edit it.
    Update,
}

/// A payload that lost as a whole. It is to be kept where the person can get it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Superseded {
    pub change: SupersededChange,
    /// The version the change was made on, if known.
    pub base_version: Option<i64>,
    /// The version it met.
    pub stored_version: i64,
    pub reason: SupersededReason,
    /// The values that have no effect.
    pub fields: Fields,
    pub resolution: Option<Resolution>,
}

impl Superseded {
    fn of(
        change: &EntityChange,
        base: &Base,
        state: &EntityState,
        reason: SupersededReason,
        fields: Fields,
        resolution: Option<Resolution>,
    ) -> Self {
        let base_version = match base {
            Base::Current => Some(state.version),
            Base::At { .. } | Base::Unknown { .. } => base.version(),
        };
        let change = match change.kind {
            ChangeKind::Create => SupersededChange::Create,
            // A deletion is never superseded.
            ChangeKind::Update | ChangeKind::Delete => SupersededChange::Update,
        };
        Self { change, base_version, stored_version: state.version, reason, fields, resolution }
    }
}

/// What a change leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeOutcome<E> {
    /// One event to append.
    Accepted(E),
    /// One event to append; it carries the resolution of a conflict.
    Merged(E),
    /// Nothing to append: the entity is already as asked.
    Unchanged,
    /// No event on the entity; the payload goes to the person's recovery stream.
    Superseded(Superseded),
}

impl<E> ChangeOutcome<E> {
    /// The event to append, if any.
    pub fn event(&self) -> Option<&E> {
        match self {
            Self::Accepted(event) | Self::Merged(event) => Some(event),
            Self::Unchanged | Self::Superseded(_) => None,
        }
    }

    /// The same outcome with another event type.
    pub fn map<F>(self, into: impl FnOnce(E) -> F) -> ChangeOutcome<F> {
        match self {
            Self::Accepted(event) => ChangeOutcome::Accepted(into(event)),
            Self::Merged(event) => ChangeOutcome::Merged(into(event)),
            Self::Unchanged => ChangeOutcome::Unchanged,
            Self::Superseded(superseded) => ChangeOutcome::Superseded(superseded),
        }
    }
}

/// Why a change cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The payload itself is wrong; sending it again will not help.
    #[error("{} field(s) are not valid", .0.len())]
    Invalid(Vec<FieldError>),
    /// An update of an entity nobody has seen, with too little to create it from. Its creation may
    /// still be on the way.
    #[error("the entity is not known yet")]
    Orphan,
}

/// Decides a change of a plain entity.
///
/// # Errors
/// [`Refusal`] where the change can have no effect at all; everything else is an outcome.
pub fn decide_change(
    contract: &'static EntityContract,
    state: &EntityState,
    change: &EntityChange,
    base: &Base,
    ctx: &Context,
) -> Result<ChangeOutcome<EntityEvent>, Refusal> {
    let event = |fact| EntityEvent { contract, fact };
    let edit = ctx.edit();
    Ok(match weigh(contract, state, change, base, ctx)? {
        Weighed::Create(fields) => {
            ChangeOutcome::Accepted(event(EntityFact::Created(Created { fields, edit })))
        }
        Weighed::Delete => ChangeOutcome::Accepted(event(EntityFact::Deleted(Deleted { edit }))),
        Weighed::Set { set, resolution } => {
            let merged = resolution.is_some();
            let event = event(EntityFact::Updated(Updated { set, resolution, edit }));
            if merged { ChangeOutcome::Merged(event) } else { ChangeOutcome::Accepted(event) }
        }
        Weighed::Unchanged => ChangeOutcome::Unchanged,
        Weighed::Superseded(superseded) => ChangeOutcome::Superseded(superseded),
    })
}

/// What a change comes to, before it is given an event's name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Weighed {
    Create(Fields),
    Set { set: Fields, resolution: Option<Resolution> },
    Delete,
    Unchanged,
    Superseded(Superseded),
}

/// The rules that all entity types share: delete is final and wins without a version check, an
/// update may create, a create may update, and concurrent edits merge field by field.
pub(crate) fn weigh(
    contract: &'static EntityContract,
    state: &EntityState,
    change: &EntityChange,
    base: &Base,
    ctx: &Context,
) -> Result<Weighed, Refusal> {
    if change.kind == ChangeKind::Delete {
        return Ok(if state.is_live() { Weighed::Delete } else { Weighed::Unchanged });
    }
    if !state.exists() {
        return create(contract, change);
    }
    if state.deleted {
        return Ok(after_delete(contract, state, change, base));
    }
    let edit = ctx.edit();
    let Resolved { set, lost, resolution } = resolve(&Merge {
        contract,
        base,
        stored: &state.fields,
        stamps: &state.stamps,
        stored_version: state.version,
        incoming: &change.fields,
        changed: change.changed.as_ref(),
        edit: &edit,
    });
    let resolution = resolution.is_merge().then_some(resolution);
    Ok(if !set.is_empty() {
        Weighed::Set { set, resolution }
    } else if lost.is_empty() {
        Weighed::Unchanged
    } else {
        let reason = SupersededReason::LostMerge;
        Weighed::Superseded(Superseded::of(change, base, state, reason, lost, resolution))
    })
}

/// Creates from a CREATE, or from an UPDATE that has everything a creation needs.
fn create(contract: &'static EntityContract, change: &EntityChange) -> Result<Weighed, Refusal> {
    let missing = missing_fields(contract, &change.fields);
    if !missing.is_empty() {
        return Err(match change.kind {
            ChangeKind::Update => Refusal::Orphan,
            ChangeKind::Create | ChangeKind::Delete => Refusal::Invalid(missing),
        });
    }
    let mut fields = Fields::new();
    for field in contract.fields {
        if field.writable == Writable::Never {
            continue;
        }
        let given = change.fields.get(field.name).filter(|value| !value.is_null()).cloned();
        let value = given.or_else(|| match field.default {
            FieldDefault::Empty => None,
            FieldDefault::Bool(value) => Some(value.into()),
            FieldDefault::Text(value) => Some(value.into()),
        });
        if let Some(value) = value {
            fields.insert(field.name.to_owned(), super::value::settled(field, value));
        }
    }
    Ok(Weighed::Create(fields))
}

/// The required fields a creation from these would lack.
pub fn missing_fields(contract: &EntityContract, fields: &Fields) -> Vec<FieldError> {
    contract
        .fields
        .iter()
        .filter(|field| field.required_on_create)
        .filter(|field| fields.get(field.name).is_none_or(serde_json::Value::is_null))
        .map(|field| FieldError::new(field.name, "required", "is required"))
        .collect()
}

/// A late edit of a deleted entity has no effect, and is kept unless it says nothing new.
fn after_delete(
    contract: &EntityContract,
    state: &EntityState,
    change: &EntityChange,
    base: &Base,
) -> Weighed {
    let lost: Fields = change
        .fields
        .iter()
        .filter(|(name, _)| {
            contract
                .field(name)
                .is_some_and(|field| matches!(field.writable, Writable::Always | Writable::Once))
        })
        .filter(|(name, value)| {
            state.fields.get(*name).unwrap_or(&serde_json::Value::Null) != *value
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if lost.is_empty() {
        return Weighed::Unchanged;
    }
    let reason = SupersededReason::Deleted;
    Weighed::Superseded(Superseded::of(change, base, state, reason, lost, None))
}
