//! The caller.

use std::time::Duration;

use aggregates::ids::UserId;
use axum::extract::FromRequestParts;
use axum::http::{header::AUTHORIZATION, request::Parts};

use super::device::OptionalDeviceId;
use crate::auth::{Identity, Role, TokenError};
use crate::http::context::{Correlation, RequestContext};
use crate::http::error::{ApiError, code};
use crate::http::rate::RateClass;
use crate::http::state::AppState;

/// How long to stay away while the identity provider's keys are not to be had.
const KEYS_WAIT: Duration = Duration::from_secs(10);

/// A caller with a valid token, who need not have an account yet.
#[derive(Clone, Debug)]
pub struct Authenticated(pub Identity);

/// A caller with a valid token and an account, who keeps to their rate limit.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: UserId,
    pub identity: Identity,
}

impl Authenticated {
    /// Refuses callers without the role.
    ///
    /// # Errors
    /// 403 `INSUFFICIENT_PERMISSIONS`.
    pub fn require(&self, role: Role) -> Result<(), ApiError> {
        require(&self.0, role)
    }
}

impl Caller {
    /// Refuses callers without the role.
    ///
    /// # Errors
    /// 403 `INSUFFICIENT_PERMISSIONS`.
    pub fn require(&self, role: Role) -> Result<(), ApiError> {
        require(&self.identity, role)
    }
}

fn require(identity: &Identity, role: Role) -> Result<(), ApiError> {
    if identity.has(role) { Ok(()) } else { Err(code::INSUFFICIENT_PERMISSIONS.into()) }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Missing => code::UNAUTHORIZED,
            TokenError::Malformed => code::MALFORMED_TOKEN,
            TokenError::Expired => code::TOKEN_EXPIRED,
            TokenError::Invalid(_) => code::INVALID_TOKEN,
            TokenError::Unavailable => {
                return ApiError::unavailable(error).with_retry_after(KEYS_WAIT);
            }
        };
        ApiError::new(code).with_cause(error)
    }
}

impl FromRequestParts<AppState> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
        let header = headers.next().and_then(|value| value.to_str().ok());
        if headers.next().is_some() {
            return Err(TokenError::Malformed.into());
        }
        Ok(Self(state.verifier.verify_header(header).await?))
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Authenticated(identity) = Authenticated::from_request_parts(parts, state).await?;
        // Before anything is done for them, whether or not the route asks for the installation.
        OptionalDeviceId::from_request_parts(parts, state).await?;
        let correlation = Correlation::from_request_parts(parts, state).await?;
        let user = state.users.resolve(&identity, correlation.id).await?;
        let class = parts.extensions.get().copied().unwrap_or(RateClass::Standard);
        let (quota, taken) = state.rates.take(user, class).await;
        if let (Some(quota), Some(context)) = (quota, parts.extensions.get::<RequestContext>()) {
            // A handler that asks for the caller twice is counted twice and shows the first count.
            let _ = context.quota.set(quota);
        }
        taken?;
        Ok(Self { user, identity })
    }
}
