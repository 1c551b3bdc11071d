//! JSON bodies.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::body::{self, BodyLimit};
use super::{pointer, wording};
use crate::http::error::{ApiError, FieldError, code};
use crate::http::state::AppState;

/// Deepest nesting of arrays and objects in a body.
const MAX_DEPTH: usize = 64;

/// A JSON request body.
///
/// Refused with 415 for another type or encoding, 413 over the route's limit, 408 when it arrives
/// too slowly, 400 `INVALID_INPUT` when it is not JSON, and 400 `VALIDATION_ERROR` with a JSON
/// pointer when it is JSON of another shape.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let limit = parts.extensions.get().copied().unwrap_or(BodyLimit::STANDARD);
        let reading = body::read(&parts.headers, body, limit);
        let bytes = tokio::time::timeout(state.limits.body_timeout, reading)
            .await
            .map_err(|_| ApiError::new(code::REQUEST_TIMEOUT))??;
        parse(&bytes).map(Self)
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    if media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    {
        return Ok(());
    }
    Err(ApiError::new(code::INVALID_INPUT)
        .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .with_message("The body must be application/json."))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if pointer::deeper_than(bytes, MAX_DEPTH) {
        return Err(ApiError::new(code::INVALID_INPUT)
            .with_message(format!("The body is nested deeper than {MAX_DEPTH} levels.")));
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => ApiError::validation(vec![field_error(bytes, &error)]),
        // What ends too early was cut on its way.
        Category::Eof => ApiError::new(code::INVALID_INPUT)
            .with_message("The body ends too early.")
            .with_retryable(true),
        _ => ApiError::new(code::INVALID_INPUT)
            .with_message("The body is not valid JSON.")
            .with_details(serde_json::json!({ "line": error.line(), "column": error.column() })),
    })
}

/// Where in the body the parser stopped, as a JSON pointer, and what belongs there.
fn field_error(bytes: &[u8], error: &serde_json::Error) -> FieldError {
    let sentence = error.to_string();
    let reason = sentence.rsplit_once(" at line ").map_or(sentence.as_str(), |(text, _)| text);
    let mut field = pointer::at(bytes, error.line(), error.column());
    if let Some(name) = wording::named(reason).filter(|_| reason.starts_with("missing")) {
        field.push('/');
        field.push_str(name);
    }
    FieldError { field, message: wording::of(reason).to_owned() }
}
