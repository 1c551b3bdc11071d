use cqrs_es::Aggregate;
use serde_json::{Map, Value, json};

use super::*;
use crate::StoredEvent;
use crate::entity::Context;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("an object") };
    map
}

fn after(commands: Vec<ProductCommand>) -> CatalogueProduct {
    let mut product = CatalogueProduct::default();
    for command in commands {
        for event in product.decide(command, &Context::now(7)).unwrap() {
            let stored = event.encode();
            let name = event.descriptor().name;
            product.apply(CatalogueProductEvent::decode(name, &stored.payload, &[]).unwrap());
        }
    }
    product
}

fn define(value: Value) -> ProductCommand {
    ProductCommand::Define { fields: object(value) }
}

#[test]
fn a_product_is_defined_updated_and_withdrawn() {
    let defined = define(json!({"name": "Evening blend", "compoundAContent": 12.5}));
    let product = after(vec![defined.clone()]);
    assert_eq!(product.state.fields["primaryCompound"], json!(12.5));
    assert_eq!(product.state.fields["type"], "OTHER");
    assert_eq!(product.state.fields["isPublic"], json!(true));
    assert_eq!(product.decide(defined.clone(), &Context::now(8)), Ok(vec![]));
    let renamed = ProductCommand::Update { fields: object(json!({"name": "Night blend"})) };
    let product = after(vec![defined, renamed.clone(), ProductCommand::Withdraw]);
    assert_eq!(product.state.version, 3);
    assert!(product.state.deleted);
    assert_eq!(product.decide(renamed, &Context::now(9)), Err(ProductError::Withdrawn));
    assert_eq!(product.decide(ProductCommand::Withdraw, &Context::now(9)), Ok(vec![]));
}

#[test]
fn a_product_needs_a_name_and_sane_values() {
    let refused = |command| CatalogueProduct::default().decide(command, &Context::now(1));
    let Err(ProductError::Invalid(errors)) = refused(define(json!({}))) else { panic!("refused") };
    assert_eq!(errors[0].pointer, "/name");
    let wrong = define(json!({"name": "x", "type": "SPACESHIP", "typeAPercentage": 101}));
    let Err(ProductError::Invalid(errors)) = refused(wrong) else { panic!("refused") };
    assert_eq!(errors.len(), 2);
    assert_eq!(refused(ProductCommand::Withdraw), Err(ProductError::NotFound));
}

#[test]
fn nothing_in_the_catalogue_is_personal() {
    assert!(CatalogueProductEvent::types().iter().all(|entry| entry.purpose.is_none()));
}

/// Through a `cqrs_es` repository and through our own store, a payload is the same JSON.
#[test]
fn both_ways_into_the_log_store_one_payload() {
    let commands = vec![
        define(json!({"name": "Evening blend", "effects": ["calm"]})),
        ProductCommand::Update { fields: object(json!({"category": null, "name": "Night"})) },
        ProductCommand::Withdraw,
    ];
    let mut product = CatalogueProduct::default();
    for command in commands {
        let events = product.decide(command, &Context::now(7)).unwrap();
        let [event] = events.as_slice() else { panic!("one event") };
        let stored = event.encode();
        let foreign = serde_json::to_value(event).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&stored.payload).unwrap(), foreign);
        assert_eq!(&serde_json::from_value::<CatalogueProductEvent>(foreign).unwrap(), event);
        product.apply(event.clone());
    }
}
