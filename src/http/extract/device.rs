//! The app installation a request comes from.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use uuid::Uuid;

use crate::http::error::{ApiError, code};

const HEADER: &str = "x-device-id";

/// The required `X-Device-ID`: a UUID of any version. It names an installation; it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(pub Uuid);

/// `X-Device-ID` where it may be left out. If it is sent, it must still be a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalDeviceId(pub Option<Uuid>);

fn device_id(parts: &Parts) -> Result<Option<Uuid>, ApiError> {
    let Some(value) = parts.headers.get(HEADER).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    // Only the hyphenated form: the parser alone would also take braces and urn:uuid:.
    let text = value.to_str().ok().map(str::trim).filter(|text| text.len() == 36);
    let id = text.and_then(|text| Uuid::try_parse(text).ok());
    id.map(Some).ok_or_else(|| code::INVALID_DEVICE_ID.into())
}

impl<S: Send + Sync> FromRequestParts<S> for DeviceId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        device_id(parts)?.map(Self).ok_or_else(|| code::DEVICE_ID_REQUIRED.into())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OptionalDeviceId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        device_id(parts).map(Self)
    }
}
