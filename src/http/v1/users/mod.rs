//! `/users`: the caller's own account.

mod change;
mod get;
mod preferences;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::state::AppState;

/// The routes of accounts.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get::get_me, change::patch_me))
        .routes(routes!(get::get_profile, change::patch_profile, change::put_profile))
        .routes(routes!(preferences::get_preferences, preferences::put_preferences))
        .routes(routes!(preferences::patch_preferences))
}
