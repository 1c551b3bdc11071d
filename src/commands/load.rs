//! Aggregates from the log: the stored state where it is of the current fold, else the events.

use aggregates::entity::{AnyEntity, EntityContract};
use aggregates::{AnyEvent, Content, Purpose, StreamId, UserId};
use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::streams::StreamHead;
use crate::store::{NewState, ReadError, Store};

/// Events of one page when a state is folded anew.
const PAGE: i64 = 500;

/// An aggregate whose folded state is kept with its stream.
pub trait Stateful: Aggregate + Serialize + DeserializeOwned {
    /// Raised whenever `apply` changes its result; states of another version are folded anew.
    const STATE_VERSION: i32;
    /// The key that seals the state.
    const PURPOSE: Purpose;

    /// The event, if it is one of this aggregate's.
    fn event(event: AnyEvent) -> Option<Self::Event>;
}

/// An aggregate as the log has it.
#[derive(Clone, Debug)]
pub struct Loaded<A> {
    pub aggregate: A,
    /// Of the last event; 0 where the stream does not exist.
    pub sequence: i64,
    pub head: Option<StreamHead>,
}

impl<A: Default> Loaded<A> {
    fn absent() -> Self {
        Self { aggregate: A::default(), sequence: 0, head: None }
    }
}

/// Loads one aggregate of a person. Another person's stream counts as absent.
///
/// # Errors
/// [`ReadError`] where the log does not answer or is damaged.
pub async fn load<A: Stateful>(
    store: &Store,
    user: UserId,
    stream: &StreamId,
) -> Result<Loaded<A>, ReadError> {
    let heads = store.heads(std::slice::from_ref(stream)).await?;
    match heads.into_iter().next() {
        Some(head) if head.user == user => from_head(store, head).await,
        _ => Ok(Loaded::absent()),
    }
}

/// The aggregate behind a head that was read before.
///
/// # Errors
/// As [`load`].
pub async fn from_head<A: Stateful>(
    store: &Store,
    head: StreamHead,
) -> Result<Loaded<A>, ReadError> {
    if head.state_version == A::STATE_VERSION {
        let open = store.open_head(head, A::PURPOSE).await?;
        let state = open.state.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        if let Some(aggregate) = state {
            let sequence = open.head.sequence;
            return Ok(Loaded { aggregate, sequence, head: Some(open.head) });
        }
        return refold(store, open.head).await;
    }
    refold(store, head).await
}

async fn refold<A: Stateful>(store: &Store, head: StreamHead) -> Result<Loaded<A>, ReadError> {
    let aggregate = fold_until(store, &head.stream, head.sequence).await?;
    Ok(Loaded { aggregate, sequence: head.sequence, head: Some(head) })
}

/// The aggregate as it was after the event with this sequence, folded from its events.
///
/// # Errors
/// As [`load`].
pub async fn fold_until<A: Stateful>(
    store: &Store,
    stream: &StreamId,
    sequence: i64,
) -> Result<A, ReadError> {
    let mut aggregate = A::default();
    let mut after = 0;
    while after < sequence {
        let page = store.stream(stream, after, sequence, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        for recorded in page {
            if let Content::Open { event, .. } = recorded.content
                && let Some(event) = A::event(*event)
            {
                aggregate.apply(event);
            }
        }
    }
    Ok(aggregate)
}

/// Version of the fold that makes the stored state of synced entities.
pub const ENTITY_STATE_VERSION: i32 = aggregates::entity::STATE_VERSION;

/// The synced entity behind a head that was read before.
///
/// # Errors
/// As [`load`].
pub async fn entity(
    store: &Store,
    contract: &'static EntityContract,
    head: StreamHead,
) -> Result<AnyEntity, ReadError> {
    let purpose = contract.purpose.unwrap_or(Purpose::Activity);
    let head = if head.state_version == ENTITY_STATE_VERSION {
        let open = store.open_head(head, purpose).await?;
        let json = open.state.as_deref().and_then(|json| std::str::from_utf8(json).ok());
        match json.and_then(|json| AnyEntity::from_json(contract, json).ok()) {
            Some(entity) => return Ok(entity),
            None => open.head,
        }
    } else {
        head
    };
    let mut entity = AnyEntity::new(contract);
    let mut after = 0;
    while after < head.sequence {
        let page = store.stream(&head.stream, after, head.sequence, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        for event in page.iter().filter_map(aggregates::Recorded::event) {
            entity.apply(event);
        }
    }
    Ok(entity)
}

/// Handles a command and returns its events; the aggregate holds the state after them.
///
/// # Errors
/// The aggregate's refusal; the aggregate is as it was.
pub async fn handle<A: Aggregate>(
    aggregate: &mut A,
    command: A::Command,
    services: &A::Services,
) -> Result<Vec<A::Event>, A::Error> {
    let sink = EventSink::default();
    aggregate.handle(command, services, &sink).await?;
    Ok(sink.collect().await)
}

/// The state to store with an aggregate's events.
pub fn new_state<A: Stateful>(aggregate: &A) -> NewState {
    NewState {
        version: A::STATE_VERSION,
        json: aggregates::event::to_payload(aggregate).into_bytes(),
        purpose: A::PURPOSE,
    }
}
