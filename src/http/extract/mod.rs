//! What handlers ask of a request, each refused in the API's own words.

mod auth;
mod body;
mod device;
mod json;
mod params;
mod pointer;
mod surrogates;
mod system;
mod timezone;
mod wording;

pub use auth::{Authenticated, Caller};
pub use body::BodyLimit;
pub use device::{DeviceId, OptionalDeviceId};
pub use json::Json;
pub use params::{Path, Query};
pub use system::{Cause, System};
pub use timezone::TimezoneOffset;

pub use super::context::Correlation;

use axum::http::request::Parts;

/// The text of a header, if it is there and readable.
fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}
