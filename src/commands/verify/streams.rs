//! The states kept with a person's streams against the folds of their events.

use aggregates::entity::{AnyEntity, find_contract_of_stream};
use aggregates::user::User;
use aggregates::{Content, Recorded, UserId, registry};
use cqrs_es::Aggregate;
use serde_json::Value;

use crate::commands::load::{ENTITY_STATE_VERSION, Stateful};
use crate::store::streams::StreamHead;
use crate::store::{ReadError, Store};

/// Streams or events of one page.
const PAGE: i64 = 500;

/// What differs; empty where every state is as the log says.
///
/// # Errors
/// [`ReadError`] where the log or a state cannot be read at all.
pub async fn verify_streams(store: &Store, user: UserId) -> Result<Vec<String>, ReadError> {
    let upto = store.head().await?.position;
    let mut findings = Vec::new();
    let mut types: Vec<&str> = registry::types().map(|entry| entry.aggregate).collect();
    types.dedup();
    for aggregate_type in types {
        let mut after = 0;
        loop {
            let heads = store.feed(user, aggregate_type, after, upto, PAGE).await?;
            let Some(last) = heads.last() else { break };
            after = last.position;
            for head in heads {
                findings.extend(verify(store, head).await?);
            }
        }
    }
    Ok(findings)
}

/// A fold that starts from nothing, for each type of stream that keeps a state.
enum Folded {
    User(Box<User>),
    Entity(AnyEntity),
}

impl Folded {
    fn new(aggregate_type: &str) -> Option<Self> {
        if aggregate_type == User::TYPE {
            return Some(Self::User(Box::default()));
        }
        find_contract_of_stream(aggregate_type).map(AnyEntity::new).map(Self::Entity)
    }

    /// Of the fold; states of another one are folded anew when they are read next.
    fn version(&self) -> i32 {
        match self {
            Self::User(_) => User::STATE_VERSION,
            Self::Entity(_) => ENTITY_STATE_VERSION,
        }
    }

    fn apply(&mut self, recorded: Recorded) {
        let Content::Open { event, .. } = recorded.content else { return };
        match self {
            Self::User(user) => {
                if let Some(event) = User::event(*event) {
                    user.apply(event);
                }
            }
            Self::Entity(entity) => entity.apply(&event),
        }
    }

    /// As the state would be stored.
    fn to_json(&self) -> Option<Value> {
        match self {
            Self::User(user) => serde_json::to_value(user).ok(),
            Self::Entity(entity) => serde_json::to_value(entity).ok(),
        }
    }

    /// The stored state in the form of today: fields that were added since have their defaults.
    fn read(&self, json: &[u8]) -> Option<Value> {
        match self {
            Self::User(_) => {
                let user: User = serde_json::from_slice(json).ok()?;
                serde_json::to_value(user).ok()
            }
            Self::Entity(entity) => {
                let json = std::str::from_utf8(json).ok()?;
                let entity = AnyEntity::from_json(entity.contract(), json).ok()?;
                serde_json::to_value(entity).ok()
            }
        }
    }
}

async fn verify(store: &Store, head: StreamHead) -> Result<Option<String>, ReadError> {
    let stream = head.stream.clone();
    let purpose = registry::types()
        .find(|entry| entry.aggregate == stream.aggregate_type)
        .and_then(|entry| entry.purpose);
    let (Some(mut folded), Some(purpose)) = (Folded::new(&stream.aggregate_type), purpose) else {
        return Ok(None);
    };
    let (version, sequence) = (head.state_version, head.sequence);
    let Some(stored) = store.open_head(head, purpose).await?.state else { return Ok(None) };
    if version != folded.version() {
        return Ok(None);
    }
    let mut after = 0;
    while after < sequence {
        let page = store.stream(&stream, after, sequence, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(Some(format!("{stream} ends before the sequence its head says")));
        };
        after = last.sequence;
        page.into_iter().for_each(|recorded| folded.apply(recorded));
    }
    let same = folded.read(&stored).is_some_and(|stored| Some(stored) == folded.to_json());
    Ok((!same).then(|| format!("{stream} has another state than its {sequence} events give")))
}
