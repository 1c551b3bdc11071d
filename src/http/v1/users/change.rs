//! `PATCH /users/me`, `PATCH` and `PUT /users/profile`: changes of the profile.

use aggregates::user::UserCommand;
use aggregates::{Metadata, UserId};
use serde_json::{Map, Value};

use crate::app::App;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Cause, Json, System};

/// Sets the given fields of the profile.
#[utoipa::path(
    patch,
    path = "/users/me",
    tag = "users",
    security(("bearer" = [])),
    request_body = Value,
    responses(
        (status = 200, description = "The account after the change", body = Envelope<Value>),
        (status = 400, description = "A field is not valid, or the patch is empty", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 409, description = "Somebody else has this user name", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn patch_me(
    System(app): System,
    caller: Caller,
    Cause(metadata): Cause,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    update(&app, caller.user, patch, &metadata).await
}

/// Sets the given fields of the profile.
#[utoipa::path(
    patch,
    path = "/users/profile",
    tag = "users",
    security(("bearer" = [])),
    request_body = Value,
    responses(
        (status = 200, description = "The account after the change", body = Envelope<Value>),
        (status = 400, description = "A field is not valid, or the patch is empty", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 409, description = "Somebody else has this user name", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn patch_profile(
    System(app): System,
    caller: Caller,
    Cause(metadata): Cause,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    update(&app, caller.user, patch, &metadata).await
}

/// Sets the given fields of the profile; others stay, as with PATCH.
#[utoipa::path(
    put,
    path = "/users/profile",
    tag = "users",
    security(("bearer" = [])),
    request_body = Value,
    responses(
        (status = 200, description = "The account after the change", body = Envelope<Value>),
        (status = 400, description = "A field is not valid, or the patch is empty", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 409, description = "Somebody else has this user name", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn put_profile(
    System(app): System,
    caller: Caller,
    Cause(metadata): Cause,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    update(&app, caller.user, patch, &metadata).await
}

async fn update(
    app: &App,
    user: UserId,
    patch: Map<String, Value>,
    metadata: &Metadata,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    let command = UserCommand::UpdateProfile { patch };
    let account = app.accounts.change(user, command, metadata).await?;
    Ok(Envelope::new(account.to_wire(user)))
}
