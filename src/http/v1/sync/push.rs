//! `POST /sync/push`: the changes of one installation.

use aggregates::Metadata;
use aggregates::sync::push::{MAX_ITEMS, PushAnswer};
use serde::Serialize;
use serde_json::{Map, Value};

use super::changes::cursor;
use crate::app::App;
use crate::commands::sync::pull::{Change, PullRequest, pull};
use crate::commands::sync::push::push;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody, FieldError};
use crate::http::extract::{Caller, Cause, Json, System};

const MAX_DEVICE_ID: usize = 100;
/// Rows an answer to a push may bring along.
const MAX_BROUGHT: usize = 1000;

/// The answer to a push.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PushReply {
    #[serde(flatten)]
    answer: PushAnswer,
    /// What others changed, where the request asked for it and it could be read.
    server_changes: Option<Vec<Change>>,
    /// Where `serverChanges` ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cursor: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'static str>,
}

/// Takes up to 1000 changes, each by itself. The answer is 200 also where items failed; every item
/// is in exactly one of the lists, with its `requestId`.
#[utoipa::path(
    post,
    path = "/sync/push",
    tag = "sync",
    security(("bearer" = [])),
    request_body = Value,
    responses(
        (status = 200, description = "What became of each item", body = Envelope<Value>),
        (status = 400, description = "It is no push at all", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
        (status = 503, description = "Nothing could be read; send it again", body = ErrorBody),
    ),
)]
pub(super) async fn post_push(
    System(app): System,
    caller: Caller,
    Cause(metadata): Cause,
    Json(body): Json<Map<String, Value>>,
) -> Result<Envelope<PushReply>, ApiError> {
    let (device_id, changes) = validate(&body)?;
    let metadata = Metadata { device_id: Some(device_id.to_owned()), ..metadata };
    let answer = push(&app.store, caller.user, &metadata, device_id, changes).await?;
    let mut reply =
        PushReply { answer, server_changes: None, server_cursor: None, warnings: Vec::new() };
    if let Some(since) = body.get("lastSyncCursor").and_then(Value::as_str) {
        // The push is done: nothing that goes wrong here may turn it into an error.
        match brought(&app, &caller, since).await {
            Ok((changes, cursor)) => {
                reply.server_changes = Some(changes);
                reply.server_cursor = cursor;
            }
            Err(_) => reply.warnings.push("serverChanges could not be read; pull instead"),
        }
    }
    Ok(Envelope::new(reply))
}

async fn brought(
    app: &App,
    caller: &Caller,
    since: &str,
) -> Result<(Vec<Change>, Option<String>), ApiError> {
    let cursor = Some(since).filter(|since| !since.is_empty()).map(cursor).transpose()?;
    // What is brought along acknowledges nothing: it is no run.
    let request = PullRequest { cursor, types: None, limit: MAX_BROUGHT, device_id: None };
    let page = pull(&app.store, &app.cursor_key, caller.user, &request).await?;
    Ok((page.changes, page.cursor))
}

fn validate(body: &Map<String, Value>) -> Result<(&str, &[Value]), ApiError> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, message: &str| {
        errors.push(FieldError { field: field.to_owned(), message: message.to_owned() });
    };
    let text = |key: &str| body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let device_id = text("deviceId").filter(|id| id.chars().count() <= MAX_DEVICE_ID);
    if device_id.is_none() {
        wrong("/deviceId", "must be a string of 1 to 100 characters");
    }
    if text("syncOperationId").is_none() {
        wrong("/syncOperationId", "must be a string");
    }
    let changes = body.get("changes").and_then(Value::as_array);
    match changes {
        None => wrong("/changes", "must be a list"),
        Some(changes) if changes.len() > MAX_ITEMS => {
            wrong("/changes", "must have at most 1000 items");
        }
        Some(_) => {}
    }
    match (device_id, changes) {
        (Some(device_id), Some(changes)) if errors.is_empty() => Ok((device_id, changes)),
        _ => Err(ApiError::validation(errors)),
    }
}
