//! The catalogue through postgres-es, in the same log as everything else.

use std::collections::BTreeSet;

use aggregates::product::{CatalogueProduct, CatalogueProductEvent, ProductCommand, ProductError};
use aggregates::{Actor, AnyEvent, Content, StoredEvent, StreamId, UserId};
use cqrs_es::persist::PersistedEventRepository;
use cqrs_es::persist::SerializedEvent;
use serde_json::{Map, Value, json};
use sqlx::Row;
use tidemark::commands::catalogue::{self, Catalogue, CatalogueError};
use tidemark::commands::verify::log::verify_log;
use tidemark::ids;
use tidemark::store::Outcome;

use crate::support;
use crate::world::{World, started};

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("an object") };
    map
}

fn define(name: &str) -> ProductCommand {
    ProductCommand::Define { fields: fields(json!({"name": name, "primaryCompound": 12.5})) }
}

fn rename(name: &str) -> ProductCommand {
    ProductCommand::Update { fields: fields(json!({ "name": name })) }
}

fn open(world: &World) -> Catalogue {
    Catalogue::open(&world.database.log)
}

#[tokio::test]
async fn products_are_written_by_postgres_es_and_read_by_our_reader() {
    let world = World::new().await;
    let catalogue = open(&world);
    let id = ids::new_id();
    let defined = catalogue.execute(id, define("Evening blend"), "ada@desk").await.unwrap();
    assert_eq!((defined.version, defined.product.state.text("type")), (1, Some("OTHER")));
    let again = catalogue.execute(id, define("Evening blend"), "ada@desk").await.unwrap();
    assert_eq!(again.version, 1, "saying the same again changes nothing");
    let renamed = catalogue.execute(id, rename("Night blend"), "ada@desk").await.unwrap();
    assert_eq!((renamed.version, renamed.product.state.text("name")), (2, Some("Night blend")));
    let gone = catalogue.execute(id, ProductCommand::Withdraw, "bob@desk").await.unwrap();
    assert!(gone.product.state.deleted);
    let refused = catalogue.execute(id, rename("x"), "ada@desk").await;
    assert!(matches!(refused, Err(CatalogueError::Refused(ProductError::Withdrawn))));

    let stream = StreamId::new("catalogue_product", id);
    let events = world.store.stream(&stream, 0, i64::MAX, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(events.iter().all(|event| event.user == UserId::CATALOGUE));
    let Content::Open { event, metadata } = &events[2].content else { panic!("readable") };
    assert!(matches!(&**event, AnyEvent::CatalogueProduct(event)
        if matches!(**event, CatalogueProductEvent::Withdrawn(_))));
    assert_eq!(metadata.actor, Actor::Staff { subject: "bob@desk".to_owned() });
    assert_eq!(catalogue::list(&world.store).await.unwrap(), [gone]);

    // What postgres-es stored is the payload that our own store would have written.
    let rows = sqlx::query("SELECT event_type, payload::text FROM events ORDER BY position")
        .fetch_all(world.store.pool())
        .await
        .unwrap();
    for row in rows {
        let (event_type, payload): (String, String) = (row.get(0), row.get(1));
        let event = CatalogueProductEvent::decode(&event_type, &payload, &[]).unwrap();
        let ours: Value = serde_json::from_str(&event.encode().payload).unwrap();
        assert_eq!(ours, serde_json::from_str::<Value>(&payload).unwrap());
    }
    let report = verify_log(&world.store, 1, 10, |_| {}).await.unwrap();
    assert_eq!((report.events, report.faults.first), (3, vec![]), "leaves, heads, positions");
}

#[tokio::test]
async fn catalogue_and_our_own_appends_share_dense_positions() {
    let world = World::new().await;
    let user = world.person().await;
    let mut writers = Vec::new();
    for n in 0..6 {
        let (store, catalogue) = (world.store.clone(), open(&world));
        writers.push(tokio::spawn(async move {
            for i in 0..5 {
                let name = format!("product {n}.{i}");
                catalogue.execute(ids::new_id(), define(&name), "load").await.unwrap();
                let outcome = store.append(started(user, &name)).await.unwrap();
                assert!(matches!(outcome, Outcome::Appended { .. }));
            }
            catalogue.close().await;
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let report = verify_log(&world.store, 1, 10, |_| {}).await.unwrap();
    assert_eq!(report.faults.first, []);
    assert_eq!((report.events, report.streams), (3 + 60, 1 + 60));
    assert_eq!(catalogue::list(&world.store).await.unwrap().len(), 30);
}

#[tokio::test]
async fn two_writers_of_one_product_conflict_and_neither_is_lost() {
    let world = World::new().await;
    let id = ids::new_id();
    open(&world).execute(id, define("0"), "first").await.unwrap();

    // The repository itself reports the slower one.
    let event = |sequence, name: &str| SerializedEvent {
        aggregate_id: id.to_string(),
        sequence,
        aggregate_type: "catalogue_product".to_owned(),
        event_type: "catalogue_product.updated".to_owned(),
        event_version: "1".to_owned(),
        payload: json!({"set": {"name": name}, "edit": {"decided_at_ms": 1}}),
        metadata: json!({}),
    };
    let repository = postgres_es::PostgresEventRepository::new(interop(&world));
    for wrong in [1, 3] {
        let lost = repository.persist::<CatalogueProduct>(&[event(wrong, "x")], None).await;
        let error = lost.unwrap_err();
        assert!(matches!(error, cqrs_es::persist::PersistenceError::OptimisticLockError));
    }

    let writers = ["a", "b", "c"].map(|name| {
        let catalogue = open(&world);
        tokio::spawn(
            async move { catalogue.execute(id, rename(name), name).await.unwrap().version },
        )
    });
    let mut versions = BTreeSet::new();
    for writer in writers {
        versions.insert(writer.await.unwrap());
    }
    assert!(versions.contains(&4), "{versions:?}");
    let events =
        world.store.stream(&StreamId::new("catalogue_product", id), 0, 99, 99).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let report = verify_log(&world.store, 1, 10, |_| {}).await.unwrap();
    assert_eq!(report.faults.first, []);
}

/// A pool as the catalogue opens it.
fn interop(world: &World) -> sqlx::PgPool {
    support::pool_of(&world.database.log.clone().options([("role", catalogue::ROLE)]))
}

#[tokio::test]
async fn the_interop_role_reaches_the_catalogue_and_nothing_else() {
    let world = World::new().await;
    let user = world.person().await;
    world.store.append(started(user, "private")).await.unwrap();
    open(&world).execute(ids::new_id(), define("public"), "ada").await.unwrap();
    let pool = interop(&world);
    let seen: Vec<String> = sqlx::query_scalar("SELECT DISTINCT aggregate_type FROM events")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(seen, ["catalogue_product"]);
    let insert = |kind: &str, position: &str| {
        format!(
            "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, \
             event_version, payload, metadata{}) VALUES ('{kind}', 'x', 1, '{kind}.x', '1', \
             '{{}}', '{{}}'{position})",
            if position.is_empty() { "" } else { ", position" }
        )
    };
    let refused = [
        insert("session", ""),
        insert("subject", ""),
        insert("catalogue_product", ", 77"),
        "SELECT sealed FROM events".to_owned(),
        "SELECT user_id FROM events".to_owned(),
        "SELECT 1 FROM streams".to_owned(),
        "SELECT 1 FROM log_head".to_owned(),
        "SELECT 1 FROM subjects".to_owned(),
        "SELECT 1 FROM receipts".to_owned(),
        "SELECT 1 FROM reservations".to_owned(),
        "SELECT 1 FROM health_segments".to_owned(),
        "UPDATE events SET event_type = 'x'".to_owned(),
        "DELETE FROM events".to_owned(),
        "TRUNCATE events".to_owned(),
        "UPDATE log_head SET position = 0".to_owned(),
        "SELECT forget(gen_random_uuid(), 'health', '{}')".to_owned(),
    ];
    for statement in refused {
        let error = sqlx::query(&statement).execute(&pool).await.expect_err(&statement);
        let code = error.as_database_error().and_then(|error| error.code()).map(|c| c.to_string());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    assert_eq!(world.store.head().await.unwrap().position, 5, "nothing was written");
}
