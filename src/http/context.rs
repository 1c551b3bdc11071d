//! What is known about the request being answered, for code that has no request at hand.
//!
//! Errors and envelopes name the request they belong to. They are made deep inside handlers and
//! turned into responses by axum, so the outermost layer keeps the context in a task-local.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

use super::error::{ApiError, Dialect};
use super::rate::Quota;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The identity of a request.
#[derive(Clone, Debug)]
pub struct RequestContext {
    pub correlation: Correlation,
    pub dialect: Dialect,
    /// What the caller's rate limit left, once the caller is known.
    pub(super) quota: Arc<OnceLock<Quota>>,
}

/// The correlation id of a request: as the client wrote it, and as a UUID for event metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// Safe to echo in headers and to log: ASCII letters, digits and `-_.:`, 1–128 characters.
    pub text: String,
    /// The same id if it is a UUID, else one derived from it.
    pub id: Uuid,
}

impl RequestContext {
    /// Runs `work` as part of this request.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }
}

/// The id of the request being answered, if there is one.
pub fn request_id() -> Option<String> {
    CURRENT.try_with(|context| context.correlation.text.clone()).ok()
}

/// The dialect of the request being answered.
pub fn dialect() -> Dialect {
    CURRENT.try_with(|context| context.dialect).unwrap_or_default()
}

impl<S: Send + Sync> FromRequestParts<S> for Correlation {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let found = parts.extensions.get::<RequestContext>();
        found
            .map(|context| context.correlation.clone())
            .ok_or_else(|| ApiError::internal("the request has no correlation id"))
    }
}
