//! `POST /sessions/{id}/…`: the steps of a session's life.
//!
//! To ask for the state a session is in changes nothing. Completed and cancelled sessions stay so.

use aggregates::session::SessionCommand;
use uuid::Uuid;

use super::Session;
use crate::app::App;
use crate::commands::sessions;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Path, System};
use crate::http::v1::entities::request::{Asker, OptionalObject};

/// Pauses a session. Its idle hour goes on.
#[utoipa::path(
    post,
    path = "/sessions/{id}/pause",
    tag = "sessions",
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The session's id"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "Recognises the request when it is sent again"),
    ),
    responses(
        (status = 200, description = "The session after it", body = Envelope<Session>),
        (status = 400, description = "The id is no UUID", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 409, description = "The session is over, or the key was used for another \
            request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn pause_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
) -> Result<Envelope<Session>, ApiError> {
    step(&app, id, asker, SessionCommand::Pause).await
}

/// Resumes a paused session.
#[utoipa::path(
    post,
    path = "/sessions/{id}/resume",
    tag = "sessions",
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The session's id"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "Recognises the request when it is sent again"),
    ),
    responses(
        (status = 200, description = "The session after it", body = Envelope<Session>),
        (status = 400, description = "The id is no UUID", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 409, description = "The session is over, or the key was used for another \
            request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn resume_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
) -> Result<Envelope<Session>, ApiError> {
    step(&app, id, asker, SessionCommand::Resume).await
}

/// Cancels a session.
#[utoipa::path(
    post,
    path = "/sessions/{id}/cancel",
    tag = "sessions",
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The session's id"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "Recognises the request when it is sent again"),
    ),
    responses(
        (status = 200, description = "The session after it", body = Envelope<Session>),
        (status = 400, description = "The id is no UUID", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 409, description = "The session is over, or the key was used for another \
            request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn cancel_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
) -> Result<Envelope<Session>, ApiError> {
    step(&app, id, asker, SessionCommand::Cancel).await
}

/// Ends a session, with what the person has to say about it.
#[utoipa::path(
    post,
    path = "/sessions/{id}/end",
    tag = "sessions",
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The session's id"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "Recognises the request when it is sent again"),
    ),
    request_body(content = Option<Value>,
        description = "`summary`, `rating` from 0 to 5, `notes` and `wouldRepeat`, each optional"),
    responses(
        (status = 200, description = "The session after it", body = Envelope<Session>),
        (status = 400, description = "A field is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 409, description = "The session is over, or the key was used for another \
            request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn end_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
    body: OptionalObject,
) -> Result<Envelope<Session>, ApiError> {
    end(&app, id, asker, body).await
}

/// Ends a session, under another name.
#[utoipa::path(
    post,
    path = "/sessions/{id}/complete",
    tag = "sessions",
    security(("bearer" = [])),
    params(
        ("id" = Uuid, Path, description = "The session's id"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "Recognises the request when it is sent again"),
    ),
    request_body(content = Option<Value>,
        description = "`summary`, `rating` from 0 to 5, `notes` and `wouldRepeat`, each optional"),
    responses(
        (status = 200, description = "The session after it", body = Envelope<Session>),
        (status = 400, description = "A field is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such session", body = ErrorBody),
        (status = 409, description = "The session is over, or the key was used for another \
            request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn complete_session(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
    body: OptionalObject,
) -> Result<Envelope<Session>, ApiError> {
    end(&app, id, asker, body).await
}

async fn step(
    app: &App,
    id: Uuid,
    asker: Asker,
    command: SessionCommand,
) -> Result<Envelope<Session>, ApiError> {
    let user = asker.user;
    let asked = asker.asks(&());
    let granted = sessions::command(asked.author(app), id, command).await?;
    Ok(Envelope::new(Session(granted.to_wire(user))))
}

async fn end(
    app: &App,
    id: Uuid,
    asker: Asker,
    OptionalObject(body): OptionalObject,
) -> Result<Envelope<Session>, ApiError> {
    let user = asker.user;
    let asked = asker.asks(&body);
    let granted = sessions::end(asked.author(app), id, &body).await?;
    Ok(Envelope::new(Session(granted.to_wire(user))))
}
