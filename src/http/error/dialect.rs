//! The names the health routes give to errors.
//!
//! Their client knows a closed set of codes and decides by `retryable` whether samples are kept for
//! another attempt or rejected for good. Every error under `/api/v1/health/` is translated, also
//! those raised before a handler runs.

use std::time::Duration;

use axum::http::StatusCode;

use super::{ApiError, ErrorCode, code};

/// Which set of codes a client understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Standard,
    Health,
}

/// A translation: the wire code, whether to retry, and after how many milliseconds.
struct Rule {
    raised: ErrorCode,
    /// Only for answers with this status, where one code is used with several.
    status: Option<StatusCode>,
    wire: ErrorCode,
    retryable: bool,
    wait_ms: Option<u64>,
}

const fn rule(raised: ErrorCode, wire: ErrorCode, retryable: bool, wait_ms: Option<u64>) -> Rule {
    Rule { raised, status: None, wire, retryable, wait_ms }
}

/// The first rule that fits decides. A malformed token must not read as invalid data, which the
/// client would throw away; it is a matter of signing in again.
const HEALTH: &[Rule] = &[
    Rule {
        raised: code::INVALID_INPUT,
        status: Some(StatusCode::PAYLOAD_TOO_LARGE),
        wire: code::PAYLOAD_TOO_LARGE,
        retryable: true,
        wait_ms: Some(1_000),
    },
    rule(code::PAYLOAD_TOO_LARGE, code::PAYLOAD_TOO_LARGE, true, Some(1_000)),
    rule(code::INVALID_INPUT, code::VALIDATION_ERROR, false, None),
    rule(code::BAD_REQUEST, code::VALIDATION_ERROR, false, None),
    rule(code::DEVICE_ID_REQUIRED, code::VALIDATION_ERROR, false, None),
    rule(code::INVALID_DEVICE_ID, code::VALIDATION_ERROR, false, None),
    rule(code::PAYLOAD_HASH_MISMATCH, code::VALIDATION_ERROR, false, None),
    rule(code::MALFORMED_TOKEN, code::UNAUTHORIZED, false, None),
    rule(code::INVALID_TOKEN, code::UNAUTHORIZED, false, None),
    rule(code::TOKEN_EXPIRED, code::UNAUTHORIZED, false, None),
    rule(code::USER_NOT_FOUND, code::FORBIDDEN, false, None),
    rule(code::ACCESS_DENIED, code::FORBIDDEN, false, None),
    rule(code::INSUFFICIENT_PERMISSIONS, code::FORBIDDEN, false, None),
    rule(code::RATE_LIMIT_EXCEEDED, code::RATE_LIMITED, true, Some(60_000)),
    rule(code::CONFLICT, code::SERVER_ERROR, true, Some(90_000)),
    rule(code::REQUEST_TIMEOUT, code::TIMEOUT, true, None),
    rule(code::CONFIG_VERSION_TOO_NEW, code::SERVICE_UNAVAILABLE, true, Some(30_000)),
    rule(code::SERVICE_UNAVAILABLE, code::SERVICE_UNAVAILABLE, true, Some(30_000)),
    rule(code::EXTERNAL_SERVICE_ERROR, code::GATEWAY_TIMEOUT, true, None),
    rule(code::INTERNAL_SERVER_ERROR, code::SERVER_ERROR, true, None),
    rule(code::DATABASE_ERROR, code::SERVER_ERROR, true, None),
    rule(code::CONFIGURATION_ERROR, code::SERVER_ERROR, true, None),
];

impl Dialect {
    /// The dialect of the route group that `path` belongs to.
    pub fn of_path(path: &str) -> Self {
        if path.starts_with("/api/v1/health/") { Self::Health } else { Self::Standard }
    }

    /// The code to send. For the health routes this also settles `retryable` and the wait, unless
    /// the error came with its own, and the status where it would contradict the code.
    pub(super) fn translate(self, error: &mut ApiError) -> &'static str {
        let inner = &mut error.0;
        if self == Self::Standard {
            return inner.code.name;
        }
        let found = HEALTH.iter().find(|rule| {
            rule.raised == inner.code && rule.status.is_none_or(|status| status == inner.status)
        });
        let Some(rule) = found else {
            let server_failed = inner.status.is_server_error();
            inner.retryable.get_or_insert(server_failed);
            return inner.code.name;
        };
        if rule.wire == code::UNAUTHORIZED {
            inner.status = rule.wire.status;
        }
        let retryable = *inner.retryable.get_or_insert(rule.retryable);
        if retryable && inner.retry_after.is_none() {
            inner.retry_after = rule.wait_ms.map(Duration::from_millis);
        }
        rule.wire.name
    }
}
