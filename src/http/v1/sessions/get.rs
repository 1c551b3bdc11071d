//! `GET /sessions/{id}`.

use aggregates::session::CONTRACT;
use uuid::Uuid;

use super::Session;
use crate::commands::entities::get;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Path, System};

/// One session.
#[utoipa::path(
    get,
    path = "/sessions/{id}",
    tag = "sessions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session", body = Envelope<Session>),
        (status = 400, description = "The id is no UUID", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn get_session(
    System(app): System,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Envelope<Session>, ApiError> {
    let session = get(&app.store, caller.user, &CONTRACT, id).await?;
    Ok(Envelope::new(Session(session.to_wire(id, caller.user))))
}
