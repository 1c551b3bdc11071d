//! The account as a `cqrs_es` aggregate.

use cqrs_es::event_sink::EventSink;

use super::command::UserCommand;
use super::error::UserError;
use super::event::{self, UserEvent};
use super::state::User;
use crate::entity::Context;

impl cqrs_es::Aggregate for User {
    const TYPE: &'static str = event::TYPE;
    type Command = UserCommand;
    type Event = UserEvent;
    type Error = UserError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: UserCommand,
        ctx: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), UserError> {
        for event in self.decide(command, ctx)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: UserEvent) {
        self.fold(&event);
    }
}
