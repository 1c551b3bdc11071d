//! What time and the rule of one open session ask for when everything else is decided.

use std::collections::{BTreeMap, BTreeSet};

use super::Desk;
use super::draft::DraftEvent;
use super::facts::{EntityKey, Need};
use super::work::{Halt, Staged, Work};
use crate::AnyEvent;
use crate::entity::{AnyEntity, Context};
use crate::session::{self, Session, SessionCommand};

impl Work<'_> {
    /// Ends an open session at its idle deadline, if that has passed.
    pub fn end_if_idle(&mut self, key: EntityKey) -> Result<(), Halt> {
        let AnyEntity::Session(session) = self.entity(key)? else { return Ok(()) };
        if let Some(event) = idle_end(&session, self.ctx.now_ms) {
            self.stage(key, [event])?;
        }
        Ok(())
    }
}

fn idle_end(session: &Session, now_ms: i64) -> Option<AnyEvent> {
    let ended_at_ms = session.idle_end(now_ms)?;
    let ctx = Context { edited_at_ms: ended_at_ms, ..Context::now(now_ms) };
    let events = session.decide(SessionCommand::EndIdle { ended_at_ms }, &ctx);
    events.ok()?.pop().map(Into::into)
}

impl Desk {
    /// Ends the sessions that are idle or replaced; returns the one that is open from here on.
    pub(super) fn settle(&mut self) -> Result<Option<EntityKey>, BTreeSet<Need>> {
        let Some(reserved) = self.facts.open_session() else {
            return Err(BTreeSet::from([Need::OpenSession]));
        };
        let reserved = reserved.map(|id| EntityKey::new(&session::CONTRACT, id));
        if let Some(key) = reserved.filter(|key| !self.staged.contains_key(key)) {
            let missing = self.facts.unknown(BTreeSet::from([Need::Entity(key)]));
            if !missing.is_empty() {
                return Err(missing);
            }
        }
        let staged = self.staged.keys().filter(|key| key.contract() == &session::CONTRACT).copied();
        let keys: BTreeSet<EntityKey> = staged.chain(reserved).collect();
        let mut open: BTreeMap<EntityKey, Session> = BTreeMap::new();
        for key in keys {
            let Some(AnyEntity::Session(session)) = self.entity(key) else { continue };
            if !session.is_open() {
                continue;
            }
            match idle_end(session, self.now_ms) {
                Some(event) => self.end_by_time(key, event, None),
                None => {
                    open.insert(key, (**session).clone());
                }
            }
        }
        let rank = |(key, session): &(&EntityKey, &Session)| {
            (Some(key.id) == self.preferred, session.derived().start_ms, key.id)
        };
        let stays = open.iter().max_by_key(rank).map(|(key, session)| (*key, session.clone()));
        let Some((stays, successor)) = stays else { return Ok(None) };
        if let Some(left) = reserved.filter(|left| *left != stays) {
            // The place is passed on in one step.
            self.groups.link_entities(left, stays);
        }
        for (key, session) in open.into_iter().filter(|(key, _)| *key != stays) {
            // It ended when the other one began, as far as that is possible.
            let begun = successor.derived().start_ms.max(session.derived().last_activity_ms);
            let ctx = Context { edited_at_ms: begun.min(self.now_ms), ..Context::now(self.now_ms) };
            let events = session.decide(SessionCommand::Replace, &ctx).unwrap_or_default();
            for event in events {
                self.end_by_time(key, event.into(), Some(stays));
            }
        }
        Ok(Some(stays))
    }

    /// Stages an ending that no ask asked for. It stands or falls with the asks that touched the
    /// session, and with the session that takes its place.
    fn end_by_time(&mut self, key: EntityKey, event: AnyEvent, successor: Option<EntityKey>) {
        let Some(entity) = self.entity(key).cloned() else { return };
        let node = self.groups.add_by_time();
        self.groups.link_entity(node, key);
        if let Some(successor) = successor {
            self.groups.link_entity(node, successor);
        }
        let staged = self.staged.entry(key).or_insert_with(|| Staged::new(entity));
        staged.entity.apply(&event);
        staged.events.push(DraftEvent { item: None, event, now_ms: self.now_ms });
    }
}
