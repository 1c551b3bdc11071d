//! Why a request did not succeed.

use std::time::Duration;

use serde_json::Value;

/// A refusal by the server.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the server answered {status} {code}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The server's stable code; `UNKNOWN` when the body is not the server's.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// Machine-readable particulars, null if there are none.
    pub details: Value,
}

impl ApiError {
    pub(super) fn from_response(status: u16, header: Option<Duration>, body: &Value) -> Self {
        let error = &body["error"];
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        let asked = [&error["retryAfterMs"], &error["details"]["retryAfterMs"]]
            .into_iter()
            .find_map(Value::as_u64);
        Self {
            status,
            code: text("code").unwrap_or_else(|| "UNKNOWN".into()),
            message: text("message").unwrap_or_else(|| "no message".into()),
            retryable: error["retryable"].as_bool().unwrap_or(matches!(status, 409 | 429 | 500..)),
            retry_after: asked.map(Duration::from_millis).or(header),
            details: error["details"].clone(),
        }
    }
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No answer arrived.
    #[error("could not reach the server")]
    Connection(#[from] reqwest::Error),
    /// A body that has no JSON form.
    #[error("could not write the request")]
    Encode(#[source] serde_json::Error),
    /// An answer of another shape than the API's.
    #[error("could not read the server's answer")]
    Decode(#[source] serde_json::Error),
    /// The server's address is no absolute URL.
    #[error("the server's address is not a URL such as http://127.0.0.1:8080")]
    BadUrl,
    /// The server accepted a batch and did not finish it in time.
    #[error("the server is still processing the batch; send it again later")]
    StillProcessing,
}

impl ClientError {
    /// The server's code, if the server answered.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Api(error) => Some(&error.code),
            _ => None,
        }
    }

    /// The HTTP status, if the server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api(error) => Some(error.status),
            _ => None,
        }
    }

    pub(super) fn worth_a_retry(&self) -> bool {
        match self {
            Self::Api(error) => matches!(error.status, 429 | 502 | 503 | 504),
            Self::Connection(error) => !error.is_builder(),
            _ => false,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after,
            _ => None,
        }
    }
}
