//! A client of Tidemark's own public API: what a phone would be, without the phone.
//!
//! It knows the wire format and nothing of the server's inside. Lost connections, 429 and 503 are
//! retried a bounded number of times, which is safe because every write carries an id of its own.

mod error;
pub mod hash;
pub mod wire;

use std::io::Write;
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

pub use error::{ApiError, ClientError};
use wire::{Batch, BatchResult, ChangesPage, PushRequest, PushResult};

/// Bodies from this size on travel compressed.
const GZIP_FROM: usize = 1024;
/// What a phone asks for per page of changes.
const PAGE: u32 = 700;

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries per request, the first included.
    pub attempts: u32,
    /// The first pause after a lost connection; it doubles with each further one.
    pub pause: Duration,
    /// The longest pause, whatever the server asks for.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 6, pause: Duration::from_millis(100), longest: Duration::from_secs(5) }
    }
}

/// A client for one person on one device.
#[derive(Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    base: Url,
    token: String,
    device_id: Uuid,
    /// Minutes east of UTC for samples without an offset of their own.
    pub timezone_offset_minutes: Option<i32>,
    /// How often and how long to try.
    pub patience: Patience,
}

impl std::fmt::Debug for ApiClient {
    /// Leaves the token out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiClient")
            .field("base", &self.base.as_str())
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

impl ApiClient {
    /// A client of the server at `base_url`, such as `http://127.0.0.1:8080`; the API's prefix
    /// `/api/v1` is added.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`] when `base_url` is no absolute URL, [`ClientError::Connection`]
    /// when no HTTP client can be made.
    pub fn new(
        base_url: &str,
        token: impl Into<String>,
        device_id: Uuid,
    ) -> Result<Self, ClientError> {
        let base = format!("{}/api/v1/", base_url.trim_end_matches('/'));
        let base = Url::parse(&base).map_err(|_| ClientError::BadUrl)?;
        if base.cannot_be_a_base() {
            return Err(ClientError::BadUrl);
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self {
            http,
            base,
            token: token.into(),
            device_id,
            timezone_offset_minutes: None,
            patience: Patience::default(),
        })
    }

    /// The same client on another device of the same person.
    pub fn on_device(&self, device_id: Uuid) -> Self {
        Self { device_id, ..self.clone() }
    }

    /// The device this client speaks for.
    pub fn device_id(&self) -> Uuid {
        self.device_id
    }

    /// Uploads samples and deletions, and waits until they are processed: a queued batch (202) and
    /// one still in progress (409) are asked about again under the same id.
    ///
    /// # Errors
    /// [`ClientError`]; refused items are part of the result, not an error.
    pub async fn batch_upsert(&self, batch: &Batch) -> Result<BatchResult, ClientError> {
        let mut polls = 0;
        loop {
            let sent =
                self.send(Method::POST, &["health", "samples", "batch-upsert"], &[], Some(batch));
            let pause = match sent.await {
                Ok(reply) if reply.status != StatusCode::ACCEPTED => return reply.data(),
                Ok(reply) => {
                    let body = &reply.body["data"]["retryAfterMs"];
                    reply.retry_after.or_else(|| body.as_u64().map(Duration::from_millis))
                }
                Err(ClientError::Api(error)) if error.status == 409 && error.retryable => {
                    error.retry_after
                }
                Err(error) => return Err(error),
            };
            polls += 1;
            if polls > 10 * self.patience.attempts {
                return Err(ClientError::StillProcessing);
            }
            self.rest(pause, 0).await;
        }
    }

    /// Pushes local changes.
    ///
    /// # Errors
    /// [`ClientError`]; refused items are part of the result, not an error.
    pub async fn push(&self, request: &PushRequest) -> Result<PushResult, ClientError> {
        self.send(Method::POST, &["sync", "push"], &[], Some(request)).await?.data()
    }

    /// One page of changes after `cursor`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn changes(
        &self,
        cursor: Option<&str>,
        entity_types: &[&str],
    ) -> Result<ChangesPage, ClientError> {
        let (types, limit) = (entity_types.join(","), PAGE.to_string());
        let mut query = vec![("limit", limit.as_str())];
        if !types.is_empty() {
            query.push(("entityTypes", &types));
        }
        if let Some(cursor) = cursor {
            query.push(("cursor", cursor));
        }
        self.send(Method::GET, &["sync", "changes"], &query, NOTHING).await?.data()
    }

