//! The state machine of a session and the rules of its commands.

use serde_json::Value;
use uuid::Uuid;

use super::command::SessionCommand;
use super::error::SessionError;
use super::event::{
    ConsumptionAttached, ConsumptionChanged, ConsumptionDetached, EndReason, SessionCancelled,
    SessionEnded, SessionEvent, SessionPaused, SessionResumed,
};
use super::state::{Dose, Session, Status};
use crate::conflict::Base;
use crate::entity::{ChangeKind, Context, EntityChange, Fields};

impl Session {
    /// Decides a command: no event where nothing changes, else exactly one.
    ///
    /// # Errors
    /// [`SessionError`] where the session's state or the fields do not allow it.
    pub fn decide(
        &self,
        command: SessionCommand,
        ctx: &Context,
    ) -> Result<Vec<SessionEvent>, SessionError> {
        if !self.entity.is_live() && !matches!(command, SessionCommand::Start { .. }) {
            return Err(SessionError::NotFound);
        }
        let edit = ctx.edit();
        match command {
            SessionCommand::Start { fields } => self.start(fields, ctx),
            SessionCommand::Update { fields, last_known_updated_at_ms } => {
                self.update(fields, last_known_updated_at_ms, ctx)
            }
            SessionCommand::Pause => self.step(Status::Paused, "pause", || {
                SessionEvent::Paused(SessionPaused { set: Fields::new(), resolution: None, edit })
            }),
            SessionCommand::Resume => self.step(Status::Active, "resume", || {
                SessionEvent::Resumed(SessionResumed { set: Fields::new(), resolution: None, edit })
            }),
            SessionCommand::End { fields } => self.end(fields, ctx),
            SessionCommand::Cancel => self.step(Status::Cancelled, "cancel", || {
                SessionEvent::Cancelled(SessionCancelled {
                    ended_at_ms: self.end_at(ctx),
                    set: Fields::new(),
                    resolution: None,
                    edit,
                })
            }),
            SessionCommand::Replace => self.step(Status::Completed, "end", || {
                self.ended(self.end_at(ctx), EndReason::Replaced, ctx)
            }),
            SessionCommand::EndIdle { ended_at_ms } => self.end_idle(ended_at_ms, ctx),
            SessionCommand::Delete => {
                Ok(vec![SessionEvent::Deleted(super::SessionDeleted { edit })])
            }
            SessionCommand::AttachConsumption { consumption_id, dose } => {
                self.attach(consumption_id, dose, ctx)
            }
            SessionCommand::ConsumptionChanged { consumption_id, dose } => {
                match self.doses.get(&consumption_id) {
                    Some(known) if *known != dose => self.attach(consumption_id, dose, ctx),
                    Some(_) | None => Ok(Vec::new()),
                }
            }
            SessionCommand::DetachConsumption { consumption_id } => {
                Ok(self.detach(consumption_id, ctx))
            }
        }
    }

    fn start(&self, fields: Fields, ctx: &Context) -> Result<Vec<SessionEvent>, SessionError> {
        if self.entity.exists() {
            return Ok(Vec::new());
        }
        let change = EntityChange::new(ChangeKind::Create, fields);
        self.one(&change, ctx)
    }

    fn update(
        &self,
        fields: Fields,
        last_known_updated_at_ms: Option<i64>,
        ctx: &Context,
    ) -> Result<Vec<SessionEvent>, SessionError> {
        if fields.contains_key("status") {
            return Err(SessionError::StatusNotEditable);
        }
        if last_known_updated_at_ms.is_some_and(|known| self.entity.is_stale(known)) {
            return Err(SessionError::Stale);
        }
        self.one(&EntityChange::new(ChangeKind::Update, fields), ctx)
    }

    /// To end a session that has ended is nothing, except for what the person has to say about it.
    fn end(&self, mut fields: Fields, ctx: &Context) -> Result<Vec<SessionEvent>, SessionError> {
        match self.status() {
            Status::Cancelled => {
                Err(SessionError::IllegalTransition { from: Status::Cancelled, command: "end" })
            }
            Status::Completed | Status::Active | Status::Paused => {
                fields.insert("status".to_owned(), Value::from(Status::Completed.as_str()));
                self.one(&EntityChange::new(ChangeKind::Update, fields), ctx)
            }
        }
    }

