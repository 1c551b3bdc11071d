//! `/sessions`: stretches of time in which a person consumes something.

mod active;
mod delete;
mod get;
mod lifecycle;
mod list;
mod start;
mod update;

use aggregates::session::CONTRACT;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entities::schema;
use crate::http::state::AppState;

/// The routes of sessions.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list_sessions, start::start_session))
        .routes(routes!(active::active_session))
        .routes(routes!(
            get::get_session,
            update::patch_session,
            update::put_session,
            delete::delete_session
        ))
        .routes(routes!(lifecycle::pause_session))
        .routes(routes!(lifecycle::resume_session))
        .routes(routes!(lifecycle::end_session))
        .routes(routes!(lifecycle::complete_session))
        .routes(routes!(lifecycle::cancel_session))
}

/// A session. `sessionEndTimestamp` is the idle deadline while it is open, an hour after the last
/// activity, and the time it ended from then on.
#[derive(Serialize)]
#[serde(transparent)]
struct Session(Map<String, Value>);

/// A session to be started.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct NewSession(Map<String, Value>);

/// Fields of a session to be set; null clears. The status changes by pausing, resuming, ending and
/// cancelling alone.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct SessionPatch(Map<String, Value>);

impl PartialSchema for Session {
    fn schema() -> RefOr<Schema> {
        schema::shown(&CONTRACT)
    }
}

impl ToSchema for Session {}

impl PartialSchema for NewSession {
    fn schema() -> RefOr<Schema> {
        schema::given(&CONTRACT, true)
    }
}

impl ToSchema for NewSession {}

impl PartialSchema for SessionPatch {
    fn schema() -> RefOr<Schema> {
        schema::given(&CONTRACT, false)
    }
}

impl ToSchema for SessionPatch {}
