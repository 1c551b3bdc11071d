//! What a request for a change brings.

use aggregates::{Metadata, UserId};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::app::App;
use crate::commands::entities::{Author, RequestKey};
use crate::http::error::ApiError;
use crate::http::extract::{Caller, Cause, Json};
use crate::http::state::AppState;

const HEADER: &str = "idempotency-key";
const MAX_KEY: usize = 200;

/// Who asks for a change, and the `Idempotency-Key` of a POST, if there is one.
pub struct Asker {
    pub user: UserId,
    metadata: Metadata,
    key: Option<String>,
    path: String,
}

/// A change that is recognised when it is sent again.
pub struct Asked {
    user: UserId,
    metadata: Metadata,
    key: Option<RequestKey>,
}

impl Asker {
    /// With what is asked for. The same key with another path or body is another request.
    pub fn asks(self, body: &impl Serialize) -> Asked {
        let Self { user, metadata, key, path } = self;
        let key = key.map(|key| {
            let content = format!("{path}\n{}", aggregates::event::to_payload(body));
            RequestKey { key, content: content.into_bytes() }
        });
        Asked { user, metadata, key }
    }
}

impl Asked {
    /// As commands know it.
    pub fn author<'a>(&'a self, app: &'a App) -> Author<'a> {
        let key = self.key.as_ref();
        Author { store: &app.store, user: self.user, metadata: &self.metadata, key }
    }
}

impl FromRequestParts<AppState> for Asker {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let user = Caller::from_request_parts(parts, state).await?.user;
        let Cause(metadata) = Cause::from_request_parts(parts, state).await?;
        let key = if parts.method == Method::POST { key(parts)? } else { None };
        Ok(Self { user, metadata, key, path: parts.uri.path().to_owned() })
    }
}

fn key(parts: &Parts) -> Result<Option<String>, ApiError> {
    let Some(value) = parts.headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().ok().map(str::trim);
    let text = text.filter(|text| (1..=MAX_KEY).contains(&text.len()));
    let refused = || ApiError::invalid_field(HEADER, "must be 1 to 200 printable ASCII characters");
    text.map(|text| Some(text.to_owned())).ok_or_else(refused)
}

/// A JSON object, or nothing at all.
pub struct OptionalObject(pub Map<String, Value>);

impl FromRequest<AppState> for OptionalObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        if !request.headers().contains_key(CONTENT_TYPE) {
            return Ok(Self(Map::new()));
        }
        Json::from_request(request, state).await.map(|Json(body)| Self(body))
    }
}
