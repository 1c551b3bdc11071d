//! `/users/preferences`: privacy, notifications, wellness and onboarding.
//!
//! Blocks are merged key by key, whichever verb: replacing a block would quietly erase an earlier
//! refusal to share.

use aggregates::user::{User, UserCommand};
use serde_json::{Map, Value};

use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Cause, Json, System};

/// The caller's preferences, defaults included.
#[utoipa::path(
    get,
    path = "/users/preferences",
    tag = "users",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The preferences", body = Envelope<Value>),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn get_preferences(
    System(app): System,
    caller: Caller,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    Ok(Envelope::new(shown(&app.accounts.get(caller.user).await?)))
}

/// Merges the given blocks into the preferences.
#[utoipa::path(
    put,
    path = "/users/preferences",
    tag = "users",
    security(("bearer" = [])),
    request_body = Value,
    responses(
        (status = 200, description = "The preferences after the change", body = Envelope<Value>),
        (status = 400, description = "A key or value is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn put_preferences(
    System(app): System,
    caller: Caller,
    Cause(metadata): Cause,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    let command = UserCommand::UpdatePreferences { patch };
    let account = app.accounts.change(caller.user, command, &metadata).await?;
    Ok(Envelope::new(shown(&account)))
}

/// Merges the given blocks into the preferences.
#[utoipa::path(
    patch,
    path = "/users/me/preferences",
    tag = "users",
    security(("bearer" = [])),
    request_body = Value,
    responses(
        (status = 200, description = "The preferences after the change", body = Envelope<Value>),
        (status = 400, description = "A key or value is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn patch_preferences(
    System(app): System,
    caller: Caller,
    Cause(metadata): Cause,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Envelope<Map<String, Value>>, ApiError> {
    let command = UserCommand::UpdatePreferences { patch };
    let account = app.accounts.change(caller.user, command, &metadata).await?;
    Ok(Envelope::new(shown(&account)))
}

fn shown(account: &User) -> Map<String, Value> {
    let onboarding = if account.onboarding.is_empty() {
        Value::Null
    } else {
        account.onboarding.clone().into_iter().collect()
    };
    let wellness = account.profile.get("wellnessPreferences").cloned().unwrap_or(Value::Null);
    Map::from_iter([
        ("privacySettings".to_owned(), account.privacy_to_wire().into()),
        ("notificationSettings".to_owned(), account.notifications_to_wire().into()),
        ("wellnessPreferences".to_owned(), wellness),
        ("onboardingPreferences".to_owned(), onboarding),
    ])
}
