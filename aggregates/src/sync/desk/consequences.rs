//! What a change of one entity means for others.

use serde_json::Value;
use uuid::Uuid;

use super::facts::{AliasKey, EntityKey, Need};
use super::work::{Halt, Work};
use crate::AnyEvent;
use crate::conflict::Base;
use crate::consumption::{
    self, Candidate, dose_of, session_deleted_effects, session_effects, session_for,
};
use crate::entity::time::parse_instant;
use crate::entity::{
    AnyEntity, ChangeKind, ChangeOutcome, EntityChange, EntityEvent, EntityFact, Fields, Updated,
};
use crate::session::{self, Session, SessionCommand, SessionError};

const SESSION: &str = "sessionId";
const TIMESTAMP: &str = "timestamp";

/// The session a consumption says it belongs to.
fn session_of(consumption: &AnyEntity) -> Option<EntityKey> {
    if !is_consumption(consumption) {
        return None;
    }
    let id = Uuid::parse_str(consumption.state().text(SESSION)?).ok()?;
    Some(EntityKey::new(&session::CONTRACT, id))
}

fn is_consumption(entity: &AnyEntity) -> bool {
    entity.contract() == &consumption::CONTRACT
}

impl Work<'_> {
    /// Carries out the consequences of what was just staged for the entity.
    pub fn follow(&mut self, key: EntityKey, before: &AnyEntity) -> Result<(), Halt> {
        let after = self.entity(key)?;
        match &after {
            AnyEntity::Session(session) if session.entity.deleted => self.orphan(session),
            consumption if is_consumption(consumption) => {
                let effects = session_effects(key.id, before.state(), after.state());
                let sessions =
                    effects.iter().map(|(id, _)| EntityKey::new(&session::CONTRACT, *id));
                self.require_all(sessions)?;
                for (id, command) in effects {
                    self.tell(EntityKey::new(&session::CONTRACT, id), command)?;
                }
                Ok(())
            }
            AnyEntity::Session(_) | AnyEntity::Plain { .. } => Ok(()),
        }
    }

    /// A new consumption that names no session belongs to the one it falls into.
    pub fn place(&mut self, before: &AnyEntity, change: &mut EntityChange) -> Result<(), Halt> {
        let placed = before.state().exists() || change.fields.contains_key(SESSION);
        let nulled = change.fields.get(SESSION).is_some_and(Value::is_null);
        let wanted = !placed || (nulled && !before.state().exists());
        if is_consumption(before) && change.kind != ChangeKind::Delete && wanted {
            self.fall_into(change)?;
        }
        Ok(())
    }

    /// A consumption without a session whose time is corrected may now fall into one; the change
    /// is then to be decided again with it.
    pub fn placed_after(
        &mut self,
        before: &AnyEntity,
        change: &EntityChange,
        outcome: &ChangeOutcome<AnyEvent>,
    ) -> Result<Option<EntityChange>, Halt> {
        let moved = || {
            let Some(AnyEvent::Entity(event)) = outcome.event() else { return false };
            let EntityFact::Updated(updated) = &event.fact else { return false };
            updated.set.contains_key(TIMESTAMP)
        };
        let alone = before.state().text(SESSION).is_none() && !change.fields.contains_key(SESSION);
        if !is_consumption(before) || !before.state().is_live() || !alone || !moved() {
            return Ok(None);
        }
        let mut placed = change.clone();
        self.fall_into(&mut placed)?;
        if let Some(changed) = &mut placed.changed {
            changed.insert(SESSION.to_owned());
        }
        Ok(placed.fields.contains_key(SESSION).then_some(placed))
    }

    fn fall_into(&mut self, change: &mut EntityChange) -> Result<(), Halt> {
        let at = change.fields.get(TIMESTAMP).and_then(Value::as_str).and_then(parse_instant);
        if let Some(session) = at.map(|at_ms| self.session_at(at_ms)).transpose()?.flatten() {
            change.fields.insert(SESSION.to_owned(), session.to_string().into());
        }
        Ok(())
    }

    fn session_at(&self, at_ms: i64) -> Result<Option<Uuid>, Halt> {
        self.require([Need::RecentSessions])?;
        let stored = self.desk.facts.recent_sessions().unwrap_or_default();
        let stored = stored.iter().map(|id| EntityKey::new(&session::CONTRACT, *id));
        let mut keys: Vec<EntityKey> = stored.collect();
        keys.extend(
            self.desk.staged.keys().filter(|key| key.contract() == &session::CONTRACT).copied(),
        );
        keys.sort_unstable();
        keys.dedup();
        self.require_all(keys.iter().copied())?;
        let mut candidates = Vec::new();
        for key in keys {
            if let AnyEntity::Session(session) = self.entity(key)?
                && session.entity.exists()
            {
                candidates.extend(Candidate::of(key.id, &session));
            }
        }
        Ok(session_for(at_ms, candidates))
    }

    /// A command that follows from something else. A session that is not there, is deleted or is
    /// cancelled has nothing to do with it.
    fn tell(&mut self, key: EntityKey, command: SessionCommand) -> Result<(), Halt> {
        let AnyEntity::Session(session) = self.entity(key)? else { return Ok(()) };
        match session.decide(command, &self.ctx) {
            Ok(events) if events.is_empty() => Ok(()),
            Ok(events) => self.stage(key, events),
            Err(SessionError::NotFound | SessionError::Cancelled) => Ok(()),
            Err(error) => Err(Halt::Refused(super::AskError::Session(error))),
        }
    }

    /// The consumptions of a deleted session live on by themselves.
    fn orphan(&mut self, session: &Session) -> Result<(), Halt> {
        let effects = session_deleted_effects(session);
        let key = |id: Uuid| EntityKey::new(&consumption::CONTRACT, id);
        self.require_all(effects.iter().map(|(id, _)| key(*id)))?;
        for (id, change) in effects {
            let outcome = self.entity(key(id))?.decide_change(&change, &Base::Current, &self.ctx);
            if let Some(event) = outcome.ok().as_ref().and_then(ChangeOutcome::event) {
                self.stage(key(id), [event.clone()])?;
            }
        }
        Ok(())
    }

    /// Sets a reference by an event of its own.
    fn refer(&mut self, key: EntityKey, field: &str, value: Value) -> Result<(), Halt> {
        let set = Fields::from([(field.to_owned(), value)]);
        let updated = Updated { set, resolution: None, edit: self.ctx.edit() };
        let fact = EntityFact::Updated(updated);
        self.stage(key, [EntityEvent { contract: key.contract(), fact }])
    }

    /// Gives the children that waited for a client id their parent.
    pub fn heal(
        &mut self,
        alias: &AliasKey,
        parent: EntityKey,
        waiting: &[EntityKey],
    ) -> Result<(), Halt> {
        self.require_all(waiting.iter().copied())?;
        for child in waiting {
            let entity = self.entity(*child)?;
            if !entity.state().is_live() {
                continue;
            }
            let target = parent.id.to_string();
            for (field, _) in child.contract().references() {
                let refers = entity.state().text(field.name) == Some(alias.text.as_str());
                if refers && alias.text != target {
                    self.refer(*child, field.name, target.clone().into())?;
                }
            }
            let after = self.entity(*child)?;
            if let Some(dose) =
                dose_of(after.state()).filter(|_| session_of(&after) == Some(parent))
            {
                let attach = SessionCommand::AttachConsumption { consumption_id: child.id, dose };
                self.tell(parent, attach)?;
            }
        }
        Ok(())
    }
}
