//! What a desk needs to know, from the log.

use std::collections::{BTreeMap, BTreeSet};

use aggregates::entity::{AnyEntity, SyncRecovery, find_contract_of_stream};
use aggregates::session;
use aggregates::sync::desk::{AliasKey, EntityKey, Fact, History, Known, Need};
use aggregates::{AnyEvent, Content, StreamId, UserId};
use cqrs_es::Aggregate;
use uuid::Uuid;

use super::names::{ALIAS, Names, OPEN_SESSION};
use crate::commands::load;
use crate::store::streams::{Holder, StreamHead};
use crate::store::{ReadError, Store};

/// Sessions looked at to find the one a consumption falls into: those that changed last.
const RECENT: i64 = 32;
/// Events folded at most to see an entity as it was.
const HISTORY: i64 = 5000;
/// Events of one read.
const PAGE: i64 = 500;

/// Tells a desk about one person's part of the log.
pub(super) struct Teller<'a> {
    pub store: &'a Store,
    pub user: UserId,
    pub names: &'a Names,
}

impl Teller<'_> {
    /// Everything needed, and the entities that will be needed next in consequence.
    pub async fn tell(&self, needs: &BTreeSet<Need>) -> Result<Vec<Fact>, ReadError> {
        let mut facts = Vec::new();
        let mut keys = BTreeSet::new();
        let mut aliases = Vec::new();
        for need in needs {
            match need {
                Need::Alias(alias) => aliases.push(alias.clone()),
                Need::Entity(key) => {
                    keys.insert(*key);
                }
                Need::History(key) => facts.push(self.history(*key).await?),
                Need::OpenSession => {
                    let open = self.open_session().await?;
                    keys.extend(open.map(|id| EntityKey::new(&session::CONTRACT, id)));
                    facts.push(Fact::OpenSession(open));
                }
                Need::RecentSessions => facts.extend(self.recent_sessions().await?),
                Need::Recovery => facts.push(self.recovery().await?),
            }
        }
        for (alias, holders) in self.aliases(aliases).await? {
            keys.extend(holders.iter().copied());
            facts.push(Fact::Alias(alias, holders));
        }
        facts.extend(self.entities(keys).await?);
        Ok(facts)
    }

    async fn aliases(
        &self,
        aliases: Vec<AliasKey>,
    ) -> Result<Vec<(AliasKey, Vec<EntityKey>)>, ReadError> {
        if aliases.is_empty() {
            return Ok(Vec::new());
        }
        let hashes: Vec<Vec<u8>> = aliases.iter().map(|alias| self.names.alias(alias, 0)).collect();
        let holders = self.store.holders(ALIAS, &hashes).await?;
        let mut holders: BTreeMap<Vec<u8>, EntityKey> =
            holders.iter().filter_map(|h| Some((h.hmac.clone(), self.key_of(h)?))).collect();
        let mut found = Vec::with_capacity(aliases.len());
        for (alias, hash) in aliases.into_iter().zip(hashes) {
            let mut slots: Vec<EntityKey> = holders.remove(&hash).into_iter().collect();
            // Others wait for an entity that has not arrived: a short list, read to its end.
            while slots
                .first()
                .is_some_and(|first| first.contract().entity_type != alias.entity_type)
            {
                let next = self.names.alias(&alias, slots.len());
                let holder = self.store.holders(ALIAS, &[next]).await?;
                match holder.first().and_then(|holder| self.key_of(holder)) {
                    Some(key) => slots.push(key),
                    None => break,
                }
            }
            found.push((alias, slots));
        }
        Ok(found)
    }

    fn key_of(&self, holder: &Holder) -> Option<EntityKey> {
        let stream = holder.stream.as_ref().filter(|_| holder.user == self.user)?;
        let contract = find_contract_of_stream(&stream.aggregate_type)?;
        Some(EntityKey::new(contract, Uuid::parse_str(&stream.aggregate_id).ok()?))
    }

    async fn open_session(&self) -> Result<Option<Uuid>, ReadError> {
        let holders = self.store.holders(OPEN_SESSION, &[self.names.open_session()]).await?;
        Ok(holders.first().and_then(|holder| self.key_of(holder)).map(|key| key.id))
    }

    async fn recent_sessions(&self) -> Result<Vec<Fact>, ReadError> {
        let contract = &session::CONTRACT;
        let heads = self.store.recent(self.user, contract.aggregate_type, RECENT).await?;
        let mut ids = Vec::with_capacity(heads.len());
        let mut facts = Vec::with_capacity(heads.len() + 1);
        for head in heads {
            let Ok(id) = Uuid::parse_str(&head.stream.aggregate_id) else { continue };
            ids.push(id);
            let known = self.known(EntityKey::new(contract, id), head).await?;
            facts.push(Fact::Entity(EntityKey::new(contract, id), known));
        }
        facts.push(Fact::RecentSessions(ids));
        Ok(facts)
    }

    async fn recovery(&self) -> Result<Fact, ReadError> {
        let stream = StreamId::new(SyncRecovery::TYPE, self.user);
        let heads = self.store.heads(&[stream]).await?;
        Ok(Fact::Recovery(heads.first().map_or(0, |head| head.sequence)))
    }

    async fn entities(&self, keys: BTreeSet<EntityKey>) -> Result<Vec<Fact>, ReadError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let streams: Vec<StreamId> = keys.iter().map(EntityKey::stream).collect();
        let heads = self.store.heads(&streams).await?;
        let mut heads: BTreeMap<StreamId, StreamHead> =
            heads.into_iter().map(|head| (head.stream.clone(), head)).collect();
        let mut facts = Vec::with_capacity(keys.len());
        for key in keys {
            let known = match heads.remove(&key.stream()) {
                None => Known::Absent,
                Some(head) => self.known(key, head).await?,
            };
            facts.push(Fact::Entity(key, known));
        }
        Ok(facts)
    }

    async fn known(&self, key: EntityKey, head: StreamHead) -> Result<Known, ReadError> {
        if head.user != self.user {
            return Ok(Known::Foreign);
        }
        let position = head.position;
        let entity = open(self.store, key, head).await?;
        Ok(Known::Stored { entity, position })
    }

    async fn history(&self, key: EntityKey) -> Result<Fact, ReadError> {
        let heads = self.store.heads(&[key.stream()]).await?;
        let history = match heads.first() {
            Some(head) if head.user == self.user && head.sequence <= HISTORY => {
                History::Events(events(self.store, key, head.sequence).await?)
            }
            Some(head) if head.user == self.user => History::TooLong,
            _ => History::Events(Vec::new()),
        };
        Ok(Fact::History(key, history))
    }
}

/// The entity behind a head: its stored state, or its events where the state is of an older fold.
pub(super) async fn open(
    store: &Store,
    key: EntityKey,
    head: StreamHead,
) -> Result<AnyEntity, ReadError> {
    load::entity(store, key.contract(), head).await
}

/// The events of an entity's stream up to a sequence, with their positions.
async fn events(
    store: &Store,
    key: EntityKey,
    upto: i64,
) -> Result<Vec<(i64, AnyEvent)>, ReadError> {
    let stream = key.stream();
    let mut events = Vec::new();
    let mut after = 0;
    while after < upto {
        let page = store.stream(&stream, after, upto, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        for recorded in page {
            if let Content::Open { event, .. } = recorded.content {
                events.push((recorded.position, *event));
            }
        }
    }
    Ok(events)
}
