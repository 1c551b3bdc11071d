//! `PATCH` and `PUT /sessions/{id}`.

use uuid::Uuid;

use super::{Session, SessionPatch};
use crate::app::App;
use crate::commands::sessions;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, Path, System};
use crate::http::v1::entities::request::Asker;

/// Sets the given fields of a session.
#[utoipa::path(
    patch,
    path = "/sessions/{id}",
    tag = "sessions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    request_body = SessionPatch,
    responses(
        (status = 200, description = "The session after the change", body = Envelope<Session>),
        (status = 400, description = "A field is not valid, or is the status", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 409, description = "It was changed since it was read", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn patch_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
    Json(body): Json<SessionPatch>,
) -> Result<Envelope<Session>, ApiError> {
    update(&app, id, asker, body).await
}

/// Sets the given fields of a session; others stay, as with PATCH.
#[utoipa::path(
    put,
    path = "/sessions/{id}",
    tag = "sessions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The session's id")),
    request_body = SessionPatch,
    responses(
        (status = 200, description = "The session after the change", body = Envelope<Session>),
        (status = 400, description = "A field is not valid, or is the status", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 409, description = "It was changed since it was read", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn put_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
    Json(body): Json<SessionPatch>,
) -> Result<Envelope<Session>, ApiError> {
    update(&app, id, asker, body).await
}

async fn update(
    app: &App,
    id: Uuid,
    asker: Asker,
    body: SessionPatch,
) -> Result<Envelope<Session>, ApiError> {
    let user = asker.user;
    let asked = asker.asks(&body);
    let granted = sessions::update(asked.author(app), id, &body.0).await?;
    Ok(Envelope::new(Session(granted.to_wire(user))))
}
