//! `POST /consumptions/batch`.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Consumption, NewConsumption};
use crate::commands::consumptions::{MAX_BATCH, log_all};
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody, ErrorDetail};
use crate::http::extract::{Json, System};
use crate::http::v1::entities::request::Asker;

/// Consumptions to be logged, at most 100.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct ConsumptionBatch {
    consumptions: Vec<NewConsumption>,
}

/// What became of each consumption, in the order of the request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchResults {
    results: Vec<BatchOutcome>,
    succeeded: usize,
    failed: usize,
}

/// What became of one consumption: either of the two is there.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BatchOutcome {
    /// Place in the request, from 0.
    index: usize,
    success: bool,
    /// As it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_consumption_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Consumption>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDetail>,
}

/// Logs consumptions in their order. Each stands or falls by itself.
#[utoipa::path(
    post,
    path = "/consumptions/batch",
    tag = "consumptions",
    security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Recognises the request when it is sent again")),
    request_body = ConsumptionBatch,
    responses(
        (status = 201, description = "All were logged or found", body = Envelope<BatchResults>),
        (status = 207, description = "Some were not", body = Envelope<BatchResults>),
        (status = 400, description = "The batch is empty, too large or no batch", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 409, description = "The key was used for another request", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 503, description = "Try again; what was logged is found again", body = ErrorBody),
    ),
)]
pub(super) async fn log_consumptions(
    System(app): System,
    asker: Asker,
    Json(body): Json<ConsumptionBatch>,
) -> Result<Envelope<BatchResults>, ApiError> {
    if !(1..=MAX_BATCH).contains(&body.consumptions.len()) {
        return Err(ApiError::invalid_field("/consumptions", "must hold 1 to 100 consumptions"));
    }
    let user = asker.user;
    let asked = asker.asks(&body);
    let bodies: Vec<Map<String, Value>> = body.consumptions.into_iter().map(|one| one.0).collect();
    let answers = log_all(asked.author(&app), &bodies).await?;
    let results: Vec<BatchOutcome> = answers
        .into_iter()
        .zip(&bodies)
        .enumerate()
        .map(|(index, (answer, body))| {
            let named = body.get("clientConsumptionId").and_then(Value::as_str);
            let (data, error) = match answer {
                Ok(granted) => (Some(Consumption(granted.to_wire(user))), None),
                Err(error) => (None, Some(ApiError::from(error).into_detail())),
            };
            let client_consumption_id = named.map(str::to_owned);
            BatchOutcome { index, success: error.is_none(), client_consumption_id, data, error }
        })
        .collect();
    let succeeded = results.iter().filter(|outcome| outcome.success).count();
    let failed = results.len() - succeeded;
    let status = if failed == 0 { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
    Ok(Envelope::new(BatchResults { results, succeeded, failed }).with_status(status))
}
