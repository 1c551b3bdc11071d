//! The session as a `cqrs_es` aggregate.

use cqrs_es::event_sink::EventSink;

use super::command::SessionCommand;
use super::error::SessionError;
use super::event::{self, SessionEvent};
use super::state::Session;
use crate::entity::Context;

impl cqrs_es::Aggregate for Session {
    const TYPE: &'static str = event::TYPE;
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: SessionCommand,
        ctx: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for event in self.decide(command, ctx)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        self.fold(&event);
    }
}
