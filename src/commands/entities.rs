//! Changes of single entities, asked for and answered one at a time.
//!
//! Everything goes over the desk like a phone's push, so that a change has the same consequences
//! whichever way it comes.

use aggregates::entity::{AnyEntity, Context, EntityContract, FieldError, Fields, normalise};
use aggregates::session::SessionError;
use aggregates::sync::desk::{Action, Ask, AskError, Effect, EntityKey};
use aggregates::{Metadata, Purpose, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::observe::count_replays;
use super::sync::settle::WishReceipt;
use super::sync::{Settled, Wish, settle};
use super::{CommandError, load};
use crate::store::streams::StoredReceipt;
use crate::store::{ReadError, Store};
use crate::{clock, ids};

/// Scope of the receipts of requests that bring a key of their own.
const SCOPE: &str = "rest";

/// Why a change had no effect.
#[derive(Debug, thiserror::Error)]
pub enum EntityError {
    #[error("a field is not valid")]
    Invalid(Vec<FieldError>),
    #[error(transparent)]
    Session(SessionError),
    /// Somebody has changed it since the caller read it.
    #[error("the entity was changed since it was read")]
    Stale,
    /// The client's id belongs to an entity that was deleted, and a delete is final.
    #[error("the entity was deleted")]
    Deleted,
    /// The request's key came before with another request.
    #[error("the key was used for another request")]
    KeyReused,
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl From<ReadError> for EntityError {
    fn from(error: ReadError) -> Self {
        Self::Command(error.into())
    }
}

impl From<SessionError> for EntityError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NotFound => CommandError::NotFound.into(),
            SessionError::Invalid(errors) => Self::Invalid(errors),
            SessionError::Stale => Self::Stale,
            other => Self::Session(other),
        }
    }
}

impl From<AskError> for EntityError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Invalid(errors) => Self::Invalid(errors),
            AskError::Unknown => CommandError::NotFound.into(),
            AskError::MissingReference { field, .. } => Self::Invalid(vec![FieldError::new(
                field,
                "missing_reference",
                "refers to something that is not known",
            )]),
            AskError::Session(error) => error.into(),
        }
    }
}

/// A key by which a request is recognised when it is sent again, and what it asked for: under one
/// key only ever one request is granted.
#[derive(Clone, Debug)]
pub struct RequestKey {
    pub key: String,
    pub content: Vec<u8>,
}

/// On whose behalf something is changed.
#[derive(Clone, Copy)]
pub struct Author<'a> {
    pub store: &'a Store,
    pub user: UserId,
    pub metadata: &'a Metadata,
    pub key: Option<&'a RequestKey>,
}

/// One change of an entity.
#[derive(Clone, Debug)]
pub struct Change {
    pub contract: &'static EntityContract,
    /// The ids the caller knows it by, or wants it to be known by.
    pub ids: Vec<String>,
    pub action: Action,
}

/// An entity after a change.
#[derive(Clone, Debug)]
pub struct Granted {
    pub id: Uuid,
    pub entity: AnyEntity,
    /// None where the same request was granted before.
    pub effect: Option<Effect>,
}

impl Granted {
    /// As the wire shows it.
    pub fn to_wire(&self, user: UserId) -> Map<String, Value> {
        self.entity.to_wire(self.id, user)
    }
}

/// What a receipt says of a granted request.
#[derive(Deserialize)]
struct Remembered {
    id: Uuid,
}

