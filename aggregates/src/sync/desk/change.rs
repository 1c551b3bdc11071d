//! Deciding one ask: which entity, which references, which base, which event.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ask::{Ack, Action, Ask, AskError, BasePoint, Effect, Verdict};
use super::facts::{AliasKey, EntityKey, History, Need, parse_id};
use super::work::{Halt, Work};
use crate::AnyEvent;
use crate::conflict::{Base, Resolution, TwoWayReason};
use crate::entity::{
    AnyEntity, ChangeKind, ChangeOutcome, Context, EntityChange, Fields, Refusal, find_contract,
};
use crate::session::{SessionCommand, SessionError};
use crate::sync::{edit_of, resolution_of};

/// The entity an ask is about.
struct Located {
    key: EntityKey,
    exists: bool,
}

impl Ask {
    fn fields(&self) -> Option<&Fields> {
        match &self.action {
            Action::Change { change, .. } => Some(&change.fields),
            Action::Create(fields) => Some(fields),
            Action::Session(
                SessionCommand::Start { fields } | SessionCommand::Update { fields, .. },
            ) => Some(fields),
            Action::Session(_) => None,
        }
    }

    fn creates(&self) -> bool {
        match &self.action {
            Action::Change { change, .. } => change.kind == ChangeKind::Create,
            Action::Create(_) => true,
            Action::Session(command) => matches!(command, SessionCommand::Start { .. }),
        }
    }

    /// The ids the entity may be known by, most telling first. The client's own field names it for
    /// ever, so a creation goes by that; everything else goes by the id it is addressed with.
    fn aliases(&self) -> Vec<AliasKey> {
        let own = self.contract.client_id_field.and_then(|field| self.fields()?.get(field));
        let own = own.and_then(Value::as_str);
        let given = self.ids.iter().map(String::as_str);
        let texts: Vec<&str> = if self.creates() {
            own.into_iter().chain(given).collect()
        } else {
            given.chain(own).collect()
        };
        let mut aliases: Vec<AliasKey> = Vec::new();
        for text in texts {
            let alias = AliasKey::new(self.contract, text);
            if !aliases.contains(&alias) {
                aliases.push(alias);
            }
        }
        aliases
    }
}

/// The references of an ask, as client ids of entities the server knows a contract for.
fn references(ask: &Ask) -> Vec<(&'static crate::entity::Field, AliasKey)> {
    let Some(fields) = ask.fields() else { return Vec::new() };
    let mut found = Vec::new();
    for (field, target) in ask.contract.references() {
        let text = fields.get(field.name).and_then(Value::as_str);
        if let (Some(target), Some(text)) = (find_contract(target), text) {
            found.push((field, AliasKey::new(target, text)));
        }
    }
    found
}

pub(super) fn foreseen_aliases(ask: &Ask) -> BTreeSet<AliasKey> {
    ask.aliases().into_iter().chain(references(ask).into_iter().map(|(_, alias)| alias)).collect()
}

pub(super) fn foreseen_keys(ask: &Ask) -> BTreeSet<EntityKey> {
    let own = ask.ids.iter().filter_map(|text| parse_id(text));
    let own = own.map(|id| EntityKey::new(ask.contract, id));
    let others = references(ask).into_iter().filter_map(|(_, alias)| {
        Some(EntityKey::new(find_contract(alias.entity_type)?, parse_id(&alias.text)?))
    });
    own.chain(others).collect()
}

