//! The system behind the API.

use std::sync::Arc;

use aggregates::Metadata;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::{Correlation, OptionalDeviceId};
use crate::app::App;
use crate::http::error::{ApiError, code};
use crate::http::state::AppState;

/// The store and everything on it. Answered 503 while the system is still starting.
#[derive(Clone)]
pub struct System(pub Arc<App>);

impl FromRequestParts<AppState> for System {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        state.app.get().cloned().map(Self).ok_or_else(|| code::SERVICE_UNAVAILABLE.into())
    }
}

/// Metadata for events that the caller's request causes.
#[derive(Clone, Debug)]
pub struct Cause(pub Metadata);

impl FromRequestParts<AppState> for Cause {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let correlation = Correlation::from_request_parts(parts, state).await?;
        let device = OptionalDeviceId::from_request_parts(parts, state).await?;
        Ok(Self(Metadata {
            device_id: device.0.map(|id| id.to_string()),
            request_id: Some(correlation.text),
            ..Metadata::owner(correlation.id)
        }))
    }
}
