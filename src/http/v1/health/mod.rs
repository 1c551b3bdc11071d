//! `/health`: samples in and out.

mod batch_upsert;
mod freshness;
mod read;
mod rollups;
mod samples_cursor;
mod shapes;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::BodyLimit;
use crate::http::layer::{body_limit, rate_class};
use crate::http::rate::RateClass;
use crate::http::state::AppState;

/// The routes of health data.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(batch_upsert::batch_upsert))
        .routes(routes!(samples_cursor::samples_cursor))
        .routes(routes!(rollups::rollups))
        .routes(routes!(freshness::freshness))
        .layer(body_limit(BodyLimit::HEALTH))
        .layer(rate_class(RateClass::Sync))
}
