//! Sessions: started, changed, ended and deleted by their owner.

use aggregates::session::{CONTRACT, SessionCommand};
use aggregates::sync::desk::Action;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::entities::{Author, Change, EntityError, Granted, created, fields_of, ids_of};
use crate::ids;

const CLIENT_ID: &str = "clientSessionId";

/// Starts a session, or finds the one that the client started under the same id. Whatever else is
/// open ends.
///
/// # Errors
/// [`EntityError::Deleted`] where that one is deleted, else as [`Author::change`].
pub async fn start(author: Author<'_>, body: &Map<String, Value>) -> Result<Granted, EntityError> {
    let (mut fields, _) = fields_of(&CONTRACT, body)?;
    let mut known_by = ids_of(&CONTRACT, body);
    if !fields.contains_key(CLIENT_ID) {
        tracing::warn!(
            "a session was started without clientSessionId; repeating it starts another"
        );
        let id = ids::new_id().to_string();
        fields.insert(CLIENT_ID.to_owned(), Value::from(id.as_str()));
        known_by.push(id);
    }
    let action = Action::Session(SessionCommand::Start { fields });
    created(author.change(Change { contract: &CONTRACT, ids: known_by, action }).await?)
}

/// Sets fields of a session other than its status.
///
/// # Errors
/// [`EntityError::Stale`] where `lastKnownUpdatedAt` is not the session's, else as
/// [`Author::change`].
pub async fn update(
    author: Author<'_>,
    id: Uuid,
    body: &Map<String, Value>,
) -> Result<Granted, EntityError> {
    let (fields, last_known_updated_at_ms) = fields_of(&CONTRACT, body)?;
    command(author, id, SessionCommand::Update { fields, last_known_updated_at_ms }).await
}

/// Completes a session, with what the person has to say about it.
///
/// # Errors
/// As [`Author::change`].
pub async fn end(
    author: Author<'_>,
    id: Uuid,
    body: &Map<String, Value>,
) -> Result<Granted, EntityError> {
    const SAID: [&str; 4] = ["summary", "rating", "notes", "wouldRepeat"];
    let said: Map<String, Value> = body
        .iter()
        .filter(|(key, _)| SAID.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let (fields, _) = fields_of(&CONTRACT, &said)?;
    command(author, id, SessionCommand::End { fields }).await
}

/// Gives a session a command.
///
/// # Errors
/// As [`Author::change`].
pub async fn command(
    author: Author<'_>,
    id: Uuid,
    command: SessionCommand,
) -> Result<Granted, EntityError> {
    let action = Action::Session(command);
    author.change(Change { contract: &CONTRACT, ids: vec![id.to_string()], action }).await
}
