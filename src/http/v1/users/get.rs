//! `GET /users/me` and its older name `GET /users/profile`.

use serde_json::{Map, Value};

use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, System};

/// The caller's account. The first request of a new identity creates it.
#[utoipa::path(
    get,
    path = "/users/me",
    tag = "users",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The account", body = Envelope<Value>),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn get_me(
    System(app): System,
    caller: Caller,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    Ok(Envelope::new(app.accounts.get(caller.user).await?.to_wire(caller.user)))
}

/// The caller's account, under its older name.
#[utoipa::path(
    get,
    path = "/users/profile",
    tag = "users",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The account", body = Envelope<Value>),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn get_profile(
    system: System,
    caller: Caller,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    get_me(system, caller).await
}
