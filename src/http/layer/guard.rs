//! What keeps one request from taking the server with it.

use std::any::Any;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::error::{ApiError, code};
use crate::http::state::AppState;
use crate::metrics::{HTTP_PANICS, HTTP_SHED};

/// How long to stay away from an overloaded server.
const SHED_WAIT: Duration = Duration::from_secs(2);

/// Answers a panic like any other failure. Its message is not ours to show or log: it may quote a
/// value. The panic hook has written where it happened.
pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    metrics::counter!(HTTP_PANICS).increment(1);
    ApiError::internal("the handler panicked").into_response()
}

/// Refuses at once what could only wait: a phone that is told to come back does better than one
/// that times out in a queue.
pub(crate) async fn shed(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Ok(_slot) = state.slots.try_acquire() else {
        metrics::counter!(HTTP_SHED).increment(1);
        return ApiError::new(code::SERVICE_UNAVAILABLE)
            .with_retry_after(SHED_WAIT)
            .into_response();
    };
    next.run(request).await
}

/// Gives up on a handler that takes too long. A command may still have been carried out by then;
/// the client repeats it under the same id and gets the same outcome.
pub(crate) async fn time_limit(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(state.limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable("the handler took too long")
            .with_retry_after(SHED_WAIT)
            .into_response(),
    }
}
