//! The wire's push items: parsed one by one, put in order, answered one by one.
//!
//! A request is refused as a whole only where it is no request at all. Everything wrong with an
//! item concerns that item: one unknown word must not keep a phone's other edits from arriving.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::desk::{Ack, AskError, BasePoint};
use crate::entity::time::parse_instant;
use crate::entity::{
    ChangeKind, EntityChange, EntityContract, FieldError, find_contract, is_protocol_type,
    normalise,
};

/// Items one request may carry.
pub const MAX_ITEMS: usize = 1000;
const MAX_ID: usize = 200;

/// What is repeated in the answer to an item, exactly as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Echo {
    /// A string or a number.
    pub request_id: Value,
    pub client_id: String,
    /// Canonical where it is known, else as it came.
    pub entity_type: String,
}

/// One item, ready to be decided.
#[derive(Clone, Debug, PartialEq)]
pub struct PushItem {
    pub echo: Echo,
    pub contract: &'static EntityContract,
    /// `entityId`, then `clientId` where it is another.
    pub ids: Vec<String>,
    pub change: EntityChange,
    /// The version the client says it edited.
    pub base_version: Option<i64>,
    /// The version the client says its edit made.
    pub version: Option<i64>,
    /// When the person made the edit by the phone's clock, in ms since the Unix epoch.
    pub edited_at_ms: Option<i64>,
    /// How long ago that was when the request was sent, in ms.
    pub age_ms: Option<i64>,
    /// Keys of the payload that no contract knows.
    pub unknown: usize,
}

/// An item that has no effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    pub client_id: String,
    pub error: String,
    /// Only what is wrong in the payload itself is not retryable: a phone gives such an edit up.
    pub retryable: bool,
    pub request_id: Value,
    pub error_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// An item that is done with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Successful {
    pub client_id: String,
    pub server_id: String,
    pub entity_type: String,
    pub request_id: Value,
    /// Of the entity now; absent for one that does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// `created`, `updated`, `merged`, `deleted`, `unchanged` or `superseded`.
    pub outcome: String,
}

/// The answer to a push. Every item is in exactly one list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAnswer {
    pub successful: Vec<Successful>,
    pub failed: Vec<Failed>,
    /// Conflicts a person would have to decide. There are none: every field has a policy.
    pub conflicts: Vec<Value>,
}

impl Echo {
    fn of(item: &Value) -> Self {
        let text = |key: &str| item.get(key).and_then(Value::as_str);
        let entity_type = text("entityType").unwrap_or_default();
        Self {
            request_id: item.get("requestId").cloned().unwrap_or(Value::Null),
            client_id: text("clientId").or_else(|| text("entityId")).unwrap_or_default().to_owned(),
            entity_type: find_contract(entity_type)
                .map_or(entity_type, |contract| contract.entity_type)
                .to_owned(),
        }
    }

    /// The request id as text, for receipts and metadata.
    pub fn request_text(&self) -> String {
        self.request_id.as_str().map_or_else(|| self.request_id.to_string(), str::to_owned)
    }

    /// A failure of this item.
    pub fn failed(
        self,
        error_code: &'static str,
        retryable: bool,
        error: impl Into<String>,
        details: Option<Value>,
    ) -> Failed {
        Failed {
            client_id: self.client_id,
            error: error.into(),
            retryable,
            request_id: self.request_id,
            error_code,
            details,
        }
    }

    fn refuse(self, errors: &[FieldError]) -> Box<Failed> {
        Box::new(self.invalid(errors))
    }

    /// Of a type the server is to keep later. The phone has to hold on to what was typed.
    fn not_kept_yet(self) -> Failed {
        let error = format!("{} are not kept here yet", self.entity_type);
        self.failed("SERVICE_UNAVAILABLE", true, error, None)
    }

