//! One value against its declared kind.

use std::str::FromStr;

use chrono::NaiveDate;
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::Value;
use uuid::Uuid;

use super::contract::{Field, Kind};
use super::time::{format_instant, parse_instant};

/// Integers up to here are exact in every client.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// A merge may keep an object four times in one event, whose payload is limited.
const MAX_OBJECT_BYTES: usize = 64 * 1024;

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Problem {
    pub code: &'static str,
    pub message: String,
}

fn problem<T>(code: &'static str, message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { code, message: message.into() })
}

/// The value in the form it is stored in, or what is wrong with it.
pub(super) fn normalise_value(kind: &Kind, value: &Value) -> Result<Value, Problem> {
    match *kind {
        Kind::Text { min, max } => text(value, min, max).map(Value::from),
        Kind::Int { min, max } => int(value, min, max),
        Kind::Number { min, max } => number(value, min, max),
        Kind::Decimal { precision, scale, signed } => decimal(value, precision, scale, signed),
        Kind::Bool => boolean(value),
        Kind::Instant => match value.as_str().and_then(parse_instant) {
            Some(ms) => Ok(format_instant(ms).into()),
            None => problem("invalid_instant", "must be an RFC 3339 date and time"),
        },
        Kind::Date => match value.as_str().and_then(date) {
            Some(date) => Ok(date.into()),
            None => problem("invalid_date", "must be a date as YYYY-MM-DD"),
        },
        Kind::Enum(words) => word(value, words, value.as_str()),
        Kind::EnumAnyCase(words) => {
            let upper = value.as_str().map(str::to_ascii_uppercase);
            word(value, words, upper.as_deref())
        }
        Kind::Uuid | Kind::Ref { strict: true, .. } => match uuid(value) {
            Some(id) => Ok(id.into()),
            None => problem("invalid_uuid", "must be a UUID"),
        },
        Kind::Ref { strict: false, .. } => match uuid(value) {
            Some(id) => Ok(id.into()),
            None => text(value, 1, 100).map(Value::from),
        },
        Kind::Object if !value.is_object() => problem("not_an_object", "must be an object"),
        Kind::Object if has_nul(value) => nul(),
        Kind::Object if value.to_string().len() > MAX_OBJECT_BYTES => {
            problem("too_long", format!("must have at most {MAX_OBJECT_BYTES} bytes as JSON"))
        }
        Kind::Object => Ok(value.clone()),
        Kind::TextList { max_items, max_len } => list_or_delta(value, max_items, max_len),
    }
}

/// A list a creation was given as a delta is the list of what it adds.
pub(super) fn settled(field: &Field, value: Value) -> Value {
    match (field.kind, value) {
        (Kind::TextList { .. }, Value::Object(mut delta)) => {
            delta.remove("$add").unwrap_or_else(|| Value::Array(Vec::new()))
        }
        (_, value) => value,
    }
}

fn text(value: &Value, min: usize, max: usize) -> Result<String, Problem> {
    let Some(text) = value.as_str() else { return problem("not_a_string", "must be a string") };
    let length = text.chars().count();
    if length > max {
        problem("too_long", format!("must have at most {max} characters"))
    } else if length < min {
        problem("too_short", format!("must have at least {min} character(s)"))
    } else if text.contains('\0') {
        nul()
    } else {
        Ok(text.to_owned())
    }
}

