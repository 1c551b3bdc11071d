//! `GET /health/rollups`: daily statistics of one metric.

use aggregates::metric::{Metric, Micro};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::NaiveDate;
use projections::freshness::{DataQuality, Freshness, State, Summary};
use projections::registry::HEALTH_ROLLUP;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use siphasher::sip::SipHasher13;
use std::hash::{Hash, Hasher};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::read::{self, date, refused};
use super::shapes::{FreshnessShape, QualityShape, SummaryShape};
use crate::commands::users::health_rules;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Query, System};
use crate::projector::StateReader;
use crate::read_models::ReadModel;
use crate::read_models::health_rollup::{Day, DaysPage, DaysQuery, days};

const DEFAULT_LIMIT: u32 = 500;
const MAX_LIMIT: u32 = 1_000;
const MAX_SPAN_DAYS: i64 = 365;
/// A cursor of ours is far shorter.
const MAX_CURSOR: usize = 256;
/// How far the caller's data has moved, as uploads answer it.
const WATERMARK: HeaderName = HeaderName::from_static("x-health-watermark");

/// Which days are wanted.
#[derive(Hash, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// A metric of the catalogue.
    metric_code: String,
    /// First local day, as YYYY-MM-DD.
    start_date: String,
    /// Last local day, at most 365 days later.
    end_date: String,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Days of a page, 1 to 1000, 500 if left out.
    limit: Option<u32>,
    /// Wait until the statistics have folded this watermark.
    min_watermark: Option<String>,
    /// How long to wait for it, 0 to 2000 ms; not at all if left out.
    wait_ms: Option<u64>,
}

/// A page of days, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct Rollups {
    items: Vec<RollupDay>,
    /// Of the whole range, not only of this page.
    #[schema(value_type = SummaryShape)]
    summary: Summary,
    pagination: RollupPage,
}

/// Where to go on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RollupPage {
    /// Null on the last page.
    next_cursor: Option<String>,
    has_more: bool,
    returned_count: usize,
}

/// The statistics of one local day.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RollupDay {
    /// The same for the same metric and day, for ever.
    id: Uuid,
    metric_code: &'static str,
    /// The local day, whatever the name says.
    day_utc: NaiveDate,
    value_kind: &'static str,
    #[schema(value_type = Option<f64>)]
    sum_val: Option<Number>,
    count_val: i64,
    /// Null for counters.
    #[schema(value_type = Option<f64>)]
    min_val: Option<Number>,
    #[schema(value_type = Option<f64>)]
    max_val: Option<Number>,
    avg_val: Option<f64>,
    /// Of most samples of the day, in minutes east of UTC.
    timezone_offset_min: Option<i16>,
    #[schema(value_type = FreshnessShape)]
    freshness: Freshness,
    #[schema(value_type = QualityShape)]
    data_quality: DataQuality,
}

/// The caller's daily statistics of one metric.
///
/// Reading never waits, unless `minWatermark` and `waitMs` ask for it, and never computes: what is
/// not up to date says so. Who does not allow aggregation has none.
#[utoipa::path(
    get,
    path = "/health/rollups",
    tag = "health",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "A page", body = Envelope<Rollups>,
            headers(("X-Health-Watermark" = i64, description = "Of the caller's stored data"))),
        (status = 304, description = "Nothing has changed since the answer with this ETag"),
        (status = 400, description = "A parameter or the cursor is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
        (status = 503, description = "The statistics are not available now", body = ErrorBody),
    ),
)]
pub(super) async fn rollups(
    System(app): System,
    caller: Caller,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = query(&parameters)?;
    let min_watermark = parameters.min_watermark.as_deref();
    let models = [ReadModel::HealthRollup];
    read::wait(&app, caller.user, &models, min_watermark, parameters.wait_ms).await?;
    let found = days(&app.read_pool, caller.user, &query).await?;
    // After the page, so that nothing is called fresh that was overtaken meanwhile.
    let head = app.source().user_head(caller.user).await?;
    // What a person does not want is not shown, though the rows are there.
    let (found, heard) = match health_rules(&app.store, caller.user).await?.0.allow_aggregation {
        true => (found, head.heard(HEALTH_ROLLUP.hears)),
        false => (found.hidden(), 0),
    };
    let summary = found.summary(heard);
    let tag = tag(&parameters, &found, &summary);
    let private = HeaderValue::from_static("private, no-cache");
    let mut response = if is_terminal(summary.state) && known(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Envelope::new(rollups_of(&found, heard, summary)).into_response()
    };
    let tag = HeaderValue::from_str(&tag).map_err(ApiError::internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    response.headers_mut().insert(header::CACHE_CONTROL, private);
    response.headers_mut().insert(WATERMARK, HeaderValue::from(head.health_seq));
    Ok(response)
}

fn query(parameters: &Parameters) -> Result<DaysQuery, ApiError> {
    let metric = Metric::parse(&parameters.metric_code);
    let metric =
        metric.ok_or_else(|| refused("metricCode", "must be a metric of the catalogue"))?;
    let first = date("startDate", &parameters.start_date)?;
    let last = date("endDate", &parameters.end_date)?;
    if last < first {
        return Err(refused("endDate", "must not be before startDate"));
    }
    if last.signed_duration_since(first).num_days() > MAX_SPAN_DAYS {
        return Err(refused("endDate", "must be at most 365 days after startDate"));
    }
    let limit = parameters.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(refused("limit", "must be from 1 to 1000"));
    }
    let after = match &parameters.cursor {
        Some(text) => {
            let cursor = Cursor::decode(text).filter(|cursor| cursor.m == metric);
            Some(cursor.ok_or_else(|| refused("cursor", "is not a cursor of this metric"))?.d)
        }
        None => None,
    };
    Ok(DaysQuery { metric, first, last, after, limit })
}

