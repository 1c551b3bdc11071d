//! `GET /consumptions`.

use aggregates::consumption::CONTRACT;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Consumption;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Query, System};
use crate::http::v1::entities::list::{Wanted, page, range};
use crate::read_models::entities::ListQuery;

/// Which consumptions are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Consumptions of a page, 1 to 100, 20 if left out.
    limit: Option<u32>,
    /// Another name of `limit`.
    page_size: Option<u32>,
    /// 1 for the first page.
    page: Option<u32>,
    /// Consumptions to leave out before the page.
    offset: Option<u32>,
    /// `nextCursor` of the page before: the stable way to read on while consumptions come and go.
    cursor: Option<String>,
    /// Only consumptions of this session.
    session_id: Option<Uuid>,
    /// Only consumptions of this product.
    product_id: Option<Uuid>,
    /// Only consumptions at or after this date or time.
    start_date: Option<String>,
    /// Only consumptions at or before this date or time.
    end_date: Option<String>,
}

/// A page of consumptions.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Vec<Consumption>)]
pub(super) struct Consumptions(Vec<Box<RawValue>>);

/// The caller's consumptions, the latest first. One that was just changed is in it.
#[utoipa::path(
    get,
    path = "/consumptions",
    tag = "consumptions",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "A page", body = Envelope<Consumptions>),
        (status = 400, description = "A parameter or the cursor is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Lists are not available now", body = ErrorBody),
    ),
)]
pub(super) async fn list_consumptions(
    System(app): System,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Envelope<Consumptions>, ApiError> {
    let start = parameters.start_date.as_deref();
    let (from_ms, to_ms) = range(start, parameters.end_date.as_deref())?;
    let query = ListQuery {
        entity_type: CONTRACT.entity_type,
        session_id: parameters.session_id,
        product_id: parameters.product_id,
        from_ms,
        to_ms,
        ..ListQuery::default()
    };
    let wanted = Wanted {
        limit: parameters.limit.or(parameters.page_size),
        page: parameters.page,
        offset: parameters.offset,
        cursor: parameters.cursor.as_deref(),
    };
    let (rows, pagination) = page(&app, caller.user, &query, wanted).await?;
    Ok(Envelope::new(Consumptions(rows)).with_pagination(pagination))
}
