//! The canonical text of a batch, over which its hash is taken.
//!
//! JSON in the manner of RFC 8785: sorted keys, shortest numbers as ECMAScript writes them, null
//! members left out; both arrays sorted, so that permuted batches are the same batch.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::item::{Content, Field, Item, NAMES};

/// One array in canonical order.
pub(super) struct Sorted {
    /// Canonical texts, joined by commas.
    pub(super) text: String,
    /// The canonical place of each element of the request.
    pub(super) places: Vec<usize>,
}

/// Sorts elements by the named fields, then by their whole text.
pub(super) fn sort(items: &[Item<'_>], fields: &[Field]) -> Sorted {
    let mut texts = String::new();
    let mut order: Vec<(Range<usize>, usize)> = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let from = texts.len();
        put_item(&mut texts, item);
        order.push((from..texts.len(), place));
    }
    let field = |place: usize, field: Field| items[place].text(field).unwrap_or_default();
    order.sort_by(|(a_text, a), (b_text, b)| {
        let by_field = |name: &Field| utf16(field(*a, *name), field(*b, *name));
        let unequal = fields.iter().map(by_field).find(|order| order.is_ne());
        unequal
            .unwrap_or_else(|| utf16(&texts[a_text.clone()], &texts[b_text.clone()]))
            .then(a.cmp(b))
    });
    let mut places = vec![0; items.len()];
    let mut text = String::with_capacity(texts.len() + items.len());
    for (canonical, (range, place)) in order.into_iter().enumerate() {
        places[place] = canonical;
        if canonical > 0 {
            text.push(',');
        }
        text.push_str(&texts[range]);
    }
    Sorted { text, places }
}

/// The bytes that are hashed.
pub(super) fn envelope(samples: &str, deleted: &str) -> String {
    format!("{{\"deleted\":[{deleted}],\"samples\":[{samples}]}}")
}

/// Lower-case hexadecimal SHA-256.
pub(super) fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// The order of UTF-16 units, in which ECMAScript sorts. Of ASCII it is the order of bytes.
fn utf16(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// An element's fields in order. Names of fields are ASCII, and mostly there are no others.
fn put_item(out: &mut String, item: &Item<'_>) {
    let known = item.fields.iter().zip(NAMES).filter_map(|(content, name)| {
        content.as_ref().map(|content| (name, Member::Field(content)))
    });
    if item.others.is_empty() {
        put_members(out, known);
        return;
    }
    let others = item.others.iter().map(|(name, value)| (&**name, Member::Other(value)));
    let mut members: Vec<(&str, Member<'_>)> = known.chain(others).collect();
    members.sort_by(|a, b| utf16(a.0, b.0));
    put_members(out, members.into_iter());
}

enum Member<'a> {
    Field(&'a Content<'a>),
    Other(&'a Value),
}

fn put_members<'a>(out: &mut String, members: impl Iterator<Item = (&'a str, Member<'a>)>) {
    out.push('{');
    for (place, (name, member)) in members.enumerate() {
        if place > 0 {
            out.push(',');
        }
        put_string(out, name);
        out.push(':');
        match member {
            Member::Field(Content::Text(text)) => put_string(out, text),
            Member::Field(Content::Shared(text)) => put_string(out, text),
            Member::Field(Content::Number(number)) => put_number(out, number),
            Member::Field(Content::Other(value)) => put(out, value),
            Member::Other(value) => put(out, value),
        }
    }
    out.push('}');
}

/// The canonical text of an object.
pub(super) fn object(members: &Map<String, Value>) -> String {
    let mut out = String::new();
    put_object(&mut out, members);
    out
}

fn put_object(out: &mut String, members: &Map<String, Value>) {
    let mut members: Vec<(&String, &Value)> =
        members.iter().filter(|(_, value)| !value.is_null()).collect();
    members.sort_by(|a, b| utf16(a.0, b.0));
    out.push('{');
    for (place, (name, value)) in members.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        put_string(out, name);
        out.push(':');
        put(out, value);
    }
    out.push('}');
}

fn put(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => put_number(out, number),
        Value::String(text) => put_string(out, text),
        Value::Array(elements) => {
            out.push('[');
            for (place, element) in elements.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                put(out, element);
            }
            out.push(']');
        }
        Value::Object(members) => put_object(out, members),
    }
}

fn put_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    // What is escaped is one byte long.
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        let (plain, escaped) = rest.split_at(at);
        out.push_str(plain);
        let (escaped, after) = escaped.split_at(1);
        match escaped {
            "\"" => out.push_str("\\\""),
            "\\" => out.push_str("\\\\"),
            "\u{8}" => out.push_str("\\b"),
            "\t" => out.push_str("\\t"),
            "\n" => out.push_str("\\n"),
            "\u{c}" => out.push_str("\\f"),
            "\r" => out.push_str("\\r"),
            // Writing to a string cannot fail.
            control => drop(write!(out, "\\u{:04x}", control.as_bytes()[0])),
        }
        rest = after;
    }
    out.push_str(rest);
    out.push('"');
}

/// ECMAScript's `Number::toString`: the shortest digits that give the same double.
fn put_number(out: &mut String, number: &Number) {
    let double = number.as_f64().unwrap_or_default();
    // Below 2⁵³ a whole number is its own digits.
    if double.fract() == 0.0 && double.abs() < 9_007_199_254_740_992.0 && double != 0.0 {
        let _ = write!(out, "{}", double as i64);
        return;
    }
    if double == 0.0 {
        out.push('0');
        return;
    }
    if double < 0.0 {
        out.push('-');
    }
    let scientific = format!("{:e}", double.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The value is 0.digits × 10^point.
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    if (length..=21).contains(&point) {
        out.push_str(&digits);
        out.push_str(&zeros(point - length));
    } else if (1..=21).contains(&point) {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    } else if (-5..=0).contains(&point) {
        out.push_str("0.");
        out.push_str(&zeros(-point));
        out.push_str(&digits);
    } else {
        let (first, rest) = digits.split_at(1);
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        let _ = write!(out, "e{}{}", if point > 0 { "+" } else { "-" }, (point - 1).abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_ecmascript_writes_them() {
        for (json, expected) in [
            ("61", "61"),
            ("61.0", "61"),
            ("-0.0", "0"),
            ("0.1", "0.1"),
            ("72.123", "72.123"),
            ("1e21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("1.5e-9", "1.5e-9"),
            ("-12.5", "-12.5"),
            ("9007199254740993", "9007199254740992"),
        ] {
            let mut out = String::new();
            put_number(&mut out, &serde_json::from_str(json).unwrap());
            assert_eq!(out, expected, "{json}");
        }
    }

    #[test]
    fn objects_are_sorted_and_bare() {
        let Value::Object(members) =
            serde_json::json!({"b": null, "z": "a\"\u{1}\n", "a": [1.0, true, {"y": 1, "x": 2}]})
        else {
            unreachable!()
        };
        assert_eq!(object(&members), r#"{"a":[1,true,{"x":2,"y":1}],"z":"a\"\u0001\n"}"#);
    }
}
