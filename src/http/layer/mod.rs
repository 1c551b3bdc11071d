//! What happens around every handler.
//!
//! From the outside in: `context` names the request and completes the response's headers,
//! `observe` counts and logs it, then CORS and compression, and around the API's routes alone
//! `guard`: panics, shedding of load and the time limit.

mod context;
mod correlation;
pub(super) mod guard;
pub(super) mod observe;

use std::time::Duration;

use axum::Extension;
use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::extract::BodyLimit;
use super::rate::RateClass;

pub(super) use context::context;

/// Raises or lowers how large a body the routes of a group accept.
pub fn body_limit(limit: BodyLimit) -> Extension<BodyLimit> {
    Extension(limit)
}

/// Counts the requests of a group's routes in another bucket than the standard one.
pub fn rate_class(class: RateClass) -> Extension<RateClass> {
    Extension(class)
}

/// Bodies from 1 KiB on are worth compressing, but no more than fastest: an answer to an upload is
/// mostly random ids, of which more effort saves a few per cent at several times the cost.
pub(super) fn compression() -> CompressionLayer<impl Predicate> {
    CompressionLayer::new()
        .gzip(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(1024).and(NotForContentType::SSE))
}

/// Lets browsers on these origins call the API. A wildcard is no origin: with credentials it would
/// hand every site the person's data.
pub(super) fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter(|origin| *origin != "*");
    let allowed: Vec<HeaderValue> =
        origins.filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let name = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(allowed))
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::IF_NONE_MATCH,
            name("idempotency-key"),
            name("x-device-id"),
            name("x-correlation-id"),
            name("x-request-id"),
            name("x-timezone-offset"),
            name("x-api-version"),
        ])
        .expose_headers([
            name("x-correlation-id"),
            name("x-request-id"),
            name("server-time"),
            header::RETRY_AFTER,
            header::ETAG,
            name("x-ratelimit-limit"),
            name("x-ratelimit-remaining"),
            name("x-ratelimit-reset"),
            name("x-ratelimit-window"),
            name("x-health-watermark"),
        ])
        .max_age(Duration::from_secs(600))
}
