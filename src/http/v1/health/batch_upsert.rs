//! `POST /health/samples/batch-upsert`: samples and deletions, up to 500 of each.

use aggregates::Metadata;
use aggregates::health_batch::{Batch, BatchError, Data};
use axum::http::{HeaderName, StatusCode};
use axum::response::AppendHeaders;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::clock;
use crate::commands::health::{Upload, UploadError, upload};
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody, code};
use crate::http::extract::{Caller, Cause, DeviceId, Json, System, TimezoneOffset};

/// How far the person's health data has moved: what a reader waits for to see this batch.
const WATERMARK: HeaderName = HeaderName::from_static("x-health-watermark");

type Answer = (StatusCode, AppendHeaders<[(HeaderName, String); 1]>, Envelope<Data>);

/// Uploads samples and deletions.
///
/// Every sample and every deletion is answered exactly once, by source, record and start; a fault
/// of one changes nothing for another. Sending the same request again under the same `requestId`
/// is answered as before, and the same samples under another one change nothing. A deletion is
/// final, whether it arrives before or after its sample.
#[utoipa::path(
    post,
    path = "/health/samples/batch-upsert",
    tag = "health",
    security(("bearer" = [])),
    params(
        ("X-Device-ID" = String, Header, description = "The app installation, a UUID"),
        ("X-Timezone-Offset" = Option<i32>, Header,
            description = "Minutes east of UTC, for samples that name no offset"),
    ),
    request_body(content = Value, description = "`requestId`, `payloadHash`, `configVersion`, \
        `samples` and `deleted`; may be compressed with gzip"),
    responses(
        (status = 200, description = "Everything was accepted", body = Envelope<Value>,
            headers(("X-Health-Watermark" = i64, description = "The watermark after the batch"))),
        (status = 207, description = "Some samples or deletions were not", body = Envelope<Value>,
            headers(("X-Health-Watermark" = i64, description = "The watermark after the batch"))),
        (status = 400, description = "The envelope is not valid, or the request id was used with \
            other content; nothing was applied", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 403, description = "Health uploads are turned off", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 413, description = "The batch is too large; send it in parts", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
        (status = 503, description = "Nothing was applied; try again later", body = ErrorBody),
    ),
)]
pub(super) async fn batch_upsert(
    System(app): System,
    caller: Caller,
    _device: DeviceId,
    TimezoneOffset(offset_min): TimezoneOffset,
    Cause(metadata): Cause,
    Json(body): Json<Box<RawValue>>,
) -> Result<Answer, ApiError> {
    let received_ms = clock::now_ms();
    let batch = Box::new(Batch::parse(body.get().as_bytes())?);
    let request_id = batch.request_id;
    let metadata = Metadata { request_id: Some(request_id.to_string()), ..metadata };
    let request = Upload { user: caller.user, batch, offset_min, received_ms, metadata };
    let uploaded = upload(&app.store, request).await?;
    let status = StatusCode::from_u16(uploaded.answer.status).unwrap_or(StatusCode::OK);
    let watermark = AppendHeaders([(WATERMARK, uploaded.health_seq.to_string())]);
    let envelope = Envelope::new(uploaded.answer.data).with_status(status);
    Ok((status, watermark, envelope.with_request_id(request_id)))
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Invalid(message) => {
                Self::new(code::VALIDATION_ERROR).with_message(message).with_retryable(false)
            }
            BatchError::ConfigVersionTooNew => code::CONFIG_VERSION_TOO_NEW.into(),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            // The client discards samples it is told not to send again, so it has to be told to:
            // under a new request id they are a new request.
            UploadError::ContentDiffers => Self::new(code::VALIDATION_ERROR)
                .with_message("requestId was used before with other content; use a new one.")
                .with_retryable(true),
            UploadError::UploadsDisabled => Self::new(code::FORBIDDEN)
                .with_message("Health uploads are turned off.")
                .with_details(serde_json::json!({ "reason": "HEALTH_UPLOAD_DISABLED" })),
            UploadError::Account(error) => error.into(),
        }
    }
}
