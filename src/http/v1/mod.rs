//! Version 1 of the API, one module a resource.

pub mod health;
pub mod users;

use utoipa_axum::router::OpenApiRouter;

use super::state::AppState;

/// All resources under `/api/v1`.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .nest("/api/v1", OpenApiRouter::new().merge(health::routes()).merge(users::routes()))
}
