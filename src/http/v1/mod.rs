//! Version 1 of the API, one module a resource.

pub mod health;
pub mod sync;
pub mod users;

use utoipa_axum::router::OpenApiRouter;

use super::state::AppState;

/// All resources under `/api/v1`.
pub fn routes() -> OpenApiRouter<AppState> {
    let resources =
        OpenApiRouter::new().merge(health::routes()).merge(sync::routes()).merge(users::routes());
    OpenApiRouter::new().nest("/api/v1", resources)
}
