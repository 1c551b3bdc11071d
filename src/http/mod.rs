//! The HTTP API: extract → authorise → command or query → respond.
//!
//! A resource is a module with one file per endpoint and a `routes()` that registers them; see
//! `ops/livez.rs` for the pattern. Resources are merged in [`router`].

pub mod context;
pub mod directory;
pub mod envelope;
pub mod error;
pub mod extract;
pub mod layer;
mod openapi;
mod ops;
pub mod rate;
pub mod readiness;
mod serve;
pub mod state;
pub mod time;
pub mod v1;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use self::error::{ApiError, code};
pub use self::serve::{Timing, serve};
pub use self::state::AppState;

/// The OpenAPI document, as it is served and as it lies in `docs/`.
pub fn document() -> utoipa::openapi::OpenApi {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .merge(ops::routes())
        .merge(v1::routes())
        .into_openapi()
}

/// The whole server as one service.
pub fn router(state: AppState) -> Router {
    assemble(v1::routes(), state)
}

/// Puts the resources under the layers, beside the routes for operators. Those are exempt from
/// shedding and time limits: an overloaded server must still say how it is.
fn assemble(resources: OpenApiRouter<AppState>, state: AppState) -> Router {
    let resources = resources
        .layer(from_fn_with_state(state.clone(), layer::guard::time_limit))
        .layer(from_fn_with_state(state.clone(), layer::guard::shed));
    let (router, document) = OpenApiRouter::with_openapi(openapi::Document::openapi())
        .merge(ops::routes())
        .merge(resources)
        .split_for_parts();
    let document = serde_json::to_string(&document).unwrap_or_default();
    router
        .route("/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], document) }))
        .fallback(|| async { ApiError::new(code::NOT_FOUND) })
        .method_not_allowed_fallback(|| async { ApiError::new(code::METHOD_NOT_ALLOWED) })
        .layer(CatchPanicLayer::custom(layer::guard::panicked))
        .layer(layer::compression())
        .layer(layer::cors(&state.limits.cors_origins))
        .layer(from_fn(layer::observe::observe))
        .layer(from_fn(layer::context))
        .with_state(state)
}

#[cfg(test)]
mod tests;
