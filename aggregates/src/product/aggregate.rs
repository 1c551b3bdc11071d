//! The rules of the catalogue.

use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::contract::CONTRACT;
use super::event::{self, CatalogueProductEvent, ProductDefined, ProductUpdated, ProductWithdrawn};
use crate::conflict::Base;
use crate::entity::{
    ChangeKind, Context, EntityChange, EntityState, FieldError, Refusal, Weighed, normalise, weigh,
};

/// What can be asked of a product. The maps are JSON as the wire has it, in either spelling.
#[derive(Clone, Debug, PartialEq)]
pub enum ProductCommand {
    /// Brings it into the catalogue; a repetition changes what differs.
    Define {
        fields: Map<String, Value>,
    },
    Update {
        fields: Map<String, Value>,
    },
    Withdraw,
}

/// Why a product refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductError {
    #[error("no such product")]
    NotFound,
    #[error("the product was withdrawn")]
    Withdrawn,
    #[error("{} field(s) are not valid", .0.len())]
    Invalid(Vec<FieldError>),
}

/// A product of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CatalogueProduct {
    pub state: EntityState,
}

impl CatalogueProduct {
    /// Decides a command: no event where nothing changes, else exactly one.
    ///
    /// # Errors
    /// [`ProductError`] where the product's state or the fields do not allow it.
    pub fn decide(
        &self,
        command: ProductCommand,
        ctx: &Context,
    ) -> Result<Vec<CatalogueProductEvent>, ProductError> {
        let known = self.state.exists();
        let change = match command {
            ProductCommand::Withdraw if !known => return Err(ProductError::NotFound),
            ProductCommand::Update { .. } if !known => return Err(ProductError::NotFound),
            ProductCommand::Define { .. } | ProductCommand::Update { .. } if self.state.deleted => {
                return Err(ProductError::Withdrawn);
            }
            ProductCommand::Define { fields } => change(ChangeKind::Create, &fields)?,
            ProductCommand::Update { fields } => change(ChangeKind::Update, &fields)?,
            ProductCommand::Withdraw => change(ChangeKind::Delete, &Map::new())?,
        };
        let edit = ctx.edit();
        let weighed = weigh(&CONTRACT, &self.state, &change, &Base::Current, ctx);
        Ok(match weighed? {
            Weighed::Create(fields) => {
                vec![CatalogueProductEvent::Defined(ProductDefined { fields, edit })]
            }
            Weighed::Set { set, .. } => {
                vec![CatalogueProductEvent::Updated(ProductUpdated { set, edit })]
            }
            Weighed::Delete => vec![CatalogueProductEvent::Withdrawn(ProductWithdrawn { edit })],
            Weighed::Unchanged | Weighed::Superseded(_) => Vec::new(),
        })
    }
}

fn change(kind: ChangeKind, fields: &Map<String, Value>) -> Result<EntityChange, ProductError> {
    let normalised = normalise(&CONTRACT, fields).map_err(ProductError::Invalid)?;
    Ok(EntityChange::new(kind, normalised.fields))
}

impl From<Refusal> for ProductError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(errors) => Self::Invalid(errors),
            Refusal::Orphan => Self::NotFound,
        }
    }
}

impl cqrs_es::Aggregate for CatalogueProduct {
    const TYPE: &'static str = event::TYPE;
    type Command = ProductCommand;
    type Event = CatalogueProductEvent;
    type Error = ProductError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: ProductCommand,
        ctx: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), ProductError> {
        for event in self.decide(command, ctx)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: CatalogueProductEvent) {
        match event {
            CatalogueProductEvent::Defined(data) => self.state.create(&data.fields, &data.edit),
            CatalogueProductEvent::Updated(data) => self.state.change(&data.set, None, &data.edit),
            CatalogueProductEvent::Withdrawn(data) => self.state.delete(&data.edit),
        }
    }
}
