//! A log in memory with the state that belongs to it, as a source for projectors under test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use aggregates::entity::{AnyEntity, Created, Edit, EntityEvent, EntityFact, Fields};
use aggregates::entity::{Deleted, Updated, find_contract_of_stream};
use aggregates::health_batch::{Applied, Correction, Facts, HealthBatchEvent};
use aggregates::metric::{Metric, Micro};
use aggregates::projection::{EventSkipped, ProjectionEvent};
use aggregates::segment::{Key, OffsetSource, Revision, Sample};
use aggregates::subject::{KeyDestroyed, SubjectEvent};
use aggregates::user::{HealthPrivacy, UserEvent, UserHealthPrivacyChanged};
use aggregates::{AnyEvent, Content, Metadata, Purpose, Recorded, StreamId, UserId};
use projections::entities::Entity;
use projections::freshness::UserHead;
use serde_json::json;
use tidemark::projector::{LogReader, Page, SourceError, StateReader, Unreadable};
use tokio::sync::Notify;
use uuid::Uuid;

pub const DAY_MS: i64 = 86_400_000;
/// 2024-10-04T00:00:00Z.
pub const START_MS: i64 = 20_000 * DAY_MS;

/// What is wrong with a person's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Their state cannot be read.
    State,
    /// Their events do not decode.
    Events,
    /// Reading their state panics.
    Panic,
    /// This event of theirs does not decode.
    Event(i64),
    /// Their state of the time of this record cannot be read.
    Record(i64),
    /// Whoever opens this event of theirs does not come back.
    Deadly(i64),
    /// Whoever reads their state does not come back.
    DeadlyState,
    /// The state is away for the moment.
    Away,
}

#[derive(Default)]
struct Inner {
    log: Vec<Recorded>,
    samples: BTreeMap<UserId, BTreeMap<Key, Sample>>,
    heads: BTreeMap<UserId, UserHead>,
    poison: BTreeMap<UserId, Poison>,
    /// The limits of the pages that were asked for.
    limits: Vec<i64>,
}

/// Cheap to clone; all clones are one log.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Inner>>, Arc<Notify>);

