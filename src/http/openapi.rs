//! The API's description of itself.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::error::{ErrorBody, ErrorDetail, FieldError};

/// What the document says apart from the routes, which add themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemark",
        description = "Every answer is an envelope: `{success, data, metadata}` or \
            `{success, error}`. Times are RFC 3339 in UTC."
    ),
    components(schemas(ErrorBody, ErrorDetail, FieldError)),
    modifiers(&Bearer)
)]
pub(super) struct Document;

/// Name of the security scheme, for `security(("bearer" = []))` on handlers.
const BEARER: &str = "bearer";

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    }
}
