//! The outermost layer.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::correlation;
use crate::http::context::RequestContext;
use crate::http::error::Dialect;
use crate::http::time;

/// Headers that every response carries as they stand. The policies assume that the API serves no
/// page; a route that does may set its own content policy.
const FIXED: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("content-security-policy", "default-src 'self'"),
    ("x-api-version", "1"),
];

/// Names the request, runs the rest within that name, and completes the response's headers, also
/// those of errors raised by any other layer.
pub(crate) async fn context(mut request: Request, next: Next) -> Response {
    let correlation = correlation::of(request.headers());
    let text = correlation.text.clone();
    let dialect = Dialect::of_path(request.uri().path());
    let context = RequestContext { correlation, dialect, quota: Arc::default() };
    let quota = Arc::clone(&context.quota);
    request.extensions_mut().insert(context.clone());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let correlation_id = context.correlation.id;
    let span = tracing::info_span!(
        "request", method = %request.method(), route, request_id = text, %correlation_id,
    );
    let mut response = context.scope(next.run(request).instrument(span)).await;
    if let Some(quota) = quota.get() {
        quota.write(response.headers_mut());
    }
    complete(response.headers_mut(), &text);
    response
}

fn complete(headers: &mut HeaderMap, request_id: &str) {
    for (name, value) in FIXED {
        headers
            .entry(HeaderName::from_static(name))
            .or_insert_with(|| HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-correlation-id", id.clone());
        headers.insert("x-request-id", id);
    }
    if let Ok(now) = HeaderValue::from_str(&time::now_iso()) {
        headers.insert("server-time", now);
    }
}
