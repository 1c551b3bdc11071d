//! Parameters from the path and the query.

use axum::extract::FromRequestParts;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::wording;
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
            Err(rejection) => Err(ApiError::validation(vec![path_error(&rejection)])),
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
                let error = query_error(&rejection.body_text());
                Err(ApiError::new(code).with_field_errors(vec![error]))
            }
        }
    }
}

/// Finds the parameter in the sentence of axum's query extractor: before the first colon of what
/// follows its preamble, or named as missing.
fn query_error(sentence: &str) -> FieldError {
    let preamble = "Failed to deserialize query string: ";
    let reason = sentence.strip_prefix(preamble).unwrap_or(sentence);
    let (leading, rest) = match reason.split_once(": ") {
        Some((name, rest)) if is_name(name) => (Some(name), rest),
        _ => (None, reason),
    };
    let field = wording::named(rest).or(leading).unwrap_or("query");
    FieldError { field: field.to_owned(), message: wording::of(rest).to_owned() }
}

/// The parameter of the path that does not parse, by the name the route gives it.
fn path_error(rejection: &PathRejection) -> FieldError {
    let name = match rejection {
        PathRejection::FailedToDeserializePathParams(error) => match error.kind() {
            ErrorKind::ParseErrorAtKey { key, .. }
            | ErrorKind::InvalidUtf8InPathParam { key }
            | ErrorKind::DeserializeError { key, .. } => Some(key.as_str()),
            _ => None,
        },
        _ => None,
    };
    FieldError { field: name.unwrap_or("path").to_owned(), message: "is not valid".to_owned() }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-[].".contains(c))
}