    fn invalid(self, errors: &[FieldError]) -> Failed {
        let error = match errors {
            [only] => format!("{} {}", only.pointer.trim_start_matches('/'), only.message),
            _ => format!("{} fields are not valid", errors.len()),
        };
        let list: Vec<Value> = errors
            .iter()
            .map(|error| {
                json!({ "field": error.pointer, "code": error.code,
                "message": error.message })
            })
            .collect();
        self.failed("VALIDATION_ERROR", false, error, Some(json!({ "errors": list })))
    }
}

/// Parses one item of `changes`.
///
/// # Errors
/// The item's failure, with every field that is wrong.
pub fn parse(item: &Value) -> Result<PushItem, Box<Failed>> {
    let echo = Echo::of(item);
    let Some(object) = item.as_object() else {
        return Err(echo.refuse(&[FieldError::new("", "not_an_object", "must be an object")]));
    };
    let entity_type = object.get("entityType").and_then(Value::as_str);
    let contract = entity_type.and_then(find_contract);
    if contract.is_none() && entity_type.is_some_and(is_protocol_type) {
        return Err(Box::new(echo.not_kept_yet()));
    }
    let mut errors = Vec::new();
    if !matches!(&echo.request_id, Value::Number(_))
        && echo.request_id.as_str().is_none_or(|id| id.is_empty() || id.len() > MAX_ID)
    {
        errors.push(FieldError::new("requestId", "required", "must be a string or a number"));
    }
    if contract.is_none() {
        errors.push(FieldError::new("entityType", "unknown_value", "is not a synced type"));
    }
    let kind = kind(object);
    if kind.is_none() {
        let message = "must be CREATE, UPDATE or DELETE";
        errors.push(FieldError::new("changeType", "unknown_value", message));
    }
    let ids = ids(object, &mut errors);
    let (Some(contract), Some(kind), true) = (contract, kind, errors.is_empty()) else {
        return Err(echo.refuse(&errors));
    };
    let (fields, unknown) = match (kind, object.get("data")) {
        (ChangeKind::Delete, _) => (crate::entity::Fields::new(), 0),
        (_, Some(Value::Object(data))) => match normalise(contract, data) {
            Ok(normalised) => (normalised.fields, normalised.unknown),
            Err(errors) => {
                let errors: Vec<_> = errors.into_iter().map(in_data).collect();
                return Err(echo.refuse(&errors));
            }
        },
        _ => {
            let error = FieldError::new("data", "not_an_object", "must be an object");
            return Err(echo.refuse(&[error]));
        }
    };
    let number = |key: &str| object.get(key).and_then(Value::as_i64);
    Ok(PushItem {
        contract,
        ids,
        change: EntityChange { kind, fields, changed: changed(contract, object) },
        base_version: number("baseVersion").filter(|version| *version >= 0),
        version: number("version").filter(|version| *version > 0),
        edited_at_ms: object.get("timestamp").and_then(Value::as_str).and_then(parse_instant),
        age_ms: number("ageMs").filter(|age| *age >= 0),
        unknown,
        echo,
    })
}

fn kind(object: &Map<String, Value>) -> Option<ChangeKind> {
    let word = object.get("changeType")?.as_str()?;
    match word.to_ascii_uppercase().as_str() {
        "CREATE" => Some(ChangeKind::Create),
        "UPDATE" => Some(ChangeKind::Update),
        "DELETE" => Some(ChangeKind::Delete),
        _ => None,
    }
}

fn ids(object: &Map<String, Value>, errors: &mut Vec<FieldError>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for (key, required) in [("entityId", true), ("clientId", false)] {
        match object.get(key) {
            Some(Value::String(id)) if !id.is_empty() && id.len() <= MAX_ID => {
                if !ids.contains(id) {
                    ids.push(id.clone());
                }
            }
            None | Some(Value::Null) if !required => {}
            _ => errors.push(FieldError::new(key, "required", "must be a string")),
        }
    }
    ids
}

