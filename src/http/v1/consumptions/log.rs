//! `POST /consumptions`.

use super::{Consumption, NewConsumption};
use crate::commands::consumptions::log;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, System};
use crate::http::v1::entities::request::Asker;

/// Logs a consumption.
///
/// Sent again with the same `clientConsumptionId`, it answers with the consumption that exists and
/// changes nothing.
#[utoipa::path(
    post,
    path = "/consumptions",
    tag = "consumptions",
    security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Recognises the request when it is sent again")),
    request_body = NewConsumption,
    responses(
        (status = 201, description = "The consumption, new or found", body = Envelope<Consumption>),
        (status = 400, description = "A field is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 409, description = "The consumption was deleted, or the key was used for \
            another request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn log_consumption(
    System(app): System,
    asker: Asker,
    Json(body): Json<NewConsumption>,
) -> Result<Envelope<Consumption>, ApiError> {
    let user = asker.user;
    let asked = asker.asks(&body);
    let granted = log(asked.author(&app), &body.0).await?;
    Ok(Envelope::created(Consumption(granted.to_wire(user))))
}
