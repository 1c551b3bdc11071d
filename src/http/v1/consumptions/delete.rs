//! `DELETE /consumptions/{id}`.

use axum::http::StatusCode;
use uuid::Uuid;

use crate::commands::consumptions;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Path, System};
use crate::http::v1::entities::request::Asker;

/// Deletes a consumption for good. Its session no longer counts it.
#[utoipa::path(
    delete,
    path = "/consumptions/{id}",
    tag = "consumptions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The consumption's id")),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 400, description = "The id is no UUID", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such consumption", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn delete_consumption(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
) -> Result<StatusCode, ApiError> {
    let asked = asker.asks(&());
    consumptions::delete(asked.author(&app), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
