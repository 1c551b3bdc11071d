//! Properties of a schema as a Markdown table.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// A table of the schema's properties, or a line that says there are none.
pub(super) fn properties(schema: &Value) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return "No fields.\n".to_owned();
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut text = String::from("| Field | Type | Required | Meaning |\n|---|---|---|---|\n");
    for (name, property) in properties {
        let needed = if required.contains(&name.as_str()) { "yes" } else { "" };
        let kind = type_name(property);
        line(&mut text, format_args!("| `{name}` | {kind} | {needed} | {} |", meaning(property)));
    }
    text
}

/// The description on one line.
pub(super) fn meaning(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|")
}

/// The type of a property in words, with links to shared types.
pub(super) fn type_name(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(words) = words(schema) {
        return words;
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema.get(key).and_then(Value::as_array) {
            return options.iter().map(type_name).collect::<Vec<_>>().join(" or ");
        }
    }
    match schema.get("type") {
        Some(Value::String(kind)) => simple(kind, schema),
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str);
            kinds.map(|kind| simple(kind, schema)).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn simple(kind: &str, schema: &Value) -> String {
    let format = schema.get("format").and_then(Value::as_str);
    match (kind, format) {
        ("string", Some(format)) => format.to_owned(),
        ("array", _) => {
            format!("list of {}", schema.get("items").map_or_else(|| "any".to_owned(), type_name))
        }
        ("object", _) => match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("map to {}", type_name(values)),
            _ => "object".to_owned(),
        },
        _ => kind.to_owned(),
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

/// The values of an enumeration.
fn words(schema: &Value) -> Option<String> {
    let quoted = |value: &Value| value.as_str().map(|word| format!("`{word}`"));
    if let Some(word) = schema.get("const") {
        return quoted(word);
    }
    let values = schema.get("enum")?.as_array()?;
    Some(values.iter().filter_map(quoted).collect::<Vec<_>>().join(", "))
}

/// The shared types of several schemas, by name.
pub(super) fn shared<'a>(schemas: impl Iterator<Item = &'a Value>) -> BTreeMap<String, Value> {
    schemas
        .filter_map(|schema| schema.get("$defs")?.as_object())
        .flatten()
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .collect()
}

/// One shared type: its fields, its words or its cases.
pub(super) fn definition(schema: &Value) -> String {
    if schema.get("properties").is_some() {
        return properties(schema);
    }
    let Some(cases) = schema.get("oneOf").and_then(Value::as_array) else {
        return format!("{}.\n", type_name(schema));
    };
    let mut text = String::new();
    for case in cases {
        let names = case.get("properties").and_then(Value::as_object).map(|properties| {
            let parts =
                properties.iter().map(|(name, part)| format!("`{name}`: {}", type_name(part)));
            parts.collect::<Vec<_>>().join(", ")
        });
        let names = names.unwrap_or_else(|| type_name(case));
        match meaning(case) {
            meaning if meaning.is_empty() => line(&mut text, format_args!("- {names}")),
            meaning => line(&mut text, format_args!("- {names}: {meaning}")),
        }
    }
    text
}

/// Writing to memory cannot fail.
pub(super) fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}
