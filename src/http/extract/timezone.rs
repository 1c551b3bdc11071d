//! The offset of the phone's clock at the time of the request.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::header;

/// `X-Timezone-Offset` in minutes, east positive, −720 to 840.
///
/// It is a hint. What cannot be used is ignored, so that a phone with an odd clock can still upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimezoneOffset(pub Option<i16>);

impl<S: Send + Sync> FromRequestParts<S> for TimezoneOffset {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let text = header(parts, "x-timezone-offset").map(str::trim).unwrap_or_default();
        let offset = text.parse::<i16>().ok().filter(|offset| (-720..=840).contains(offset));
        if offset.is_none() && text.parse::<f64>().is_ok() {
            tracing::info!("ignored a timezone offset out of range");
        }
        Ok(Self(offset))
    }
}