    fn end_idle(&self, ended_at_ms: i64, ctx: &Context) -> Result<Vec<SessionEvent>, SessionError> {
        if !self.is_open() {
            return Ok(Vec::new());
        }
        match self.idle_end(ctx.now_ms) {
            Some(deadline) if deadline == ended_at_ms => {
                Ok(vec![self.ended(ended_at_ms, EndReason::Idle, ctx)])
            }
            Some(_) | None => Err(SessionError::NotIdle),
        }
    }

    /// One step of the state machine; to stand where one is asked to go is no step.
    fn step(
        &self,
        to: Status,
        command: &'static str,
        event: impl FnOnce() -> SessionEvent,
    ) -> Result<Vec<SessionEvent>, SessionError> {
        let from = self.status();
        if from == to {
            Ok(Vec::new())
        } else if from.is_terminal() {
            Err(SessionError::IllegalTransition { from, command })
        } else {
            Ok(vec![event()])
        }
    }

    /// An edit of the stored version, as its one event.
    fn one(&self, change: &EntityChange, ctx: &Context) -> Result<Vec<SessionEvent>, SessionError> {
        let outcome = self.decide_change(change, &Base::Current, ctx)?;
        Ok(outcome.event().cloned().into_iter().collect())
    }

    /// When a session ends that is ended by this edit: then, or when it went idle before.
    pub(super) fn end_at(&self, ctx: &Context) -> i64 {
        ctx.edit().edited_at_ms.min(self.derived().idle_deadline_ms)
    }

    fn ended(&self, ended_at_ms: i64, reason: EndReason, ctx: &Context) -> SessionEvent {
        SessionEvent::Ended(SessionEnded {
            ended_at_ms,
            reason,
            set: Fields::new(),
            resolution: None,
            edit: ctx.edit(),
        })
    }

    fn attach(
        &self,
        consumption_id: Uuid,
        dose: Dose,
        ctx: &Context,
    ) -> Result<Vec<SessionEvent>, SessionError> {
        if self.status() == Status::Cancelled {
            return Err(SessionError::Cancelled);
        }
        let known = self.doses.get(&consumption_id);
        if known == Some(&dose) {
            return Ok(Vec::new());
        }
        let ended_at_ms = self.end_with(ctx, |session| {
            session.doses.insert(consumption_id, dose.clone());
        });
        let edit = ctx.edit();
        Ok(vec![if known.is_some() {
            let data = ConsumptionChanged { consumption_id, dose, ended_at_ms, edit };
            SessionEvent::ConsumptionChanged(data)
        } else {
            let data = ConsumptionAttached { consumption_id, dose, ended_at_ms, edit };
            SessionEvent::ConsumptionAttached(data)
        }])
    }

    fn detach(&self, consumption_id: Uuid, ctx: &Context) -> Vec<SessionEvent> {
        if !self.doses.contains_key(&consumption_id) {
            return Vec::new();
        }
        let ended_at_ms = self.end_with(ctx, |session| {
            session.doses.remove(&consumption_id);
        });
        let data = ConsumptionDetached { consumption_id, ended_at_ms, edit: ctx.edit() };
        vec![SessionEvent::ConsumptionDetached(data)]
    }

    /// The end of a session that is over once its consumptions change, if it moves: one that ended
    /// by idling ends an hour after its last consumption, any other never before it.
    fn end_with(&self, ctx: &Context, change: impl FnOnce(&mut Session)) -> Option<i64> {
        let ended_at_ms = self.ended_at_ms?;
        let mut after = self.clone();
        change(&mut after);
        let derived = after.derived();
        let end = match self.end_reason {
            Some(EndReason::Idle) => derived.idle_deadline_ms,
            Some(EndReason::Requested | EndReason::Replaced) | None => {
                ended_at_ms.max(derived.last_activity_ms)
            }
        };
        let end = end.min(ctx.now_ms);
        (end != ended_at_ms).then_some(end)
    }
}
