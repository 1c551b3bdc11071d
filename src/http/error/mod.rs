//! The one error of the HTTP layer and the one shape it is answered in.

pub mod code;
mod dialect;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub use code::ErrorCode;
pub use dialect::Dialect;

use super::context;

/// How long a client is asked to wait after a 503 that names no time of its own.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A refusal or failure on its way to the client.
///
/// The cause is for the log alone. A status of 500 and above always shows the code's own message,
/// so that nothing internal can slip into an answer.
pub struct ApiError(Box<Inner>);

struct Inner {
    code: ErrorCode,
    status: StatusCode,
    message: Option<Cow<'static, str>>,
    details: Option<Value>,
    retryable: Option<bool>,
    retry_after: Option<Duration>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body, or the name of the parameter or header.
    pub field: String,
    pub message: String,
}

impl ApiError {
    /// An error with the code's own status and message.
    pub fn new(code: ErrorCode) -> Self {
        Self(Box::new(Inner {
            code,
            status: code.status,
            message: None,
            details: None,
            retryable: None,
            retry_after: None,
            cause: None,
        }))
    }

    /// A 500 whose cause is logged and not shown.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(code::INTERNAL_SERVER_ERROR).with_cause(cause)
    }

    /// A 503 that asks the client to come back; nothing was done.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(code::SERVICE_UNAVAILABLE).with_cause(cause)
    }

    /// A 400 that names what is wrong with which field.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        Self::new(code::VALIDATION_ERROR).with_field_errors(errors)
    }

    /// A 400 about a single field.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::validation(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// Answers with another status than the code's own.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Replaces the public message. Ignored from status 500 on.
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = Some(message.into());
        self
    }

    /// Adds machine-readable details, which are shown to the client.
    pub fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Lists the offending fields as the details.
    pub fn with_field_errors(self, errors: Vec<FieldError>) -> Self {
        let list = errors
            .into_iter()
            .map(|error| serde_json::json!({ "field": error.field, "message": error.message }))
            .collect();
        self.with_details(Value::Array(list))
    }

    /// Says whether repeating the same request may succeed.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = Some(retryable);
        self
    }

    /// Asks the client to wait, in the body and in `Retry-After` (whole seconds, rounded up).
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Keeps the cause for the log.
    pub fn with_cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The error as the answer to one part of a request that has several.
    pub fn into_detail(mut self) -> ErrorDetail {
        self.log();
        self.detail()
    }

    fn detail(&mut self) -> ErrorDetail {
        ErrorDetail {
            code: context::dialect().translate(self).to_owned(),
            message: self.message().to_owned(),
            request_id: context::request_id(),
            retryable: self.0.retryable,
            retry_after_ms: self.0.retry_after.map(millis),
            details: self.0.details.take(),
        }
    }

    /// The code as raised, before the health routes rename it.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    fn message(&self) -> &str {
        match &self.0.message {
            Some(message) if !self.0.status.is_server_error() => message,
            _ => self.0.code.message,
        }
    }

    /// Writes the cause chain once; the request id comes from the surrounding span.
    fn log(&self) {
        let Some(cause) = &self.0.cause else { return };
        let mut chain = cause.to_string();
        let mut next = cause.source();
        while let Some(source) = next {
            chain.push_str(": ");
            chain.push_str(&source.to_string());
            next = source.source();
        }
        let (code, status) = (self.0.code.name, self.0.status.as_u16());
        let request_id = context::request_id();
        if self.0.status.is_server_error() {
            tracing::error!(code, status, request_id, cause = chain, "request failed");
        } else {
            tracing::debug!(code, status, request_id, cause = chain, "request refused");
        }
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiError({} {}, cause: {:?})", self.0.code.name, self.0.status, self.0.cause)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.name, self.message())
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

/// The body of every answer that is not a success.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// Always `false`.
    pub success: bool,
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDetail {
    /// Stable code to match on.
    pub code: String,
    /// Text for people; it may change.
    pub message: String,
    /// Depends on the code; for validation failures a list of `{field, message}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// The id to quote when asking for help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Whether repeating the same request may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// How long to wait before that, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        self.log();
        if self.0.status == StatusCode::SERVICE_UNAVAILABLE && self.0.retry_after.is_none() {
            self.0.retry_after = Some(DEFAULT_RETRY_AFTER);
        }
        let body = ErrorBody { success: false, error: self.detail() };
        let mut response = (self.0.status, axum::Json(body)).into_response();
        if let Some(wait) = self.0.retry_after {
            let seconds = millis(wait).div_ceil(1000);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
