//! The rules of recording an access.

use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use super::event::{self, AccessEvent, AccessRevealed, Revealed};

/// A reason may have this many characters.
pub const MAX_REASON: usize = 500;
/// One record may name this many positions.
pub const MAX_POSITIONS: usize = 2000;

/// What can be asked of an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessCommand {
    /// Records that sealed content is about to be shown.
    Reveal { by: String, channel: String, reason: String, what: Revealed },
}

/// Why an access is refused: nothing is shown then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error("a reason is needed")]
    NoReason,
    #[error("a reason is one line of at most {MAX_REASON} characters")]
    BadReason,
    #[error("it is not known who asks")]
    Anonymous,
    #[error("an access names what is read: rising positions, at most {MAX_POSITIONS}, or a stream")]
    BadScope,
    #[error("this access is recorded already")]
    Recorded,
}

/// The record of one access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    pub recorded: bool,
}

impl Access {
    /// Decides a command: exactly one event, or a refusal.
    ///
    /// # Errors
    /// [`AccessError`] where the reason, the reader or the scope is missing.
    pub fn decide(&self, command: AccessCommand) -> Result<Vec<AccessEvent>, AccessError> {
        if self.recorded {
            return Err(AccessError::Recorded);
        }
        let AccessCommand::Reveal { by, channel, reason, what } = command;
        let reason = reason.trim().to_owned();
        if reason.is_empty() {
            return Err(AccessError::NoReason);
        }
        if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(AccessError::BadReason);
        }
        if by.trim().is_empty() || channel.is_empty() {
            return Err(AccessError::Anonymous);
        }
        if !is_scope(&what) {
            return Err(AccessError::BadScope);
        }
        Ok(vec![AccessEvent::Revealed(AccessRevealed { by, channel, reason, what })])
    }
}

fn is_scope(what: &Revealed) -> bool {
    match what {
        Revealed::Positions { positions } => {
            (1..=MAX_POSITIONS).contains(&positions.len())
                && positions[0] >= 1
                && positions.is_sorted_by(|a, b| a < b)
        }
        Revealed::Stream { aggregate_type, aggregate_id, upto } => {
            !aggregate_type.is_empty() && !aggregate_id.is_empty() && *upto >= 1
        }
    }
}

impl cqrs_es::Aggregate for Access {
    const TYPE: &'static str = event::TYPE;
    type Command = AccessCommand;
    type Event = AccessEvent;
    type Error = AccessError;
    type Services = ();

    async fn handle(
        &mut self,
        command: AccessCommand,
        _services: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), AccessError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AccessEvent) {
        match event {
            AccessEvent::Revealed(_) => self.recorded = true,
        }
    }
}
