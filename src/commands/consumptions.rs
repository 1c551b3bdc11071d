//! Consumptions: logged, changed and deleted by their owner.

use aggregates::consumption::CONTRACT;
use aggregates::entity::{ChangeKind, EntityChange, Fields};
use aggregates::sync::desk::{Action, BasePoint};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::entities::{self, Author, Change, EntityError, Granted, created, fields_of, ids_of};

/// Consumptions one request may log.
pub const MAX_BATCH: usize = 100;

/// Logs a consumption, or finds the one that the client logged under the same id.
///
/// # Errors
/// [`EntityError::Deleted`] where that one is deleted, else as [`Author::change`].
pub async fn log(author: Author<'_>, body: &Map<String, Value>) -> Result<Granted, EntityError> {
    created(author.change(creation(body)?).await?)
}

/// Logs consumptions in their order, each by itself.
///
/// # Errors
/// As [`Author::changes`].
pub async fn log_all(
    author: Author<'_>,
    bodies: &[Map<String, Value>],
) -> Result<Vec<Result<Granted, EntityError>>, EntityError> {
    let mut answers = Vec::with_capacity(bodies.len());
    let mut creations = Vec::new();
    for body in bodies {
        match creation(body) {
            Ok(change) => {
                creations.push(change);
                answers.push(None);
            }
            Err(error) => answers.push(Some(Err(error))),
        }
    }
    let mut granted = author.changes(creations).await?.into_iter();
    let answers = answers
        .into_iter()
        .map(|answer| answer.or_else(|| granted.next().map(|granted| granted.and_then(created))));
    Ok(answers.map(|answer| answer.unwrap_or(Err(super::CommandError::Busy.into()))).collect())
}

fn creation(body: &Map<String, Value>) -> Result<Change, EntityError> {
    let (fields, _) = fields_of(&CONTRACT, body)?;
    Ok(Change { contract: &CONTRACT, ids: ids_of(&CONTRACT, body), action: Action::Create(fields) })
}

/// Sets fields of a consumption.
///
/// # Errors
/// [`EntityError::Stale`] where `lastKnownUpdatedAt` is not the consumption's, else as
/// [`Author::change`].
pub async fn update(
    author: Author<'_>,
    id: Uuid,
    body: &Map<String, Value>,
) -> Result<Granted, EntityError> {
    let (fields, last_known) = fields_of(&CONTRACT, body)?;
    let stored = entities::get(author.store, author.user, &CONTRACT, id).await?;
    let state = stored.state();
    if last_known.is_some_and(|last_known| state.is_stale(last_known)) {
        return Err(EntityError::Stale);
    }
    // What somebody changes in between is merged with, never written over.
    let base = match last_known {
        Some(_) => BasePoint::Version(state.version),
        None => BasePoint::Current,
    };
    change(author, id, ChangeKind::Update, fields, base).await
}

/// Deletes a consumption; its session no longer counts it.
///
/// # Errors
/// As [`Author::change`].
pub async fn delete(author: Author<'_>, id: Uuid) -> Result<(), EntityError> {
    entities::get(author.store, author.user, &CONTRACT, id).await?;
    change(author, id, ChangeKind::Delete, Fields::new(), BasePoint::Current).await?;
    Ok(())
}

async fn change(
    author: Author<'_>,
    id: Uuid,
    kind: ChangeKind,
    fields: Fields,
    base: BasePoint,
) -> Result<Granted, EntityError> {
    let action = Action::Change { change: EntityChange::new(kind, fields), base };
    let granted =
        author.change(Change { contract: &CONTRACT, ids: vec![id.to_string()], action }).await?;
    if kind == ChangeKind::Update && granted.entity.state().deleted {
        return Err(EntityError::Deleted);
    }
    Ok(granted)
}