/// The fields the client says it changed, by their canonical names.
fn changed(
    contract: &'static EntityContract,
    object: &Map<String, Value>,
) -> Option<BTreeSet<String>> {
    let listed = object.get("changedFields")?.as_array()?;
    let names = listed.iter().filter_map(Value::as_str);
    Some(
        names
            .filter_map(|name| contract.field_spelled(name))
            .map(|field| field.name.to_owned())
            .collect(),
    )
}

impl PushItem {
    /// What makes this item the same item when it is sent again. Bookkeeping is no part of it: a
    /// version or a time that was written anew does not make another edit.
    pub fn content(&self) -> Vec<u8> {
        let content = json!([
            self.contract.entity_type,
            self.ids,
            self.change.kind,
            self.change.fields,
            self.change.changed
        ]);
        content.to_string().into_bytes()
    }

    /// When the edit was made, in ms since the Unix epoch: never after `now_ms`. `ahead_ms` is what
    /// [`ahead`] says of the push. A slow clock makes an edit older, which may cost it a conflict
    /// and never costs another edit one.
    pub fn edited_at(&self, now_ms: i64, ahead_ms: i64) -> i64 {
        let by_age = self.age_ms.map(|age| now_ms.saturating_sub(age));
        let by_clock = self.edited_at_ms.map(|at| at.saturating_sub(ahead_ms));
        by_age.or(by_clock).unwrap_or(now_ms).min(now_ms)
    }

    /// What the person was looking at, given what the installation had acknowledged by then.
    pub fn base(&self, acks: Vec<Ack>) -> BasePoint {
        match self.base_version {
            Some(version) => BasePoint::Version(version),
            None => BasePoint::Seen { acks, below: self.version },
        }
    }
}

/// How far the phone's clock is ahead, in ms, as far as its push shows: by as much as the latest
/// edit lies after now. Without it, what the phone acknowledged after an edit would count as seen
/// while editing.
pub fn ahead(items: &[&PushItem], now_ms: i64) -> i64 {
    let latest = items.iter().filter_map(|item| item.edited_at_ms).max();
    latest.map_or(0, |latest| latest.saturating_sub(now_ms).max(0))
}

/// The order in which items are decided: creations first, parents before children; deletions last,
/// children before parents; everything else as it came.
pub fn order(items: &[&PushItem]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|index| {
        let item = items[*index];
        let rank = i16::from(item.contract.sync_order);
        match item.change.kind {
            ChangeKind::Create => (0, rank),
            ChangeKind::Update => (1, 0),
            ChangeKind::Delete => (2, -rank),
        }
    });
    order
}

/// The answer to an item that was refused.
pub fn refused(item: PushItem, error: &AskError) -> Failed {
    let PushItem { echo, contract, ids, change, .. } = item;
    match error {
        AskError::Invalid(errors) => {
            let errors: Vec<_> = errors.iter().cloned().map(in_data).collect();
            echo.invalid(&errors)
        }
        AskError::Unknown => {
            let hint = format!("send {} with all required fields", kind_word(ChangeKind::Create));
            let details = json!({ "orphanUpdate": { "entityType": contract.entity_type,
                "entityId": ids.first(), "clientId": echo.client_id, "hint": hint } });
            let error = format!("{} of an entity that is not known yet", kind_word(change.kind));
            echo.failed("NOT_FOUND", true, error, Some(details))
        }
        AskError::MissingReference { field, target, value } => {
            let details = json!({ "missingReference": { "entityType": target, "field": field,
                "value": value } });
            let error = format!("{field} refers to something that is not known yet");
            echo.failed("VALIDATION_ERROR", true, error, Some(details))
        }
        AskError::Session(error) => echo.failed(error.code(), false, error.to_string(), None),
    }
}

/// The same error, seen from the item.
fn in_data(error: FieldError) -> FieldError {
    FieldError { pointer: format!("/data{}", error.pointer), ..error }
}

fn kind_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Create => "CREATE",
        ChangeKind::Update => "UPDATE",
        ChangeKind::Delete => "DELETE",
    }
}
