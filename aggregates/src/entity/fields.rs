//! From a client's JSON to normalised fields.
//!
//! Phones send back whole entities with bookkeeping of their own. That is not an error: what is
//! not the client's to set is ignored, and only a declared field with an impossible value is.

use serde::Serialize;
use serde_json::{Map, Value};

use super::contract::{EntityContract, Field, Writable};
use super::state::Fields;
use super::value::normalise_value;

/// Keys the server owns or clients keep for themselves; ignored without a count.
const IGNORED: [&str; 13] = [
    "id",
    "userId",
    "serverId",
    "createdAt",
    "updatedAt",
    "version",
    "syncVersion",
    "syncStatus",
    "clientId",
    "data",
    "lastKnownUpdatedAt",
    "deletedAt",
    "autoEnded",
];

/// One thing that is wrong with a payload. Never quotes the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer into the payload: `/notes`.
    pub pointer: String,
    /// A stable code: `required`, `too_long`, `out_of_range`.
    pub code: &'static str,
    /// One sentence for people, without the subject: `is required`.
    pub message: String,
}

impl FieldError {
    /// An error at a top-level key.
    pub fn new(key: &str, code: &'static str, message: impl Into<String>) -> Self {
        let key = key.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("/{key}"), code, message: message.into() }
    }
}

/// A payload in canonical form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalised {
    /// Canonical names, normalised values; null clears.
    pub fields: Fields,
    /// How many keys no contract knows, for a metric.
    pub unknown: usize,
}

/// Brings a payload into canonical form. Where a key comes in both spellings the canonical one
/// counts. Required fields are not checked here, since an update need not have them.
///
/// # Errors
/// Every field whose value its declared kind does not admit.
pub fn normalise(
    contract: &EntityContract,
    payload: &Map<String, Value>,
) -> Result<Normalised, Vec<FieldError>> {
    let mut normalised = Normalised::default();
    let mut errors = Vec::new();
    for (key, value) in payload {
        let Some(field) = contract.field_spelled(key) else {
            if !key.starts_with('_') && !IGNORED.contains(&key.as_str()) {
                normalised.unknown += 1;
            }
            continue;
        };
        let respelled = key != field.name && payload.contains_key(field.name);
        if field.writable == Writable::Never || respelled {
            continue;
        }
        if value.is_null() {
            if field.nullable {
                normalised.fields.insert(field.name.to_owned(), Value::Null);
            } else if field.writable == Writable::Always {
                errors.push(FieldError::new(key, "not_nullable", "must not be null"));
            }
            continue;
        }
        match normalise_value(&field.kind, value) {
            Ok(value) => {
                normalised.fields.insert(field.name.to_owned(), value);
            }
            Err(problem) => errors.push(FieldError::new(key, problem.code, problem.message)),
        }
    }
    if errors.is_empty() { Ok(normalised) } else { Err(errors) }
}

/// Checks a patch against a table of fields where every unknown key is an error, for settings that
/// must not be believed to be set when they are not. `parent` is the pointer of the object that
/// holds the patch, empty for the root.
pub fn normalise_strict(
    table: &[Field],
    payload: &Map<String, Value>,
    parent: &str,
    errors: &mut Vec<FieldError>,
) -> Fields {
    let mut fields = Fields::new();
    for (key, value) in payload {
        let mut fail = |code, message: String| {
            let mut error = FieldError::new(key, code, message);
            error.pointer.insert_str(0, parent);
            errors.push(error);
        };
        let Some(field) = table.iter().find(|field| field.name == key) else {
            fail("unknown_key", "is not a known setting".to_owned());
            continue;
        };
        if value.is_null() {
            if field.nullable {
                fields.insert(key.clone(), Value::Null);
            } else {
                fail("not_nullable", "must not be null".to_owned());
            }
            continue;
        }
        match normalise_value(&field.kind, value) {
            Ok(value) => {
                fields.insert(key.clone(), value);
            }
            Err(problem) => fail(problem.code, problem.message),
        }
    }
    fields
}
