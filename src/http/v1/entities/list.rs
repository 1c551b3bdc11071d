//! Lists of entities: filters, order, pages.

use std::time::Duration;

use aggregates::UserId;
use aggregates::entity::time::parse_instant;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::NaiveDate;
use projections::registry::ENTITIES;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::http::envelope::Pagination;
use crate::http::error::{ApiError, code};
use crate::projector::{ProjectorError, StateReader, progress};
use crate::read_models::ReadModel;
use crate::read_models::entities::{ListPage, ListQuery, Sort, list};

const DEFAULT_SIZE: u32 = 20;
const MAX_SIZE: u32 = 100;
/// How long a person's list waits for their own last change.
const PATIENCE: Duration = Duration::from_secs(2);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// A cursor of ours is far shorter.
const MAX_CURSOR: usize = 256;

/// Which page is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    pub limit: Option<u32>,
    pub page: Option<u32>,
    pub offset: Option<u32>,
    pub cursor: Option<&'a str>,
}

/// A page of the caller's entities as they were stored, with their own last change in it.
///
/// # Errors
/// 400 where the page is not valid, 503 where the read model is not there.
pub async fn page(
    app: &App,
    user: UserId,
    query: &ListQuery<'_>,
    wanted: Wanted<'_>,
) -> Result<(Vec<Box<RawValue>>, Pagination), ApiError> {
    let size = wanted.limit.unwrap_or(DEFAULT_SIZE);
    if !(1..=MAX_SIZE).contains(&size) {
        return Err(ApiError::invalid_field("limit", "must be from 1 to 100"));
    }
    let page = wanted.page.unwrap_or(1);
    if page == 0 {
        return Err(ApiError::invalid_field("page", "must be at least 1"));
    }
    let offset = wanted.offset.unwrap_or_else(|| (page - 1).saturating_mul(size));
    if offset > i32::MAX.unsigned_abs() {
        return Err(ApiError::invalid_field("page", "is too far"));
    }
    let after = wanted.cursor.map(|text| Cursor::decode(text, query)).transpose()?;
    if after.is_some() && offset > 0 {
        return Err(ApiError::invalid_field("cursor", "must not be combined with page or offset"));
    }
    let query = ListQuery { offset, after, limit: size, ..*query };
    wait_for_own_writes(app, user).await?;
    let found = list(&app.read_pool, user, &query).await?;
    let shown = u64::from(offset / size + 1);
    let next = found.next.map(|next| Cursor::of(&query, next).encode());
    let pagination = Pagination::new(found.total, shown, u64::from(size)).with_next_cursor(next);
    Ok((rows(found)?, pagination))
}

fn rows(found: ListPage) -> Result<Vec<Box<RawValue>>, ApiError> {
    let damaged = ProjectorError::Row { projector: ENTITIES.name, column: "data" };
    let rows = found.rows.into_iter().map(|row| RawValue::from_string(row.data));
    rows.collect::<Result<_, _>>().map_err(|_| damaged.into())
}

/// Waits until the read model has the person's last change, or patience is over.
async fn wait_for_own_writes(app: &App, user: UserId) -> Result<(), ApiError> {
    let heard = app.source().user_head(user).await?.heard(ENTITIES.hears);
    let deadline = Instant::now() + PATIENCE;
    let model = ReadModel::Entities;
    if !progress::wait_until(&app.read_pool, model, user, heard, deadline).await? {
        tracing::warn!(projector = ENTITIES.name, "a list was answered without the last change");
    }
    Ok(())
}

/// Where a page begins, in the list it belongs to.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// The list: its type and order.
    l: String,
    k: i64,
    i: Uuid,
}

impl Cursor {
    fn list(query: &ListQuery<'_>) -> String {
        let sort = match query.sort {
            Sort::Time => "time",
            Sort::Duration => "duration",
        };
        let order = if query.ascending { "asc" } else { "desc" };
        format!("{}:{sort}:{order}", query.entity_type)
    }

    fn of(query: &ListQuery<'_>, (k, i): (i64, Uuid)) -> Self {
        Self { l: Self::list(query), k, i }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(aggregates::event::to_payload(self))
    }

    fn decode(text: &str, query: &ListQuery<'_>) -> Result<(i64, Uuid), ApiError> {
        let bytes = Some(text).filter(|text| text.len() <= MAX_CURSOR);
        let bytes = bytes.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let cursor: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let cursor = cursor.filter(|cursor| cursor.l == Self::list(query));
        cursor.map(|cursor| (cursor.k, cursor.i)).ok_or_else(|| code::INVALID_CURSOR.into())
    }
}

/// The instants `[from, to)` of `startDate` and `endDate`, both of which are part of the range. A
/// date without a time is the whole day in UTC.
///
/// # Errors
/// 400 where one of them is neither a date nor an instant.
pub fn range(
    start: Option<&str>,
    end: Option<&str>,
) -> Result<(Option<i64>, Option<i64>), ApiError> {
    let bounds = |field: &str, text: &str| {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        let day = day.map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis());
        let day = day.map(|from| (from, from.saturating_add(DAY_MS)));
        let instant = || parse_instant(text).map(|at| (at, at.saturating_add(1)));
        let message = "must be a date or an RFC 3339 date and time";
        day.or_else(instant).ok_or_else(|| ApiError::invalid_field(field, message))
    };
    let from = start.map(|text| bounds("startDate", text)).transpose()?.map(|(from, _)| from);
    let to = end.map(|text| bounds("endDate", text)).transpose()?.map(|(_, to)| to);
    match (from, to) {
        (Some(from), Some(to)) if from >= to => {
            Err(ApiError::invalid_field("endDate", "must not be before startDate"))
        }
        range => Ok(range),
    }
}
