//! `GET /sessions/active`.

use super::Session;
use crate::clock;
use crate::commands::sync::active;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody, code};
use crate::http::extract::{Caller, System};
use aggregates::entity::AnyEntity;

/// The session that goes on right now, if there is one.
///
/// A session without activity for an hour is over, even if nothing has ended it yet.
#[utoipa::path(
    get,
    path = "/sessions/active",
    tag = "sessions",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The session", body = Envelope<Session>),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "No session goes on", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn active_session(
    System(app): System,
    caller: Caller,
) -> Result<Envelope<Session>, ApiError> {
    let active = active::active_session(&app.store, caller.user, clock::now_ms()).await?;
    let (id, session) = active.ok_or(code::NOT_FOUND)?;
    Ok(Envelope::new(Session(AnyEntity::Session(Box::new(session)).to_wire(id, caller.user))))
}
