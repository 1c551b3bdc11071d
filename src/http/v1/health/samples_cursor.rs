//! `GET /health/samples/cursor`: stored samples, newest first, page by page.

#![expect(unused_qualifications, reason = "the route's macro repeats the parameters' type")]

use aggregates::metric::Metric;
use aggregates::segment::{Metadata, Sample};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Number;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::commands::health::{SampleRange, page};
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody, FieldError, code};
use crate::http::extract::{Caller, Query, System};
use crate::http::time::iso_ms;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;
/// A leap year.
const MAX_WINDOW_MS: i64 = 366 * 24 * 60 * 60 * 1000;
/// A cursor of ours is far shorter.
const MAX_CURSOR: usize = 256;

/// Which samples are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Samples that start at or after this.
    start_time: DateTime<Utc>,
    /// Samples that start before this; at most 366 days later.
    end_time: DateTime<Utc>,
    /// Only this metric.
    metric_code: Option<String>,
    /// 1 to 500, 100 if left out.
    limit: Option<usize>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A page.
#[derive(Serialize, ToSchema)]
pub(super) struct Samples {
    items: Vec<Item>,
    pagination: Page,
}

/// Where to go on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Page {
    limit: usize,
    has_more: bool,
    /// Null on the last page.
    next_cursor: Option<String>,
}

/// A stored sample, in its metric's canonical unit.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: Uuid,
    source_id: String,
    source_record_id: String,
    metric_code: &'static str,
    value_kind: &'static str,
    #[schema(value_type = Option<f64>)]
    value: Option<Number>,
    unit: Option<&'static str>,
    category_code: Option<&'static str>,
    start_at: String,
    end_at: String,
    duration_seconds: Option<u32>,
    device_id: Option<String>,
    external_uuid: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    metadata: Option<Metadata>,
    timezone_offset_minutes: Option<i16>,
    created_at: String,
}

/// The caller's samples that start in a range of time, newest first. Deleted ones are left out.
#[utoipa::path(
    get,
    path = "/health/samples/cursor",
    tag = "health",
    security(("bearer" = [])),
    params(Parameters),
    responses(
        (status = 200, description = "A page", body = Envelope<Samples>),
        (status = 400, description = "A parameter or the cursor is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
    ),
)]
pub(super) async fn samples_cursor(
    System(app): System,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Envelope<Samples>, ApiError> {
    let range = range(&parameters)?;
    let found = page(&app.store, caller.user, &range).await?;
    let next_cursor = found
        .samples
        .last()
        .filter(|_| found.has_more)
        .map(|(id, sample)| Cursor { s: iso(sample.key.start_ms), i: *id }.encode());
    let items = found.samples.iter().map(|(id, sample)| Item::new(*id, sample)).collect();
    let pagination = Page { limit: range.limit, has_more: found.has_more, next_cursor };
    Ok(Envelope::new(Samples { items, pagination }))
}

fn range(parameters: &Parameters) -> Result<SampleRange, ApiError> {
    let from_ms = parameters.start_time.timestamp_millis();
    let until_ms = parameters.end_time.timestamp_millis();
    if until_ms < from_ms {
        return Err(refused("endTime", "must not be before startTime"));
    }
    if until_ms - from_ms > MAX_WINDOW_MS {
        return Err(refused("endTime", "must be at most 366 days after startTime"));
    }
    let metric = match &parameters.metric_code {
        Some(code) => {
            let unknown = || refused("metricCode", "must be a metric of the catalogue");
            Some(Metric::parse(code).ok_or_else(unknown)?)
        }
        None => None,
    };
    let limit = parameters.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(refused("limit", "must be from 1 to 500"));
    }
    let after = match &parameters.cursor {
        Some(text) => Some(Cursor::decode(text).ok_or(code::INVALID_CURSOR)?),
        None => None,
    };
    Ok(SampleRange { from_ms, until_ms, metric, after, limit })
}

fn refused(field: &str, message: &str) -> ApiError {
    ApiError::new(code::QUERY_VALIDATION_ERROR).with_field_errors(vec![FieldError {
        field: field.to_owned(),
        message: message.to_owned(),
    }])
}

fn iso(at_ms: i64) -> String {
    iso_ms(DateTime::from_timestamp_millis(at_ms).unwrap_or_default())
}

/// The last sample of a page: its start and its id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    s: String,
    i: Uuid,
}

impl Cursor {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(aggregates::event::to_payload(self))
    }

    fn decode(text: &str) -> Option<(i64, Uuid)> {
        if text.len() > MAX_CURSOR {
            return None;
        }
        let json = URL_SAFE_NO_PAD.decode(text).ok()?;
        let cursor: Self = serde_json::from_slice(&json).ok()?;
        let start = DateTime::parse_from_rfc3339(&cursor.s).ok()?;
        Some((start.timestamp_millis(), cursor.i))
    }
}

impl Item {
    fn new(id: Uuid, sample: &Sample) -> Self {
        let definition = sample.metric.definition();
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            id,
            source_id: sample.key.source_id.to_string(),
            source_record_id: sample.key.record_id.to_string(),
            metric_code: definition.code,
            value_kind: definition.kind.as_str(),
            value: sample.value.map(aggregates::metric::Micro::to_json),
            unit: sample.value.and(definition.unit),
            category_code: sample.category.and_then(|number| sample.metric.category_code(number)),
            start_at: iso(sample.key.start_ms),
            end_at: iso(sample.end_ms),
            duration_seconds: sample.duration_s,
            device_id: text(&sample.device_id),
            external_uuid: text(&sample.external_uuid),
            metadata: sample.metadata.as_deref().cloned(),
            timezone_offset_minutes: sample.offset_min,
            created_at: iso(sample.created_ms),
        }
    }
}