    /// How concurrent edits of an entity were merged.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(&self, entity_type: &str, id: &str) -> Result<Value, ClientError> {
        self.get(&["sync", "explain", entity_type, id], &[]).await
    }

    /// Daily rollups of a metric from `from` to `to` (`YYYY-MM-DD`, both included).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rollups(&self, metric: &str, from: &str, to: &str) -> Result<Value, ClientError> {
        let query =
            [("metricCode", metric), ("startDate", from), ("endDate", to), ("limit", "1000")];
        self.get(&["health", "rollups"], &query).await
    }

    /// How far each projection of the person's health data is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn freshness(&self) -> Result<Value, ClientError> {
        self.get(&["health", "freshness"], &[]).await
    }

    /// Reads any route: `client.get(&["sessions", id], &[])`. Answers the envelope's `data`, or
    /// the whole body where a route has no envelope.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, ClientError> {
        Ok(self.send(Method::GET, path, query, NOTHING).await?.into_data())
    }

    /// Posts to any route, as [`ApiClient::get`] reads.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        Ok(self.send(Method::POST, path, &[], Some(body)).await?.into_data())
    }

    /// Changes fields of a resource.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        Ok(self.send(Method::PATCH, path, &[], Some(body)).await?.into_data())
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, path: &[&str]) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, &[], NOTHING).await.map(drop)
    }

    /// Sends one request until it is answered or patience ends.
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<Reply, ClientError> {
        let url = self.url(path, query)?;
        let body = body.map(encode).transpose()?;
        let mut attempt = 1;
        loop {
            let result = self.send_once(method.clone(), url.clone(), body.clone()).await;
            let pause = match &result {
                Err(error) if attempt < self.patience.attempts && error.worth_a_retry() => {
                    error.retry_after()
                }
                _ => return result,
            };
            self.rest(pause, attempt - 1).await;
            attempt += 1;
        }
    }

    async fn send_once(
        &self,
        method: Method,
        url: Url,
        body: Option<Encoded>,
    ) -> Result<Reply, ClientError> {
        let mut request = self
            .http
            .request(method, url)
            .bearer_auth(&self.token)
            .header("x-device-id", self.device_id.to_string());
        if let Some(offset) = self.timezone_offset_minutes {
            request = request.header("x-timezone-offset", offset.to_string());
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.bytes);
            if body.gzip {
                request = request.header(CONTENT_ENCODING, "gzip");
            }
        }
        let response = request.send().await?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            Ok(Reply { status, retry_after, body })
        } else {
            Err(ClientError::Api(ApiError::from_response(status.as_u16(), retry_after, &body)))
        }
    }

    /// Pauses for what the server asked, else for a pause that doubles.
    async fn rest(&self, asked: Option<Duration>, doublings: u32) {
        let own = self.patience.pause.saturating_mul(1_u32 << doublings.min(16));
        tokio::time::sleep(asked.unwrap_or(own).min(self.patience.longest)).await;
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, ClientError> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| ClientError::BadUrl)?.pop_if_empty().extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }
}

/// The body of a request that has none.
const NOTHING: Option<&Value> = None;

#[derive(Clone)]
struct Encoded {
    bytes: Vec<u8>,
    gzip: bool,
}

fn encode(body: &impl Serialize) -> Result<Encoded, ClientError> {
    let json = serde_json::to_vec(body).map_err(ClientError::Encode)?;
    if json.len() < GZIP_FROM {
        return Ok(Encoded { bytes: json, gzip: false });
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zipped = encoder.write_all(&json).and_then(|()| encoder.finish());
    // Writing to memory does not fail; if it did, the plain body says the same.
    Ok(match zipped {
        Ok(bytes) => Encoded { bytes, gzip: true },
        Err(_) => Encoded { bytes: json, gzip: false },
    })
}

struct Reply {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Value,
}

impl Reply {
    fn into_data(mut self) -> Value {
        match self.body.get_mut("data") {
            Some(data) => data.take(),
            None => self.body,
        }
    }

    fn data<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        serde_json::from_value(self.into_data()).map_err(ClientError::Decode)
    }
}

#[cfg(test)]
mod tests;
