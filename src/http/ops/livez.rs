//! `GET /livez`: is the process running?
//!
//! This file shows what every endpoint looks like: one file holding the handler, its request and
//! answer types, the mapping of refusals to [`ApiError`], and the OpenAPI attributes. The parent
//! module registers the handler with `routes!`, so that a route cannot exist without its
//! documentation. An endpoint that needs a person takes a
//! [`Caller`](crate::http::extract::Caller), one with a body a
//! [`Json`](crate::http::extract::Json) as its last argument; both answer their own errors.
//!
//! [`ApiError`]: crate::http::error::ApiError

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};

/// The answer.
#[derive(Serialize, ToSchema)]
pub(super) struct Liveness {
    /// Always `alive`: a process that is not does not answer.
    status: &'static str,
    /// The server's version.
    version: &'static str,
}

/// Tells that the process runs. It looks at nothing else, so that trouble elsewhere does not get
/// the process restarted.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "operations",
    responses(
        (status = 200, description = "The process is running", body = Envelope<Liveness>),
        (status = 503, description = "The server is stopping", body = ErrorBody),
    ),
)]
pub(super) async fn livez() -> Result<Envelope<Liveness>, ApiError> {
    Ok(Envelope::new(Liveness { status: "alive", version: env!("CARGO_PKG_VERSION") }))
}
