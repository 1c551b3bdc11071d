//! `GET /sessions`.

use aggregates::session::{CONTRACT, Status};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Session;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Query, System};
use crate::http::v1::entities::list::{Wanted, page, range};
use crate::read_models::entities::{ListQuery, Sort};

/// Which sessions are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Sessions of a page, 1 to 100, 20 if left out.
    limit: Option<u32>,
    /// Another name of `limit`.
    page_size: Option<u32>,
    /// 1 for the first page.
    page: Option<u32>,
    /// Sessions to leave out before the page.
    offset: Option<u32>,
    /// `nextCursor` of the page before: the stable way to read on while sessions come and go.
    cursor: Option<String>,
    /// ACTIVE, PAUSED, COMPLETED or CANCELLED, in any case.
    status: Option<String>,
    /// Only sessions that start at or after this date or time.
    start_date: Option<String>,
    /// Only sessions that start at or before this date or time.
    end_date: Option<String>,
    /// Only sessions of this purchase.
    purchase_id: Option<Uuid>,
    /// `startTime`, which is also the default, or `duration`.
    sort_by: Option<SortBy>,
    /// `asc` or, if left out, `desc`.
    sort_order: Option<SortOrder>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum SortBy {
    StartTime,
    Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SortOrder {
    Asc,
    Desc,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Vec<Session>)]
pub(super) struct Sessions(Vec<Box<RawValue>>);

/// The caller's sessions, the latest first. A session that was just changed is in it.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "sessions",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "A page", body = Envelope<Sessions>),
        (status = 400, description = "A parameter or the cursor is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Lists are not available now", body = ErrorBody),
    ),
)]
pub(super) async fn list_sessions(
    System(app): System,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Envelope<Sessions>, ApiError> {
    let status = parameters.status.as_deref().map(status).transpose()?;
    let start = parameters.start_date.as_deref();
    let (from_ms, to_ms) = range(start, parameters.end_date.as_deref())?;
    let query = ListQuery {
        entity_type: CONTRACT.entity_type,
        status: status.map(Status::as_str),
        purchase_id: parameters.purchase_id,
        from_ms,
        to_ms,
        sort: match parameters.sort_by {
            Some(SortBy::Duration) => Sort::Duration,
            Some(SortBy::StartTime) | None => Sort::Time,
        },
        ascending: parameters.sort_order == Some(SortOrder::Asc),
        ..ListQuery::default()
    };
    let wanted = Wanted {
        limit: parameters.limit.or(parameters.page_size),
        page: parameters.page,
        offset: parameters.offset,
        cursor: parameters.cursor.as_deref(),
    };
    let (rows, pagination) = page(&app, caller.user, &query, wanted).await?;
    Ok(Envelope::new(Sessions(rows)).with_pagination(pagination))
}

fn status(word: &str) -> Result<Status, ApiError> {
    let message = "must be ACTIVE, PAUSED, COMPLETED or CANCELLED";
    let status = Status::parse(&word.to_ascii_uppercase());
    status.ok_or_else(|| ApiError::invalid_field("status", message))
}