/// The `n`th person; with eight shards, `n` mod 8 is the shard.
pub fn person(n: u8) -> UserId {
    let mut bytes = [0x40; 16];
    bytes[15] = n;
    UserId(Uuid::from_bytes(bytes))
}

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Ends when somebody has met what kills.
    pub async fn killed(&self) {
        self.1.notified().await;
    }

    async fn kill(&self) {
        self.1.notify_one();
        std::future::pending::<()>().await;
    }

    /// Comes back unless a page holds what kills.
    async fn survive(&self, page: &Page) {
        let deadly = |event: &Recorded| {
            let poison = self.inner().poison.get(&event.user).copied();
            poison == Some(Poison::Deadly(event.position))
        };
        if page.events.iter().any(deadly) {
            self.kill().await;
        }
    }

    pub fn poison(&self, user: UserId, poison: Option<Poison>) {
        match poison {
            Some(poison) => self.inner().poison.insert(user, poison),
            None => self.inner().poison.remove(&user),
        };
    }

    /// A person allows aggregation or not.
    pub fn allow(&self, user: UserId, allow_aggregation: bool) {
        let health = HealthPrivacy { allow_aggregation, ..HealthPrivacy::default() };
        let rules = UserHealthPrivacyChanged { health, edit: edit(START_MS) };
        let mut inner = self.inner();
        let stream = StreamId::new("user", user);
        let position = inner.append(user, stream, UserEvent::HealthPrivacyChanged(rules));
        inner.heads.entry(user).or_default().pos_other = position;
    }

    /// An operator has a projector leave out an event of a person.
    pub fn skip(&self, user: UserId, projector: &str, position: i64) {
        let (by, reference) = ("ada@desk".to_owned(), "OPS-1".to_owned());
        let projector = projector.to_owned();
        let skipped = EventSkipped { projector, position, by, reference };
        let mut inner = self.inner();
        let stream = StreamId::new("projection", Uuid::from_u128(inner.log.len() as u128));
        let position = inner.append(user, stream, ProjectionEvent::EventSkipped(skipped));
        inner.heads.entry(user).or_default().pos_other = position;
    }

    /// The limits of the pages that were asked for since the last question.
    pub fn limits(&self) -> Vec<i64> {
        std::mem::take(&mut self.inner().limits)
    }

    pub fn head_now(&self) -> i64 {
        self.inner().log.len() as i64
    }

    /// A person uploads one sample of steps: the `slot`th record, with a value, on a day.
    pub fn steps(&self, user: UserId, slot: i64, value: i64, offset_min: i16) {
        let key = Key {
            start_ms: START_MS + slot * DAY_MS / 2,
            source_id: "watch".into(),
            record_id: format!("r{slot}").into(),
        };
        let after = Sample {
            key: key.clone(),
            metric: Metric::parse("steps").unwrap(),
            end_ms: key.start_ms + 60_000,
            value: Some(Micro::whole(value)),
            category: None,
            duration_s: None,
            offset_min: Some(offset_min),
            offset_source: OffsetSource::Sample,
            device_id: None,
            external_uuid: None,
            metadata: None,
            revision: Revision::default(),
            batch_seq: 0,
            created_ms: 0,
            deleted_ms: None,
        };
        let mut inner = self.inner();
        let samples = inner.samples.entry(user).or_default();
        let mut applied = Applied::default();
        match samples.insert(key, after.clone()) {
            Some(before) => applied.corrected.push(Correction { before, after }),
            None => applied.recorded.push(after),
        }
        inner.upload(user, applied);
    }

    /// A person deletes one of these samples.
    pub fn delete_steps(&self, user: UserId, slot: i64) {
        let mut inner = self.inner();
        let record: Arc<str> = format!("r{slot}").into();
        let samples = inner.samples.entry(user).or_default();
        let mut applied = Applied::default();
        for sample in samples.values_mut().filter(|sample| sample.key.record_id == record) {
            sample.deleted_ms = Some(1);
            applied.deleted.push(sample.clone());
        }
        inner.upload(user, applied);
    }

    /// A person logs a consumption.
    pub fn consume(&self, user: UserId, id: Uuid, at_ms: i64, notes: &str) {
        let fields: Fields = [
            ("clientConsumptionId", json!(id.to_string())),
            ("timestamp", json!(aggregates::entity::time::format_instant(at_ms))),
            ("durationMs", json!(1000)),
            ("notes", json!(notes)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        self.entity(user, id, EntityFact::Created(Created { fields, edit: edit(at_ms) }));
    }

    /// A person edits the notes of a consumption.
    pub fn annotate(&self, user: UserId, id: Uuid, notes: &str) {
        let set: Fields = [("notes".to_owned(), json!(notes))].into();
        let updated = Updated { set, resolution: None, edit: edit(START_MS) };
        self.entity(user, id, EntityFact::Updated(updated));
    }

    /// A person deletes a consumption.
    pub fn unconsume(&self, user: UserId, id: Uuid) {
        self.entity(user, id, EntityFact::Deleted(Deleted { edit: edit(START_MS) }));
    }

    fn entity(&self, user: UserId, id: Uuid, fact: EntityFact) {
        let contract = &aggregates::consumption::CONTRACT;
        let stream = StreamId::new(contract.aggregate_type, id);
        let mut inner = self.inner();
        let position = inner.append(user, stream, EntityEvent { contract, fact });
        inner.heads.entry(user).or_default().pos_session = position;
    }

    /// A person's key is destroyed: what it sealed no longer opens.
    pub fn erase(&self, user: UserId, purpose: Purpose) {
        let mut inner = self.inner();
        if purpose == Purpose::Health {
            inner.samples.remove(&user);
        }
        for event in inner.log.iter_mut().filter(|event| event.user == user) {
            if event.event().is_some_and(|open| open.descriptor().purpose == Some(purpose)) {
                event.content = Content::Shredded;
            }
        }
        let destroyed =
            KeyDestroyed { key_id: Uuid::nil(), purpose, reason: "user_request".to_owned() };
        let stream = StreamId::new("subject", user);
        let position = inner.append(user, stream, SubjectEvent::KeyDestroyed(destroyed));
        inner.heads.entry(user).or_default().pos_other = position;
    }

    pub fn head_of(&self, user: UserId) -> UserHead {
        self.inner().heads.get(&user).copied().unwrap_or_default()
    }
}

fn edit(at_ms: i64) -> Edit {
    Edit { at_ms, edited_at_ms: at_ms, origin: None }
}

impl Inner {
    fn upload(&mut self, user: UserId, applied: Applied) {
        let head = self.heads.entry(user).or_default();
        head.health_seq += 1;
        let facts = Facts { changed: true, health_seq: head.health_seq, ..Facts::default() };
        let event = HealthBatchEvent::Applied(Box::new(Applied { facts, ..applied }));
        let stream = StreamId::new("health_batch", Uuid::from_u128(self.log.len() as u128));
        let position = self.append(user, stream, event);
        self.heads.entry(user).or_default().pos_health = position;
    }

    fn append(&mut self, user: UserId, stream: StreamId, event: impl Into<AnyEvent>) -> i64 {
        let event: AnyEvent = event.into();
        let position = self.log.len() as i64 + 1;
        self.log.push(Recorded {
            position,
            committed_ms: position,
            event_id: Uuid::from_u128(position.unsigned_abs().into()),
            stream,
            sequence: position,
            user,
            event_type: event.descriptor().name.to_owned(),
            recorded_at_ms: position,
            content: Content::Open {
                event: Box::new(event),
                metadata: Metadata::system("test", Uuid::nil()),
            },
        });
        position
    }

    fn page<'a>(&self, events: impl Iterator<Item = &'a Recorded>, through: i64) -> Page {
        let mut page = Page { through, ..Page::default() };
        for event in events {
            let broken = match self.poison.get(&event.user) {
                Some(Poison::Events) => true,
                Some(Poison::Event(position)) => *position == event.position,
                _ => false,
            };
            if broken && event.stream.aggregate_type != "subject" {
                page.unreadable.push(Unreadable {
                    position: event.position,
                    user: event.user,
                    aggregate_type: event.stream.aggregate_type.clone(),
                    class: "broken",
                });
            } else {
                page.events.push(event.clone());
            }
        }
        page
    }

    fn check(&self, user: UserId) -> Result<(), SourceError> {
        match self.poison.get(&user) {
            Some(Poison::State) => Err(SourceError::Unreadable { class: "broken" }),
            Some(Poison::Away) => Err(SourceError::Unavailable("away".into())),
            _ => Ok(()),
        }
    }
}

