//! Reading a request body within limits, whatever it claims about itself.

use std::io::{self, Write};

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;

use super::surrogates;
use crate::http::error::{ApiError, code};

const MIB: usize = 1024 * 1024;

/// How large a request body may be, in bytes. Set per route group with `layer::body_limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit {
    /// As it arrives.
    pub wire: usize,
    /// After decompression.
    pub inflated: usize,
}

impl BodyLimit {
    /// For routes that say nothing else.
    pub const STANDARD: Self = Self { wire: MIB, inflated: MIB };
    /// For health uploads.
    pub const HEALTH: Self = Self { wire: 6 * MIB, inflated: 6 * MIB };
    /// For sync pushes.
    pub const SYNC: Self = Self { wire: 6 * MIB, inflated: 25 * MIB };
}

/// The whole body, decompressed, and without halves of characters.
///
/// Both limits are enforced while reading, so that neither a false length nor a small body that
/// inflates without end can take more memory than allowed.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: BodyLimit,
) -> Result<Vec<u8>, ApiError> {
    let gzip = is_gzip(headers)?;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|text| text.parse().ok()).is_some_and(|length: usize| length > limit.wire)
    {
        return Err(too_large(limit));
    }
    let mut sink = Sink::new(gzip, limit.inflated);
    let mut received = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| unreadable("The body was cut short.", error))?;
        received += chunk.len();
        if received > limit.wire {
            return Err(too_large(limit));
        }
        sink.write(&chunk).map_err(|error| refusal(error, limit))?;
    }
    let mut bytes = sink.finish().map_err(|error| refusal(error, limit))?;
    surrogates::mend(&mut bytes);
    Ok(bytes)
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, ApiError> {
    let mut gzip = false;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        match value.to_str().map(str::trim).unwrap_or_default() {
            encoding if encoding.eq_ignore_ascii_case("identity") => {}
            encoding if encoding.eq_ignore_ascii_case("gzip") && !gzip => gzip = true,
            _ => {
                return Err(ApiError::new(code::INVALID_INPUT)
                    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                    .with_message("The body may be encoded as gzip or not at all."));
            }
        }
    }
    Ok(gzip)
}

fn too_large(limit: BodyLimit) -> ApiError {
    ApiError::new(code::INVALID_INPUT)
        .with_status(StatusCode::PAYLOAD_TOO_LARGE)
        .with_message("The request body is too large.")
        .with_details(serde_json::json!({
            "maxBytes": limit.wire,
            "maxInflatedBytes": limit.inflated,
        }))
}

/// A fault of the way here rather than of the data: the same body may arrive whole next time, and a
/// phone must not throw away what it holds.
fn unreadable(
    message: &'static str,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ApiError {
    ApiError::new(code::INVALID_INPUT).with_message(message).with_retryable(true).with_cause(cause)
}

fn refusal(error: io::Error, limit: BodyLimit) -> ApiError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        too_large(limit)
    } else {
        unreadable("The body is not valid gzip.", error)
    }
}

/// Takes the body as it arrives and keeps what it decodes to.
enum Sink {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Sink {
    fn new(gzip: bool, limit: usize) -> Self {
        let bounded = Bounded { bytes: Vec::new(), limit };
        if gzip { Self::Gzip(Box::new(MultiGzDecoder::new(bounded))) } else { Self::Plain(bounded) }
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(bounded) => bounded.write_all(chunk),
            Self::Gzip(decoder) => decoder.write_all(chunk),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(bounded) => Ok(bounded.bytes),
            Self::Gzip(decoder) => Ok(decoder.finish()?.bytes),
        }
    }
}

/// A buffer that refuses to grow past its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + chunk.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
