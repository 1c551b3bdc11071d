//! Every event has a schema, every schema an event, and all of them are sound.

use std::collections::BTreeSet;

use aggregates::{registry, schema};

use super::released;

#[test]
fn every_event_has_a_released_schema() {
    for entry in registry::types() {
        assert!(schema::schema_of(entry).is_some(), "{} has no payload type", entry.name);
        for version in 1..=entry.version {
            let path = schema::schema_path(entry.name, version);
            assert!(released::root().join(&path).exists(), "{path} is missing");
        }
    }
}

#[test]
fn every_released_schema_has_an_event() {
    for released in released::all() {
        let name = released.event_type.as_str();
        match registry::find(name) {
            Some(entry) => assert!(released.version <= entry.version, "{name} is from the future"),
            None => assert!(schema::RETIRED.contains(&name), "{name} is neither known nor retired"),
        }
    }
}

#[test]
fn retired_types_are_not_in_the_registry() {
    for name in schema::RETIRED {
        assert!(registry::find(name).is_none(), "{name} still happens");
    }
}

#[test]
fn names_follow_one_pattern() {
    let mut seen = BTreeSet::new();
    for entry in registry::types() {
        assert!(seen.insert(entry.name), "{} is there twice", entry.name);
        let (aggregate, fact) = entry.name.split_once('.').unwrap();
        assert_eq!(aggregate, entry.aggregate);
        assert!(fact.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", entry.name);
        assert!(entry.version >= 1);
    }
}

#[test]
fn every_schema_compiles() {
    for released in released::all() {
        assert!(jsonschema::draft202012::meta::is_valid(&released.schema));
        jsonschema::validator_for(&released.schema).unwrap();
    }
}

#[test]
fn personal_properties_are_marked_with_their_purpose() {
    for released in released::all() {
        let name = &released.event_type;
        let Some(entry) = registry::find(name) else { continue };
        for (property, schema) in released.schema["properties"].as_object().unwrap() {
            let mark = schema.get("x-pii").and_then(|mark| mark.as_str());
            assert_eq!(mark, entry.purpose.map(|p| p.as_str()), "{name}: {property}");
        }
    }
}