impl Author<'_> {
    /// Makes one change.
    ///
    /// # Errors
    /// [`EntityError`]; nothing of it happened then.
    pub async fn change(&self, change: Change) -> Result<Granted, EntityError> {
        let changed = self.changes(vec![change]).await?;
        changed.into_iter().next().unwrap_or(Err(CommandError::Busy.into()))
    }

    /// Makes changes in their order. Each stands or falls by itself; the answers are in the order
    /// of the changes.
    ///
    /// # Errors
    /// Where the log cannot be read, or the request's key was used for another request.
    pub async fn changes(
        &self,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<Granted, EntityError>>, EntityError> {
        let now_ms = clock::now_ms();
        let contracts: Vec<_> = changes.iter().map(|change| change.contract).collect();
        let receipts = self.receipts(changes.len()).await?;
        let mut answers: Vec<Option<Result<Granted, EntityError>>> = Vec::new();
        answers.resize_with(changes.len(), || None);
        for (item, stored) in self.remembered(&receipts).await? {
            match self.again(contracts[item], &receipts[item], stored).await {
                Err(EntityError::KeyReused) => return Err(EntityError::KeyReused),
                answer => answers[item] = Some(answer),
            }
        }
        let open: Vec<usize> = (0..changes.len()).filter(|item| answers[*item].is_none()).collect();
        let wishes = changes.into_iter().enumerate().filter(|(item, _)| open.contains(item));
        let wishes = wishes.map(|(item, Change { contract, ids, action })| Wish {
            ask: Ask {
                contract,
                ids,
                fresh_id: ids::new_id(),
                action,
                ctx: Context::now(now_ms),
                request_id: None,
            },
            receipt: receipts.get(item).cloned(),
        });
        let settled = settle(self.store, self.user, self.metadata, wishes.collect()).await?;
        for (item, settled) in open.into_iter().zip(settled) {
            let receipt = receipts.get(item);
            answers[item] = Some(self.answer(contracts[item], receipt, settled).await);
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Err(CommandError::Busy.into())))
            .collect())
    }

    /// The receipts of a request's changes; none where it has no key.
    async fn receipts(&self, count: usize) -> Result<Vec<WishReceipt>, ReadError> {
        let Some(RequestKey { key, content }) = self.key else { return Ok(Vec::new()) };
        let subject = self.store.sealer().key(self.user, Purpose::Identity).await?;
        let hashes = subject.identity_hashes()?;
        let content_hmac = hashes.content_hash(SCOPE, content).to_vec();
        let receipts = (0..count).map(|item| {
            // No key holds a line break, so no item of one request is another request.
            let name = if item == 0 { key.clone() } else { format!("{key}\n{item}") };
            WishReceipt {
                scope: SCOPE,
                hmac: hashes.receipt_hash(SCOPE, &name, None).to_vec(),
                content_hmac: Some(content_hmac.clone()),
            }
        });
        Ok(receipts.collect())
    }

    /// The receipts that exist already, by item.
    async fn remembered(
        &self,
        receipts: &[WishReceipt],
    ) -> Result<Vec<(usize, StoredReceipt)>, ReadError> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let hmacs: Vec<Vec<u8>> = receipts.iter().map(|receipt| receipt.hmac.clone()).collect();
        let stored = self.store.receipts(self.user, SCOPE, &hmacs).await?;
        let item = |stored: &StoredReceipt| hmacs.iter().position(|hmac| *hmac == stored.hmac);
        Ok(stored.into_iter().filter_map(|stored| Some((item(&stored)?, stored))).collect())
    }

    async fn answer(
        &self,
        contract: &'static EntityContract,
        receipt: Option<&WishReceipt>,
        settled: Settled,
    ) -> Result<Granted, EntityError> {
        match (settled, receipt) {
            (Settled::Done(applied), _) => {
                let entity = applied.entity.ok_or(CommandError::NotFound)?;
                let (id, effect) = (applied.verdict.key.id, Some(applied.verdict.effect));
                Ok(Granted { id, entity, effect })
            }
            (Settled::Before(stored), Some(receipt)) => self.again(contract, receipt, stored).await,
            (Settled::Refused(error), _) => Err(error.into()),
            (Settled::Failed(error), _) => Err(CommandError::from(error).into()),
            (Settled::Before(_) | Settled::Busy, _) => Err(CommandError::Busy.into()),
        }
    }

    /// Answers a request that was granted before with the entity as it is now.
    async fn again(
        &self,
        contract: &'static EntityContract,
        receipt: &WishReceipt,
        stored: StoredReceipt,
    ) -> Result<Granted, EntityError> {
        if stored.content_hmac != receipt.content_hmac {
            return Err(EntityError::KeyReused);
        }
        let remembered: Remembered =
            serde_json::from_str(&stored.outcome).map_err(|_| CommandError::NotFound)?;
        let entity = stored_entity(self.store, self.user, contract, remembered.id).await?;
        let entity = entity.ok_or(CommandError::NotFound)?;
        count_replays(SCOPE, 1);
        Ok(Granted { id: remembered.id, entity, effect: None })
    }
}

/// A person's entity, deleted or not. Another person's is not there.
async fn stored_entity(
    store: &Store,
    user: UserId,
    contract: &'static EntityContract,
    id: Uuid,
) -> Result<Option<AnyEntity>, ReadError> {
    let heads = store.heads(&[EntityKey::new(contract, id).stream()]).await?;
    match heads.into_iter().find(|head| head.user == user) {
        Some(head) => load::entity(store, contract, head).await.map(Some),
        None => Ok(None),
    }
}

/// A person's entity as it is now, from the state beside the log.
///
/// # Errors
/// [`CommandError::NotFound`] where the person has no such entity or has deleted it.
pub async fn get(
    store: &Store,
    user: UserId,
    contract: &'static EntityContract,
    id: Uuid,
) -> Result<AnyEntity, CommandError> {
    let entity = stored_entity(store, user, contract, id).await?;
    entity.filter(|entity| entity.state().is_live()).ok_or(CommandError::NotFound)
}

/// A request body in canonical form, and the `lastKnownUpdatedAt` it says, in ms since the Unix
/// epoch.
///
/// # Errors
/// [`EntityError::Invalid`] with every field that is wrong.
pub fn fields_of(
    contract: &EntityContract,
    body: &Map<String, Value>,
) -> Result<(Fields, Option<i64>), EntityError> {
    const LAST_KNOWN: &str = "lastKnownUpdatedAt";
    let normalised = normalise(contract, body);
    let last_known = match body.get(LAST_KNOWN) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let instant = value.as_str().and_then(aggregates::entity::time::parse_instant);
            let message = "must be an RFC 3339 date and time";
            instant.map(Some).ok_or_else(|| FieldError::new(LAST_KNOWN, "invalid_instant", message))
        }
    };
    match (normalised, last_known) {
        (Ok(normalised), Ok(last_known)) => Ok((normalised.fields, last_known)),
        (Err(errors), Ok(_)) => Err(EntityError::Invalid(errors)),
        (Ok(_), Err(error)) => Err(EntityError::Invalid(vec![error])),
        (Err(mut errors), Err(error)) => {
            errors.push(error);
            Err(EntityError::Invalid(errors))
        }
    }
}

/// The ids a creation is to be known by: the id the client chose, and its own name for the entity.
pub fn ids_of(contract: &EntityContract, body: &Map<String, Value>) -> Vec<String> {
    let keys = ["id"].into_iter().chain(contract.client_id_field);
    let texts = keys.filter_map(|key| body.get(key).and_then(Value::as_str));
    texts.filter(|text| (1..=200).contains(&text.len())).map(str::to_owned).collect()
}

/// The entity a creation made or found.
///
/// # Errors
/// [`EntityError::Deleted`] where it found one that is deleted.
pub fn created(granted: Granted) -> Result<Granted, EntityError> {
    let found = granted.effect.is_some() && granted.entity.state().deleted;
    if found { Err(EntityError::Deleted) } else { Ok(granted) }
}