fn rollups_of(found: &DaysPage, heard: i64, summary: Summary) -> Rollups {
    let next = found.days.last().filter(|_| found.has_more).map(|day| day.row.key);
    let next_cursor = next.map(|key| Cursor { m: key.metric, d: key.day }.encode());
    let items: Vec<RollupDay> = found.days.iter().map(|day| item(found, day, heard)).collect();
    let returned_count = items.len();
    let pagination = RollupPage { next_cursor, has_more: found.has_more, returned_count };
    Rollups { items, summary, pagination }
}

fn item(found: &DaysPage, day: &Day, heard: i64) -> RollupDay {
    let row = &day.row;
    RollupDay {
        id: day.id,
        metric_code: row.key.metric.code(),
        day_utc: row.key.day,
        value_kind: row.key.metric.kind().as_str(),
        sum_val: row.sum_micro.map(number),
        count_val: row.count,
        min_val: row.min.map(Micro::to_json),
        max_val: row.max.map(Micro::to_json),
        avg_val: row.average(),
        timezone_offset_min: row.offset_min,
        freshness: found.freshness(day, heard),
        data_quality: found.worth(day).quality(),
    }
}

/// A sum of millionths as a JSON number: the nearest double where it has a fraction.
fn number(micro: i128) -> Number {
    let whole = i64::try_from(micro / 1_000_000).unwrap_or(i64::MAX);
    if micro % 1_000_000 == 0 {
        return Number::from(whole);
    }
    let exact = Decimal::try_from_i128_with_scale(micro, 6).ok().and_then(|sum| sum.to_f64());
    exact.and_then(Number::from_f64).unwrap_or_else(|| Number::from(whole))
}

/// Whether a phone takes the answer for final; only then may it keep what it has.
fn is_terminal(state: State) -> bool {
    match state {
        State::Ready | State::NoData | State::Empty | State::Partial => true,
        State::Computing | State::Stale | State::Failed => false,
    }
}

/// Changes with everything the answer depends on. Made of bookkeeping alone, not of values.
fn tag(parameters: &Parameters, found: &DaysPage, summary: &Summary) -> String {
    let mut hasher = SipHasher13::new();
    parameters.hash(&mut hasher);
    found.generation.hash(&mut hasher);
    found.progress.health_seq.hash(&mut hasher);
    format!("{summary:?}").hash(&mut hasher);
    for day in &found.days {
        (day.row.key.day, day.computed_at).hash(&mut hasher);
    }
    format!("W/\"{:016x}\"", hasher.finish())
}

fn known(headers: &HeaderMap, tag: &str) -> bool {
    let sent = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    sent.is_some_and(|sent| sent.split(',').any(|one| one.trim() == tag || one.trim() == "*"))
}

/// The last day of a page.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    m: Metric,
    d: NaiveDate,
}

impl Cursor {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(aggregates::event::to_payload(self))
    }

    fn decode(text: &str) -> Option<Self> {
        let text = Some(text).filter(|text| text.len() <= MAX_CURSOR)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}
