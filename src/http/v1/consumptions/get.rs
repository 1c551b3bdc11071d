//! `GET /consumptions/{id}`.

use aggregates::consumption::CONTRACT;
use uuid::Uuid;

use super::Consumption;
use crate::commands::entities::get;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Path, System};

/// One consumption.
#[utoipa::path(
    get,
    path = "/consumptions/{id}",
    tag = "consumptions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The consumption's id")),
    responses(
        (status = 200, description = "The consumption", body = Envelope<Consumption>),
        (status = 400, description = "The id is no UUID", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such consumption", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
    ),
)]
pub(super) async fn get_consumption(
    System(app): System,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Envelope<Consumption>, ApiError> {
    let consumption = get(&app.store, caller.user, &CONTRACT, id).await?;
    Ok(Envelope::new(Consumption(consumption.to_wire(id, caller.user))))
}
