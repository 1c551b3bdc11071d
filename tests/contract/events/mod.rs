//! Whatever an aggregate may say follows the schema of its event, and survives being stored.

mod access;
mod entity;
mod health_batch;
mod parts;
mod product;
mod session;
mod subject;
mod sync_recovery;
mod user;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aggregates::{AnyEvent, StoredEvent, registry, schema};
use jsonschema::Validator;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

static VALIDATORS: LazyLock<BTreeMap<&'static str, Validator>> = LazyLock::new(|| {
    registry::types()
        .map(|entry| {
            let schema = schema::schema_of(entry).unwrap();
            (entry.name, jsonschema::validator_for(&schema).unwrap())
        })
        .collect()
});

fn any_event() -> impl Strategy<Value = AnyEvent> {
    prop_oneof![
        access::event().prop_map(AnyEvent::from),
        subject::event().prop_map(AnyEvent::from),
        user::event().prop_map(AnyEvent::from),
        session::event().prop_map(AnyEvent::from),
        entity::event().prop_map(AnyEvent::from),
        sync_recovery::event().prop_map(AnyEvent::from),
        product::event().prop_map(AnyEvent::from),
        health_batch::event().prop_map(AnyEvent::from),
    ]
}

fn follows_its_schema(event: &AnyEvent) -> Result<(), TestCaseError> {
    let name = event.descriptor().name;
    let encoded = event.encode();
    let payload = serde_json::from_str(&encoded.payload).unwrap();
    let fault = VALIDATORS[name].validate(&payload).err();
    prop_assert!(fault.is_none(), "{}: {:?}", name, fault);
    let again = AnyEvent::decode(name, &encoded.payload, &encoded.blob).unwrap();
    prop_assert_eq!(&again, event);
    prop_assert_eq!(again.encode(), encoded);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_event_follows_its_schema_and_survives_storage(event in any_event()) {
        follows_its_schema(&event)?;
    }
}

/// A type that no strategy makes would pass the test above unseen.
#[test]
fn the_strategies_make_every_type_there_is() {
    let mut runner = TestRunner::deterministic();
    let strategy = any_event();
    let mut missing: Vec<&str> = registry::types().map(|entry| entry.name).collect();
    for _ in 0..4096 {
        let event = strategy.new_tree(&mut runner).unwrap().current();
        missing.retain(|name| *name != event.descriptor().name);
        if missing.is_empty() {
            return;
        }
    }
    panic!("no strategy makes {missing:?}");
}

/// All values of an enum's registry are its own: a payload of one type never decodes as another.
#[test]
fn unknown_types_are_refused() {
    assert!(AnyEvent::decode("session.teleported", "{}", &[]).is_err());
    assert!(aggregates::subject::SubjectEvent::decode("user.registered", "{}", &[]).is_err());
}
