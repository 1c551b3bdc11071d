//! `GET /sync/explain/{type}/{id}`: how an entity became what it is.

use crate::commands::sync::explain::{Explanation, explain};
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Path, System};

/// Shows every change of an entity and how each conflict was decided, field by field.
#[utoipa::path(
    get,
    path = "/sync/explain/{type}/{id}",
    tag = "sync",
    security(("bearer" = [])),
    params(
        ("type" = String, Path, description = "The type: `sessions`, `consumptions`"),
        ("id" = String, Path, description = "The entity's id, the client's or the server's"),
    ),
    responses(
        (status = 200, description = "The entity's history", body = Envelope<Explanation>),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such entity", body = ErrorBody),
    ),
)]
pub(super) async fn get_explanation(
    System(app): System,
    caller: Caller,
    Path((entity_type, id)): Path<(String, String)>,
) -> Result<Envelope<Explanation>, ApiError> {
    Ok(Envelope::new(explain(&app.store, caller.user, &entity_type, &id).await?))
}
