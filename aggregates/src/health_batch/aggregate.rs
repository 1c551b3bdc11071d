//! The batch as an aggregate: one stream each, decided once.

use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::decide::decide;
use super::event::HealthBatchEvent;
use super::wire::Batch;

/// One upload. Its stream is written once, without a predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthBatch {
    pub applied: bool,
}

/// What may be asked of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthBatchCommand {
    Submit(Box<Batch>),
}

/// Why a batch is refused as a whole. Nothing is recorded then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthBatchError {
    #[error("the batch was already applied")]
    AlreadyApplied,
    /// Deletions would still be served.
    #[error("health uploads are turned off")]
    UploadsDisabled,
}

impl HealthBatch {
    /// All rules of a batch.
    ///
    /// # Errors
    /// [`HealthBatchError`] where nothing of the batch may take effect.
    pub fn decide(
        &self,
        command: &HealthBatchCommand,
        context: &Context,
    ) -> Result<Vec<HealthBatchEvent>, HealthBatchError> {
        let HealthBatchCommand::Submit(batch) = command;
        if self.applied {
            return Err(HealthBatchError::AlreadyApplied);
        }
        if !context.uploads_allowed && batch.deletions.is_empty() {
            return Err(HealthBatchError::UploadsDisabled);
        }
        Ok(vec![HealthBatchEvent::Applied(Box::new(decide(batch, context)))])
    }
}

impl cqrs_es::Aggregate for HealthBatch {
    const TYPE: &'static str = super::TYPE;
    type Command = HealthBatchCommand;
    type Event = HealthBatchEvent;
    type Error = HealthBatchError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: Self::Command,
        context: &Self::Services,
        sink: &EventSink<Self>,
    ) -> Result<(), Self::Error> {
        for event in self.decide(&command, context)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Self::Event) {
        match event {
            HealthBatchEvent::Applied(_) => self.applied = true,
        }
    }
}
