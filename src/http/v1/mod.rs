//! Version 1 of the API, one module a resource.

pub mod consumptions;
mod entities;
pub mod health;
pub mod sessions;
pub mod sync;
pub mod users;

use utoipa_axum::router::OpenApiRouter;

use super::state::AppState;

/// All resources under `/api/v1`.
pub fn routes() -> OpenApiRouter<AppState> {
    let resources = OpenApiRouter::new()
        .merge(consumptions::routes())
        .merge(health::routes())
        .merge(sessions::routes())
        .merge(sync::routes())
        .merge(users::routes());
    OpenApiRouter::new().nest("/api/v1", resources)
}
