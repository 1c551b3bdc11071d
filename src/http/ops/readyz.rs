//! `GET /readyz`: can the process serve?

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody, code};
use crate::http::state::{AppState, Check};

/// A check that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How soon to ask again.
const RETRY: Duration = Duration::from_secs(5);

/// The answer.
#[derive(Serialize, ToSchema)]
pub(super) struct ReadyReport {
    ready: bool,
    checks: Vec<Check>,
}

/// Tells whether requests can be served, condition by condition.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "Every check holds", body = Envelope<ReadyReport>),
        (status = 503, description = "A check failed; the details list all of them",
            body = ErrorBody),
    ),
)]
pub(super) async fn readyz(
    State(state): State<AppState>,
) -> Result<Envelope<ReadyReport>, ApiError> {
    let not_ready = || ApiError::new(code::SERVICE_UNAVAILABLE).with_retry_after(RETRY);
    let checks = tokio::time::timeout(TIMEOUT, state.readiness.checks()).await.map_err(|_| {
        not_ready().with_details(serde_json::json!({ "checks": [{ "name": "checks", "ok": false,
            "detail": "the checks took too long" }] }))
    })?;
    if checks.iter().all(|check| check.ok) {
        Ok(Envelope::new(ReadyReport { ready: true, checks }))
    } else {
        Err(not_ready().with_details(serde_json::json!({ "checks": checks })))
    }
}