impl LogReader for World {
    async fn page(&self, after: i64, limit: i64) -> Result<Page, SourceError> {
        let page = {
            let mut inner = self.inner();
            inner.limits.push(limit);
            let to = (after + limit).min(inner.log.len() as i64).max(after);
            inner.page(inner.log[after as usize..to as usize].iter(), to)
        };
        self.survive(&page).await;
        Ok(page)
    }

    async fn unopened(
        &self,
        after: i64,
        limit: i64,
        class: &'static str,
    ) -> Result<Page, SourceError> {
        let inner = self.inner();
        let to = (after + limit).min(inner.log.len() as i64).max(after);
        let closed = inner.log[after as usize..to as usize].iter().map(|event| Unreadable {
            position: event.position,
            user: event.user,
            aggregate_type: event.stream.aggregate_type.clone(),
            class,
        });
        Ok(Page { events: Vec::new(), unreadable: closed.collect(), through: to })
    }

    async fn user_page(
        &self,
        user: UserId,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Page, SourceError> {
        let page = {
            let inner = self.inner();
            let mine = |event: &&Recorded| {
                event.user == user && event.position > after && event.position <= upto
            };
            let events: Vec<&Recorded> =
                inner.log.iter().filter(mine).take(limit as usize).collect();
            let more = events.len() == limit as usize;
            let through = events.last().filter(|_| more).map_or(upto, |event| event.position);
            inner.page(events.into_iter(), through)
        };
        self.survive(&page).await;
        Ok(page)
    }

    async fn users(&self, after: Option<UserId>, limit: i64) -> Result<Vec<UserId>, SourceError> {
        let users: BTreeSet<UserId> = self.inner().log.iter().map(|event| event.user).collect();
        let later = users.into_iter().filter(|user| after.is_none_or(|after| *user > after));
        Ok(later.take(limit as usize).collect())
    }

    async fn head(&self) -> Result<i64, SourceError> {
        Ok(self.head_now())
    }
}

impl StateReader for World {
    async fn samples(
        &self,
        user: UserId,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Sample>, SourceError> {
        let panics = self.inner().poison.get(&user) == Some(&Poison::Panic);
        assert!(!panics, "as the test wants it");
        let poison = self.inner().poison.get(&user).copied();
        match poison {
            Some(Poison::DeadlyState) => self.kill().await,
            Some(Poison::Record(slot))
                if (from_ms..to_ms).contains(&(START_MS + slot * DAY_MS / 2)) =>
            {
                return Err(SourceError::Unreadable { class: "broken" });
            }
            _ => {}
        }
        let inner = self.inner();
        inner.check(user)?;
        let samples = inner.samples.get(&user).into_iter().flat_map(BTreeMap::values);
        Ok(samples
            .filter(|sample| (from_ms..to_ms).contains(&sample.key.start_ms))
            .cloned()
            .collect())
    }

    async fn entity(&self, stream: &StreamId) -> Result<Option<Entity>, SourceError> {
        let inner = self.inner();
        let contract = find_contract_of_stream(&stream.aggregate_type).unwrap();
        let mut entity: Option<Entity> = None;
        for event in inner.log.iter().filter(|event| event.stream == *stream) {
            inner.check(event.user)?;
            if let Some(happened) = event.event() {
                let entity = entity.get_or_insert_with(|| Entity {
                    user: event.user,
                    stream: stream.clone(),
                    position: 0,
                    state: AnyEntity::new(contract),
                });
                entity.state.apply(happened);
                entity.position = event.position;
            }
        }
        Ok(entity)
    }

    async fn user_head(&self, user: UserId) -> Result<UserHead, SourceError> {
        Ok(self.head_of(user))
    }
}
