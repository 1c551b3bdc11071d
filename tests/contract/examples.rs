//! Events of every version that was ever released, read as the server reads them.

use aggregates::{AnyEvent, registry, upcast};

use super::released;

#[test]
fn every_example_follows_its_schema() {
    for released in released::all() {
        let validator = jsonschema::validator_for(&released.schema).unwrap();
        let payload = serde_json::from_str(&released.payload).unwrap();
        let fault = validator.validate(&payload).err();
        assert!(fault.is_none(), "{} v{}: {fault:?}", released.event_type, released.version);
    }
}

#[test]
fn every_example_becomes_a_current_event_and_back() {
    for released in released::all() {
        let name = &released.event_type;
        let Some(entry) = registry::find(name) else { continue };
        let lifted = upcast::to_current(name, released.version, &released.payload).unwrap();
        let validator =
            jsonschema::validator_for(&aggregates::schema::schema_of(entry).unwrap()).unwrap();
        assert!(validator.is_valid(&serde_json::from_str(&lifted).unwrap()), "{name}");

        let event = AnyEvent::decode(name, &lifted, &released.packed).unwrap();
        assert_eq!(event.descriptor().name, name);
        let encoded = event.encode();
        if released.version == entry.version {
            assert_eq!(encoded.payload, released.payload, "{name}");
        }
        assert_eq!(encoded.blob, released.packed, "{name}");
        let again = AnyEvent::decode(name, &encoded.payload, &encoded.blob).unwrap();
        assert_eq!(again, event, "{name}");
    }
}

#[test]
fn the_upcasters_form_whole_chains() {
    upcast::check().unwrap();
}
