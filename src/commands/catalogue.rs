//! The public catalogue of products, written through postgres-es.
//!
//! Nothing in it is personal, so its aggregate lives on the stock repository of its ecosystem, in
//! the same log as everything else: a trigger gives its rows their positions and hashes. The role
//! it works with can add catalogue events and read them, and nothing else.

use std::collections::{BTreeMap, HashMap};

use aggregates::entity::Context;
use aggregates::product::{
    self, CatalogueProduct, CatalogueProductEvent, ProductCommand, ProductError,
};
use aggregates::{AnyEvent, Recorded, StreamId, UserId, upcast};
use cqrs_es::persist::{EventUpcaster, PersistedEventStore, SerializedEvent};
use cqrs_es::{Aggregate, AggregateError, CqrsFramework, EventStore};
use postgres_es::{PostgresCqrs, PostgresEventRepository};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::ATTEMPTS;
use super::observe::{about, ended, observed};
use crate::store::{Filter, ReadError, Store};
use crate::{clock, postgres};

/// The role that postgres-es works as.
pub const ROLE: &str = "tidemark_interop";
/// The catalogue is changed by few, one command at a time.
const POOL: u32 = 2;
const PAGE: i64 = 500;

/// A product with its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub id: String,
    /// Of its last event.
    pub version: i64,
    pub product: CatalogueProduct,
}

/// Why the catalogue did not change.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error(transparent)]
    Refused(#[from] ProductError),
    #[error("the product was changed by somebody else at the same time, again and again")]
    Busy,
    #[error("the catalogue could not be read or written")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Writes the catalogue.
#[derive(Clone)]
pub struct Catalogue {
    pool: PgPool,
}

impl Catalogue {
    /// Opens the catalogue of the log that `options` lead to. Its sessions work as [`ROLE`], which
    /// the connecting user must be a member of, and may not dawdle in a transaction: an append of
    /// postgres-es takes several round trips under the head's lock.
    pub fn open(options: &PgConnectOptions) -> Self {
        let options = options.clone().options([("role", ROLE)]);
        let settings = postgres::PoolSettings::interactive("tidemark-catalogue", POOL);
        Self { pool: postgres::pool(&options, &settings) }
    }

    /// Closes its connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Handles a command and answers the product after it. `who` is recorded as the actor.
    ///
    /// # Errors
    /// The product's refusal, or where the log does not answer.
    pub async fn execute(
        &self,
        product: Uuid,
        command: ProductCommand,
        who: &str,
    ) -> Result<Listed, CatalogueError> {
        let name = match &command {
            ProductCommand::Define { .. } => "define",
            ProductCommand::Update { .. } => "update",
            ProductCommand::Withdraw => "withdraw",
        };
        observed(product::TYPE, name, self.handle(product, command, who), ended).await
    }

    async fn handle(
        &self,
        product: Uuid,
        command: ProductCommand,
        who: &str,
    ) -> Result<Listed, CatalogueError> {
        let id = product.to_string();
        about(&StreamId::new(product::TYPE, &id));
        let metadata = HashMap::from([("subject".to_owned(), who.to_owned())]);
        for _ in 0..ATTEMPTS {
            // What is decided carries the time of the attempt that succeeds.
            let cqrs: PostgresCqrs<CatalogueProduct> =
                CqrsFramework::new(self.events(), Vec::new(), Context::now(clock::now_ms()));
            match cqrs.execute_with_metadata(&id, command.clone(), metadata.clone()).await {
                Ok(()) => return self.get(&id).await,
                Err(AggregateError::AggregateConflict) => {}
                Err(AggregateError::UserError(error)) => return Err(error.into()),
                Err(error) => return Err(CatalogueError::Store(error.into())),
            }
        }
        Err(CatalogueError::Busy)
    }

    async fn get(&self, id: &str) -> Result<Listed, CatalogueError> {
        let loaded = self.events().load_aggregate(id).await;
        let context = loaded.map_err(|error| CatalogueError::Store(error.into()))?;
        Ok(Listed {
            id: id.to_owned(),
            version: i64::try_from(context.current_sequence).unwrap_or(i64::MAX),
            product: context.aggregate,
        })
    }

    /// The event store of cqrs-es on this log.
    pub fn events(&self) -> PersistedEventStore<PostgresEventRepository, CatalogueProduct> {
        let mut lifts: Vec<Box<dyn EventUpcaster>> = vec![Box::new(FlatMetadata)];
        lifts.extend(upcast::steps().map(|step| Box::new(*step) as Box<dyn EventUpcaster>));
        let events = PostgresEventRepository::new(self.pool.clone());
        PersistedEventStore::new_event_store(events).with_upcasters(lifts)
    }
}

/// cqrs-es knows metadata as a map of texts; the log's has an object for the actor.
struct FlatMetadata;

impl EventUpcaster for FlatMetadata {
    fn can_upcast(&self, _event_type: &str, _event_version: &str) -> bool {
        true
    }

    fn upcast(&self, mut event: SerializedEvent) -> SerializedEvent {
        if let Some(metadata) = event.metadata.as_object_mut() {
            metadata.retain(|_, value| value.is_string());
        }
        event
    }
}

/// All products, withdrawn ones included, in the order in which they were defined.
///
/// # Errors
/// [`ReadError`] where the log does not answer or is damaged.
pub async fn list(store: &Store) -> Result<Vec<Listed>, ReadError> {
    let head = store.head().await?.position;
    let filter = Filter { user: Some(UserId::CATALOGUE), ..Filter::default() };
    let mut products: Vec<Listed> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = store.page(after, head, PAGE, &filter).await?;
        let Some(last) = page.last() else { return Ok(products) };
        after = last.position;
        for event in page {
            let Some((id, sequence, event)) = of_product(event) else { continue };
            let place = *places.entry(id.clone()).or_insert_with(|| {
                products.push(Listed { id, version: 0, product: CatalogueProduct::default() });
                products.len() - 1
            });
            products[place].version = sequence;
            products[place].product.apply(event);
        }
    }
}

fn of_product(recorded: Recorded) -> Option<(String, i64, CatalogueProductEvent)> {
    match recorded.event()? {
        AnyEvent::CatalogueProduct(event) => {
            let event = (**event).clone();
            Some((recorded.stream.aggregate_id, recorded.sequence, event))
        }
        _ => None,
    }
}