fn nul<T>() -> Result<T, Problem> {
    problem("invalid_character", "must not contain the NUL character")
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(entries) => {
            entries.iter().any(|(key, value)| key.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn int(value: &Value, min: i64, max: i64) -> Result<Value, Problem> {
    // 5.0 is the integer 5: JavaScript does not tell them apart.
    let whole = value.as_i64().or_else(|| {
        let float = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and exact by the condition")]
        let exact = float as i64;
        (float.fract() == 0.0 && float.abs() <= MAX_EXACT).then_some(exact)
    });
    match whole {
        Some(whole) if (min..=max).contains(&whole) => Ok(whole.into()),
        Some(_) => problem("out_of_range", range(min, max, i64::MIN, i64::MAX)),
        None => problem("not_an_integer", "must be a whole number"),
    }
}

fn number(value: &Value, min: f64, max: f64) -> Result<Value, Problem> {
    let Some(number) = value.as_f64().filter(|number| number.is_finite()) else {
        return problem("not_a_number", "must be a number");
    };
    if !(min..=max).contains(&number) {
        return problem("out_of_range", range(min, max, f64::MIN, f64::MAX));
    }
    // One spelling per value, so that equal values are equal JSON.
    Ok(int(value, i64::MIN, i64::MAX).unwrap_or_else(|_| number.into()))
}

fn range<T: Copy + PartialEq + std::fmt::Display>(min: T, max: T, lowest: T, highest: T) -> String {
    match (min == lowest, max == highest) {
        (false, true) => format!("must be at least {min}"),
        (true, false) => format!("must be at most {max}"),
        _ => format!("must be between {min} and {max}"),
    }
}

/// Rounds half away from zero to `scale` places and writes exactly that many.
fn decimal(value: &Value, precision: u32, scale: u32, signed: bool) -> Result<Value, Problem> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return problem("not_a_decimal", "must be a decimal number as a string"),
    };
    let parsed = Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text));
    let Ok(parsed) = parsed else {
        return problem("not_a_decimal", "must be a decimal number as a string");
    };
    let rounded = parsed.round_dp_with_strategy(scale, RoundingStrategy::MidpointAwayFromZero);
    if rounded.is_sign_negative() && !rounded.is_zero() && !signed {
        return problem("out_of_range", "must not be negative");
    }
    let whole_digits = precision.saturating_sub(scale);
    if rounded.abs() >= Decimal::from(10_u64.saturating_pow(whole_digits)) {
        return problem(
            "out_of_range",
            format!("must have at most {whole_digits} digits before the point"),
        );
    }
    let rounded = if rounded.is_zero() { Decimal::ZERO } else { rounded };
    Ok(format!("{rounded:.places$}", places = scale as usize).into())
}

/// SQLite has no booleans: phones may send 0 and 1.
fn boolean(value: &Value) -> Result<Value, Problem> {
    match value.as_bool().or_else(|| match value.as_i64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    }) {
        Some(flag) => Ok(flag.into()),
        None => problem("not_a_boolean", "must be true or false"),
    }
}

/// A plain date, or the date of an instant in UTC.
fn date(text: &str) -> Option<String> {
    let plain = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| text.len() == 10);
    let of_instant = || parse_instant(text).and_then(chrono::DateTime::from_timestamp_millis);
    plain.or_else(|| of_instant().map(|at| at.date_naive())).map(|date| date.to_string())
}

fn uuid(value: &Value) -> Option<String> {
    // Only the hyphenated form: other spellings of one id must not look like another id.
    let text = value.as_str().filter(|text| text.len() == 36)?;
    Uuid::from_str(text).ok().map(|id| id.to_string())
}

fn word(value: &Value, words: &[&str], candidate: Option<&str>) -> Result<Value, Problem> {
    match candidate.filter(|word| words.contains(word)) {
        Some(word) => Ok(word.into()),
        None if value.is_string() => {
            problem("unknown_value", format!("must be one of {}", words.join(", ")))
        }
        None => problem("not_a_string", "must be a string"),
    }
}

/// A list of texts, or `{"$add": […], "$remove": […]}`.
fn list_or_delta(value: &Value, max_items: usize, max_len: usize) -> Result<Value, Problem> {
    let Some(delta) = value.as_object() else { return text_list(value, max_items, max_len) };
    if delta.is_empty() || delta.keys().any(|key| key != "$add" && key != "$remove") {
        return problem("not_a_list", "must be a list, or an object with $add and $remove");
    }
    let mut clean = serde_json::Map::new();
    for (key, part) in delta {
        clean.insert(key.clone(), text_list(part, max_items, max_len)?);
    }
    Ok(clean.into())
}

fn text_list(value: &Value, max_items: usize, max_len: usize) -> Result<Value, Problem> {
    let Some(items) = value.as_array() else {
        return problem("not_a_list", "must be a list of strings");
    };
    if items.len() > max_items {
        return problem("too_long", format!("must have at most {max_items} elements"));
    }
    let mut clean: Vec<Value> = Vec::with_capacity(items.len());
    for item in items {
        let item = Value::from(text(item, 0, max_len)?);
        if !clean.contains(&item) {
            clean.push(item);
        }
    }
    Ok(clean.into())
}
