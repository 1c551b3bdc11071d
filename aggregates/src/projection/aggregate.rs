//! The rules of skipping an event.

use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use super::event::{self, EventSkipped, ProjectionEvent};

/// A reference may have this many characters.
pub const MAX_REFERENCE: usize = 80;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipCommand {
    /// Leaves out the event at which the projector stopped for the person.
    Skip {
        projector: String,
        position: i64,
        /// Where the projector is parked for the person; none if it is not.
        parked_at: Option<i64>,
        by: String,
        reference: String,
    },
}

/// Why nothing is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipError {
    #[error("the projector is not parked for this person")]
    NotParked,
    #[error("the projector is parked at position {parked_at}, and only that event can be skipped")]
    Elsewhere { parked_at: i64 },
    #[error("it is not known who asks")]
    Anonymous,
    #[error(
        "a reference to the reason is needed: one word of at most {MAX_REFERENCE} letters, digits \
         and -_.:/#, such as a ticket"
    )]
    BadReference,
    #[error("this skip is recorded already")]
    Recorded,
}

/// The record of one skip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    pub recorded: bool,
}

impl Skip {
    /// Decides a command: exactly one event, or a refusal.
    ///
    /// # Errors
    /// [`SkipError`] where the projector does not stand at the event, or who or why is missing.
    pub fn decide(&self, command: SkipCommand) -> Result<Vec<ProjectionEvent>, SkipError> {
        if self.recorded {
            return Err(SkipError::Recorded);
        }
        let SkipCommand::Skip { projector, position, parked_at, by, reference } = command;
        let parked_at = parked_at.ok_or(SkipError::NotParked)?;
        if parked_at != position {
            return Err(SkipError::Elsewhere { parked_at });
        }
        if by.trim().is_empty() {
            return Err(SkipError::Anonymous);
        }
        if !is_reference(&reference) {
            return Err(SkipError::BadReference);
        }
        let skipped = EventSkipped { projector, position, by, reference };
        Ok(vec![ProjectionEvent::EventSkipped(skipped)])
    }
}

fn is_reference(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/#".contains(c);
    (1..=MAX_REFERENCE).contains(&text.chars().count()) && text.chars().all(allowed)
}

impl cqrs_es::Aggregate for Skip {
    const TYPE: &'static str = event::TYPE;
    type Command = SkipCommand;
    type Event = ProjectionEvent;
    type Error = SkipError;
    type Services = ();

    async fn handle(
        &mut self,
        command: SkipCommand,
        _services: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), SkipError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ProjectionEvent) {
        match event {
            ProjectionEvent::EventSkipped(_) => self.recorded = true,
        }
    }
}
