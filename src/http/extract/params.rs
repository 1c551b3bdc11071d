//! Parameters from the path and the query.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::http::context;
use crate::http::error::{ApiError, Dialect, FieldError, code};

/// Parameters from the path. What does not parse names no resource we could have: 400.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

/// Parameters from the query.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found =
            <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await;
        match found {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) if rejection.status().is_server_error() => {
                Err(ApiError::internal(rejection))
            }
            Err(rejection) => {
                let message = rejection.body_text();
                Err(ApiError::validation(vec![field_error("path", &message)]))
            }
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let code = match context::dialect() {
            Dialect::Standard => code::VALIDATION_ERROR,
            Dialect::Health => code::QUERY_VALIDATION_ERROR,
        };
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let error = field_error("query", &rejection.body_text());
                Err(ApiError::new(code).with_field_errors(vec![error]))
            }
        }
    }
}

/// Finds the parameter in serde's sentence: either quoted, or before the first colon of what
/// follows axum's preamble.
fn field_error(fallback: &str, sentence: &str) -> FieldError {
    let reason = sentence
        .strip_prefix("Failed to deserialize query string: ")
        .or_else(|| sentence.strip_prefix("Invalid URL: "))
        .unwrap_or(sentence);
    let quoted = reason.split('`').nth(1);
    let leading = reason.split_once(": ").map(|(name, _)| name);
    let name = [leading, quoted].into_iter().flatten().find(|name| is_name(name));
    FieldError { field: name.unwrap_or(fallback).to_owned(), message: reason.to_owned() }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-[].".contains(c))
}
