//! `/sync`: what other devices changed, and what this one did.

mod changes;
mod explain;
mod push;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::BodyLimit;
use crate::http::layer;
use crate::http::rate::RateClass;
use crate::http::state::AppState;

/// The routes of synchronisation.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(changes::get_changes))
        .routes(routes!(push::post_push))
        .routes(routes!(explain::get_explanation))
        .layer(layer::body_limit(BodyLimit::SYNC))
        .layer(layer::rate_class(RateClass::Sync))
}
