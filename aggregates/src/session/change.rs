//! A session under the rules all synced entities share.

use serde_json::Value;

use super::contract::CONTRACT;
use super::event::{
    EndReason, SessionCancelled, SessionDeleted, SessionEnded, SessionEvent, SessionPaused,
    SessionResumed, SessionStarted, SessionUpdated,
};
use super::state::{Session, Status};
use crate::conflict::{Base, Resolution};
use crate::entity::time::{format_instant, parse_instant};
use crate::entity::{
    ChangeKind, ChangeOutcome, Context, EntityChange, Fields, Refusal, Weighed, weigh,
};

impl Session {
    /// Decides a change of the whole entity, as phones push it: fields and status together are one
    /// event, named for the step of the state machine it takes.
    ///
    /// # Errors
    /// [`Refusal`] where the change can have no effect at all.
    pub fn decide_change(
        &self,
        change: &EntityChange,
        base: &Base,
        ctx: &Context,
    ) -> Result<ChangeOutcome<SessionEvent>, Refusal> {
        let mut change = self.without_derived(change);
        if !self.entity.exists() {
            with_status(&mut change, ctx);
        }
        let edit = ctx.edit();
        Ok(match weigh(&CONTRACT, &self.entity, &change, base, ctx)? {
            Weighed::Create(fields) => {
                ChangeOutcome::Accepted(SessionEvent::Started(started(fields, ctx)))
            }
            Weighed::Delete => {
                ChangeOutcome::Accepted(SessionEvent::Deleted(SessionDeleted { edit }))
            }
            Weighed::Set { set, resolution } => {
                let merged = resolution.is_some();
                let event = self.changed(set, resolution, ctx);
                if merged { ChangeOutcome::Merged(event) } else { ChangeOutcome::Accepted(event) }
            }
            Weighed::Unchanged => ChangeOutcome::Unchanged,
            Weighed::Superseded(superseded) => ChangeOutcome::Superseded(superseded),
        })
    }

    /// A phone sends back the primary product that the consumptions decided; that is no choice.
    fn without_derived(&self, change: &EntityChange) -> EntityChange {
        let mut change = change.clone();
        if change.kind != ChangeKind::Delete && self.most_used_product().is_some() {
            change.fields.remove("primaryProductId");
        }
        change
    }

    /// The event of an accepted change, by what it does to the status.
    fn changed(
        &self,
        mut set: Fields,
        resolution: Option<Resolution>,
        ctx: &Context,
    ) -> SessionEvent {
        let edit = ctx.edit();
        let status = set.remove("status");
        let status = status.as_ref().and_then(Value::as_str).and_then(Status::parse);
        match status.filter(|status| *status != self.status()) {
            None => SessionEvent::Updated(SessionUpdated { set, resolution, edit }),
            Some(Status::Paused) => SessionEvent::Paused(SessionPaused { set, resolution, edit }),
            Some(Status::Active) => SessionEvent::Resumed(SessionResumed { set, resolution, edit }),
            Some(Status::Completed) => {
                let ended_at_ms = self.end_at(ctx);
                let reason = EndReason::Requested;
                let data = SessionEnded { ended_at_ms, reason, set, resolution, edit };
                SessionEvent::Ended(data)
            }
            Some(Status::Cancelled) => {
                let ended_at_ms = self.end_at(ctx);
                let data = SessionCancelled { ended_at_ms, set, resolution, edit };
                SessionEvent::Cancelled(data)
            }
        }
    }
}

/// How far after now a new session may start, in ms. A phone whose clock is further ahead would
/// end the live session at a time to come and keep all later ones from being the live one.
const MAX_AHEAD_MS: i64 = 5 * 60_000;

/// A new session. It starts now where the phone says that it starts more than [`MAX_AHEAD_MS`]
/// from now. One that arrives complete ended when the phone says, yet not in the future and
/// not before its start; the end of an open one is only the phone's idea of the idle deadline.
fn started(mut fields: Fields, ctx: &Context) -> SessionStarted {
    let edit = ctx.edit();
    let instant = |value: &Value| value.as_str().and_then(parse_instant);
    let mut start = fields.get("sessionStartTimestamp").and_then(instant).unwrap_or(i64::MIN);
    if start > ctx.now_ms.saturating_add(MAX_AHEAD_MS) {
        start = ctx.now_ms;
        fields.insert("sessionStartTimestamp".to_owned(), format_instant(start).into());
    }
    let end = fields.remove("sessionEndTimestamp").as_ref().and_then(instant);
    let status = fields.get("status").and_then(Value::as_str).and_then(Status::parse);
    let ended_at_ms = status
        .filter(|status| status.is_terminal())
        .map(|_| end.unwrap_or(edit.edited_at_ms).max(start).min(ctx.now_ms));
    SessionStarted { fields, ended_at_ms, edit }
}

/// A new session that names an end in the past and no status is a completed one.
fn with_status(change: &mut EntityChange, ctx: &Context) {
    let end = change.fields.get("sessionEndTimestamp").and_then(Value::as_str);
    let over = end.and_then(parse_instant).is_some_and(|end| end <= ctx.now_ms);
    if over && !change.fields.contains_key("status") {
        change.fields.insert("status".to_owned(), Value::from(Status::Completed.as_str()));
    }
}