impl Work<'_> {
    /// Decides the ask with all its consequences.
    pub fn ask(&mut self, ask: &Ask) -> Result<Verdict, Halt> {
        self.require([Need::OpenSession])?;
        let located = self.locate(ask)?;
        let (effect, resolution) = match &ask.action {
            Action::Change { change, base } => self.change(ask, &located, change, base)?,
            Action::Create(_) if located.exists => (Effect::Unchanged, None),
            Action::Create(fields) => {
                let change = EntityChange::new(ChangeKind::Create, fields.clone());
                self.change(ask, &located, &change, &BasePoint::Current)?
            }
            Action::Session(command) => (self.command(ask, &located, command.clone())?, None),
        };
        if effect == Effect::Created || (located.exists && ask.creates()) {
            self.name(ask, located.key)?;
        }
        Ok(Verdict { key: located.key, effect, version: 0, resolution })
    }

    fn locate(&mut self, ask: &Ask) -> Result<Located, Halt> {
        let aliases = ask.aliases();
        self.require(aliases.iter().cloned().map(Need::Alias))?;
        for alias in &aliases {
            if let Some(key) = self.resolve(alias)? {
                return Ok(Located { key, exists: true });
            }
        }
        let adopted = ask.ids.iter().find_map(|text| parse_id(text));
        if let Some(id) = adopted {
            let key = EntityKey::new(ask.contract, id);
            if !self.is_foreign(key)? {
                let exists = self.entity(key)?.state().exists();
                return Ok(Located { key, exists });
            }
        }
        Ok(Located { key: EntityKey::new(ask.contract, ask.fresh_id), exists: false })
    }

    fn change(
        &mut self,
        ask: &Ask,
        located: &Located,
        change: &EntityChange,
        point: &BasePoint,
    ) -> Result<(Effect, Option<Resolution>), Halt> {
        let key = located.key;
        let before = self.entity(key)?;
        if change.kind == ChangeKind::Delete && !before.state().exists() {
            return Ok((Effect::Unchanged, None));
        }
        let mut change = change.clone();
        let waiting = self.translate(ask, &mut change.fields)?;
        if !before.state().exists() {
            identify(ask, &mut change.fields);
        }
        let base = self.base(key, &before, point, &ask.ctx)?;
        self.place(&before, &mut change)?;
        let outcome = before.decide_change(&change, &base, &self.ctx).map_err(refused)?;
        let outcome = match self.placed_after(&before, &change, &outcome)? {
            Some(placed) => before.decide_change(&placed, &base, &self.ctx).map_err(refused)?,
            None => outcome,
        };
        let (event, effect) = match outcome {
            ChangeOutcome::Unchanged => return Ok((Effect::Unchanged, None)),
            ChangeOutcome::Superseded(superseded) => {
                self.require([Need::Recovery])?;
                let resolution = superseded.resolution.clone();
                self.put_aside(key, superseded, ask.request_id.clone());
                return Ok((Effect::Superseded, resolution));
            }
            ChangeOutcome::Merged(event) => (event, Effect::Merged),
            ChangeOutcome::Accepted(event) => {
                let effect = match change.kind {
                    _ if !before.state().exists() => Effect::Created,
                    ChangeKind::Delete => Effect::Deleted,
                    ChangeKind::Create | ChangeKind::Update => Effect::Updated,
                };
                (event, effect)
            }
        };
        let resolution = resolution_of(&event).cloned();
        self.stage(key, [event])?;
        self.wait(key, waiting)?;
        self.follow(key, &before)?;
        Ok((effect, resolution))
    }

    fn command(
        &mut self,
        ask: &Ask,
        located: &Located,
        mut command: SessionCommand,
    ) -> Result<Effect, Halt> {
        let key = located.key;
        let mut waiting = Vec::new();
        if let SessionCommand::Start { fields } | SessionCommand::Update { fields, .. } =
            &mut command
        {
            waiting = self.translate(ask, fields)?;
            if !located.exists {
                identify(ask, fields);
            }
        }
        let before = self.entity(key)?;
        if !matches!(command, SessionCommand::Delete | SessionCommand::Start { .. }) {
            self.end_if_idle(key)?;
        }
        let AnyEntity::Session(session) = self.entity(key)? else {
            return Err(AskError::Unknown.into());
        };
        let deletes = matches!(command, SessionCommand::Delete);
        let events = session.decide(command, &self.ctx).map_err(AskError::of_session)?;
        if events.is_empty() {
            return Ok(Effect::Unchanged);
        }
        self.stage(key, events)?;
        self.wait(key, waiting)?;
        self.follow(key, &before)?;
        Ok(match (before.state().exists(), deletes) {
            (false, _) => Effect::Created,
            (true, true) => Effect::Deleted,
            (true, false) => Effect::Updated,
        })
    }

    /// Replaces client ids in references by server ids. Those nobody holds yet stay as they are and
    /// are returned.
    fn translate(
        &mut self,
        ask: &Ask,
        fields: &mut Fields,
    ) -> Result<Vec<(&'static str, AliasKey)>, Halt> {
        let references = references(ask);
        self.require(references.iter().map(|(_, alias)| Need::Alias(alias.clone())))?;
        let mut waiting = Vec::new();
        for (field, alias) in references {
            if let Some(target) = self.resolve(&alias)? {
                fields.insert(field.name.to_owned(), target.id.to_string().into());
            } else if field.required_on_create {
                return Err(Halt::Refused(AskError::MissingReference {
                    field: field.name,
                    target: alias.entity_type,
                    value: alias.text,
                }));
            } else {
                waiting.push((field.name, alias));
            }
        }
        Ok(waiting)
    }

    /// Enters the entity into the waiting lists of the references it has and nobody holds.
    fn wait(&mut self, key: EntityKey, waiting: Vec<(&'static str, AliasKey)>) -> Result<(), Halt> {
        let entity = self.entity(key)?;
        for (field, alias) in waiting {
            if entity.state().text(field) != Some(alias.text.as_str()) {
                continue;
            }
            let mut holders = self.holders(&alias)?.to_vec();
            if !holders.contains(&key) {
                holders.push(key);
                self.hold(alias, holders);
            }
        }
        Ok(())
    }

    /// Gives the entity every id the ask knows it by, and heals the references that waited.
    fn name(&mut self, ask: &Ask, key: EntityKey) -> Result<(), Halt> {
        let mut aliases = ask.aliases();
        let own = AliasKey::new(ask.contract, &key.id.to_string());
        if !aliases.contains(&own) {
            aliases.push(own);
        }
        self.require(aliases.iter().cloned().map(Need::Alias))?;
        for alias in aliases {
            let holders = self.holders(&alias)?.to_vec();
            if holders.first().is_some_and(|first| first.contract() == key.contract()) {
                continue;
            }
            let mut after = holders.clone();
            match after.first_mut() {
                None => after.push(key),
                Some(first) => {
                    *first = key;
                    // Whoever decides to wait at this moment wants this slot, and has to look again.
                    after.push(key);
                }
            }
            self.hold(alias.clone(), after);
            self.heal(&alias, key, &holders)?;
        }
        Ok(())
    }

    /// What the person was looking at.
    fn base(
        &self,
        key: EntityKey,
        now: &AnyEntity,
        point: &BasePoint,
        ctx: &Context,
    ) -> Result<Base, Halt> {
        let facts = &self.desk.facts;
        let Some((stored, position)) = facts.stored(key) else {
            return Ok(before_this_request(None, now, point));
        };
        let version = stored.state().version;
        let seen = match point {
            BasePoint::Current => return Ok(Base::Current),
            BasePoint::Version(seen) => *seen,
            BasePoint::Seen { acks, below } => {
                let below = below.map_or(i64::MAX, |below| below.saturating_sub(1).max(0));
                let proven = match acks.first() {
                    None if ctx.origin.is_none() => 0,
                    Some(latest) if position <= latest.position => version,
                    Some(_) | None => {
                        self.require([Need::History(key)])?;
                        match facts.history(key) {
                            Some(History::Events(events)) => {
                                let changes: Vec<i64> = events.iter().map(|(at, _)| *at).collect();
                                with_own(Ack::proven(acks, &changes), events, ctx)
                            }
                            Some(History::TooLong) | None => return Ok(too_old()),
                        }
                    }
                };
                proven.min(below)
            }
        };
        if seen >= version {
            return Ok(before_this_request(Some(stored), now, point));
        }
        if seen <= 0 {
            return Ok(Base::At { version: 0, fields: Fields::new() });
        }
        self.require([Need::History(key)])?;
        Ok(match facts.history(key) {
            Some(History::Events(events)) => {
                AnyEntity::base_at(key.contract(), events.iter().map(|(_, event)| event), seen)
            }
            Some(History::TooLong) | None => too_old(),
        })
    }
}

