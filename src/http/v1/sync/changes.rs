//! `GET /sync/changes`: one page of what has changed since a cursor.

use aggregates::entity::{EntityContract, find_contract, is_protocol_type};
use aggregates::sync::cursor::Composite;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::commands::sync::pull::{Changes, PullRequest, pull};
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody, code};
use crate::http::extract::{Caller, DeviceId, Query, System};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Delivers what has changed since the cursor, parents before children, one row an entity.
///
/// The first page of a run says what the installation holds; later edits of it are merged on that
/// understanding.
#[utoipa::path(
    get,
    path = "/sync/changes",
    tag = "sync",
    security(("bearer" = [])),
    params(
        ("X-Device-ID" = Uuid, Header, description = "The app installation"),
        ("cursor" = Option<String>, Query, description = "Where to go on; left out, the beginning"),
        ("entityTypes" = Option<String>, Query,
            description = "Types, separated by commas or repeated; left out, all"),
        ("limit" = Option<u16>, Query, description = "Rows at most, 1 to 1000; 100 if left out"),
        ("If-None-Match" = Option<String>, Header,
            description = "Answered 304 if it matches and nothing has changed"),
    ),
    responses(
        (status = 200, description = "A page of changes", body = Envelope<Changes>),
        (status = 304, description = "Nothing has changed"),
        (status = 400, description = "No device id, or a parameter is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
    ),
)]
pub(super) async fn get_changes(
    System(app): System,
    caller: Caller,
    DeviceId(device): DeviceId,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let request = request(&query, device.to_string())?;
    let tag = tag(&query);
    let page = pull(&app.store, &app.cursor_key, caller.user, &request).await?;
    metrics::histogram!(crate::metrics::SYNC_PULL_ROWS).record(page.changes.len() as f64);
    let unchanged = page.changes.is_empty() && !page.has_more && matches(&headers, &tag);
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Envelope::new(page).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("If-None-Match"));
    Ok(response)
}

fn request(query: &[(String, String)], device_id: String) -> Result<PullRequest, ApiError> {
    let last = |name: &str| {
        let found = query.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let cursor = last("cursor").map(cursor).transpose()?;
    let limit = match last("limit").map(str::parse) {
        None => DEFAULT_LIMIT,
        Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
        Some(_) => {
            let message = format!("must be a whole number from 1 to {MAX_LIMIT}");
            return Err(ApiError::invalid_field("limit", message));
        }
    };
    let device_id = Some(device_id);
    Ok(PullRequest { cursor, types: entity_types(query)?, limit, device_id })
}

/// Reads a cursor, or says why it cannot be read.
pub(super) fn cursor(text: &str) -> Result<Composite, ApiError> {
    Composite::decode(text).map_err(|error| {
        let reason = error.to_string();
        ApiError::new(code::VALIDATION_ERROR)
            .with_message(format!("The cursor is not valid: {reason}."))
            .with_details(json!({ "cursorError": reason }))
    })
}

/// Unknown types and those the server keeps nothing of yet match nothing; a list of nothing but unknown types is a mistake.
fn entity_types(
    query: &[(String, String)],
) -> Result<Option<Vec<&'static EntityContract>>, ApiError> {
    let names: Vec<&str> = query
        .iter()
        .filter(|(key, _)| key == "entityTypes" || key == "entityTypes[]")
        .flat_map(|(_, value)| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() {
        return Ok(None);
    }
    let types: Vec<_> = names.iter().filter_map(|name| find_contract(name)).collect();
    if types.is_empty() && !names.iter().any(|name| is_protocol_type(name)) {
        return Err(ApiError::invalid_field("entityTypes", "names no known type"));
    }
    Ok(Some(types))
}

/// Depends on the question alone: the answer to it is "nothing" or new.
fn tag(query: &[(String, String)]) -> String {
    let mut asked: Vec<String> = query
        .iter()
        .filter(|(key, _)| key != "leaseId" && key != "deviceId")
        .map(|(key, value)| format!("{}:{key}={value}", key.len() + value.len()))
        .collect();
    asked.sort();
    let hash = digest(&SHA256, asked.join("&").as_bytes());
    format!("W/\"{}\"", hex::encode(&hash.as_ref()[..16]))
}

fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter();
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    given
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| opaque(value) == opaque(tag))
}
