//! `POST /sessions`.

use super::{NewSession, Session};
use crate::commands::sessions::start;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, System};
use crate::http::v1::entities::request::Asker;

/// Starts a session, and ends the one that was open.
///
/// Sent again with the same `clientSessionId`, it answers with the session that exists and changes
/// nothing. One that names an end in the past is completed at once and ends no other.
#[utoipa::path(
    post,
    path = "/sessions",
    tag = "sessions",
    security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Recognises the request when it is sent again")),
    request_body = NewSession,
    responses(
        (status = 201, description = "The session, new or found", body = Envelope<Session>),
        (status = 400, description = "A field is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 409, description = "The session was deleted, or the key was used for another \
            request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn start_session(
    System(app): System,
    asker: Asker,
    Json(body): Json<NewSession>,
) -> Result<Envelope<Session>, ApiError> {
    let user = asker.user;
    let asked = asker.asks(&body);
    let granted = start(asked.author(&app), &body.0).await?;
    Ok(Envelope::created(Session(granted.to_wire(user))))
}
