//! `DELETE /sessions/{id}`.

use aggregates::session::SessionCommand;
use axum::http::StatusCode;
use uuid::Uuid;

use crate::commands::sessions::command;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Path, System};
use crate::http::v1::entities::request::Asker;

/// Deletes a session for good. Its consumptions stay, without a session.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    tag = "sessions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 400, description = "The id is no UUID", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn delete_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
) -> Result<StatusCode, ApiError> {
    let asked = asker.asks(&());
    command(asked.author(&app), id, SessionCommand::Delete).await?;
    Ok(StatusCode::NO_CONTENT)
}