/// The version seen, raised over those that follow which the same installation made itself: it
/// showed them before anybody acknowledged anything. Not over what it made only after this edit,
/// nor over a merge, whose result it does not know before it pulls.
fn with_own(proven: i64, events: &[(i64, AnyEvent)], ctx: &Context) -> i64 {
    let own = |event: &AnyEvent| {
        resolution_of(event).is_none()
            && edit_of(event).is_some_and(|edit| {
                edit.origin.is_some()
                    && edit.origin == ctx.origin
                    && edit.edited_at_ms <= ctx.edited_at_ms
            })
    };
    let after = events.iter().skip(usize::try_from(proven).unwrap_or(usize::MAX));
    let more = after.take_while(|(_, event)| own(event)).count();
    proven.saturating_add(i64::try_from(more).unwrap_or(i64::MAX))
}

/// The base of an edit that saw everything stored. Earlier changes of the same request come from
/// the same hand and are weighed by the time of the edit, not by their place in the request.
fn before_this_request(stored: Option<&AnyEntity>, now: &AnyEntity, point: &BasePoint) -> Base {
    let version = stored.map_or(0, |stored| stored.state().version);
    if *point == BasePoint::Current || now.state().version == version {
        return Base::Current;
    }
    let fields = stored.map(|stored| stored.state().fields.clone()).unwrap_or_default();
    Base::At { version, fields }
}

fn too_old() -> Base {
    Base::Unknown { reason: TwoWayReason::BaseTooOld }
}

/// A creation that does not repeat the client's id in its fields means the id it is addressed by.
fn identify(ask: &Ask, fields: &mut Fields) {
    if let (Some(field), Some(id)) = (ask.contract.client_id_field, ask.ids.first()) {
        fields.entry(field.to_owned()).or_insert_with(|| Value::from(id.as_str()));
    }
}

fn refused(refusal: Refusal) -> Halt {
    Halt::Refused(match refusal {
        Refusal::Invalid(errors) => AskError::Invalid(errors),
        Refusal::Orphan => AskError::Unknown,
    })
}

impl AskError {
    fn of_session(error: SessionError) -> Self {
        match error {
            SessionError::NotFound => Self::Unknown,
            SessionError::Invalid(errors) => Self::Invalid(errors),
            error => Self::Session(error),
        }
    }
}
