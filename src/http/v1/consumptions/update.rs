//! `PATCH` and `PUT /consumptions/{id}`.

use uuid::Uuid;

use super::{Consumption, ConsumptionPatch};
use crate::app::App;
use crate::commands::consumptions;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, Path, System};
use crate::http::v1::entities::request::Asker;

/// Sets the given fields of a consumption.
#[utoipa::path(
    patch,
    path = "/consumptions/{id}",
    tag = "consumptions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The consumption's id")),
    request_body = ConsumptionPatch,
    responses(
        (status = 200, description = "The consumption after the change", body = Envelope<Consumption>),
        (status = 400, description = "A field is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such consumption", body = ErrorBody),
        (status = 409, description = "It was changed since it was read, or deleted meanwhile", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn patch_consumption(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
    Json(body): Json<ConsumptionPatch>,
) -> Result<Envelope<Consumption>, ApiError> {
    update(&app, id, asker, body).await
}

/// Sets the given fields of a consumption; others stay, as with PATCH.
#[utoipa::path(
    put,
    path = "/consumptions/{id}",
    tag = "consumptions",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "The consumption's id")),
    request_body = ConsumptionPatch,
    responses(
        (status = 200, description = "The consumption after the change", body = Envelope<Consumption>),
        (status = 400, description = "A field is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 404, description = "The caller has no such consumption", body = ErrorBody),
        (status = 409, description = "It was changed since it was read, or deleted meanwhile", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Nothing was done; try again", body = ErrorBody),
    ),
)]
pub(super) async fn put_consumption(
    System(app): System,
    Path(id): Path<Uuid>,
    asker: Asker,
    Json(body): Json<ConsumptionPatch>,
) -> Result<Envelope<Consumption>, ApiError> {
    update(&app, id, asker, body).await
}

async fn update(
    app: &App,
    id: Uuid,
    asker: Asker,
    body: ConsumptionPatch,
) -> Result<Envelope<Consumption>, ApiError> {
    let user = asker.user;
    let asked = asker.asks(&body);
    let granted = consumptions::update(asked.author(app), id, &body.0).await?;
    Ok(Envelope::new(Consumption(granted.to_wire(user))))
}
