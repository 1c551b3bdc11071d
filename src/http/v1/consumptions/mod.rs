//! `/consumptions`: single acts of consuming something.

mod batch;
mod delete;
mod get;
mod list;
mod log;
mod update;

use aggregates::consumption::CONTRACT;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entities::schema;
use crate::http::state::AppState;

/// The routes of consumptions.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list_consumptions, log::log_consumption))
        .routes(routes!(batch::log_consumptions))
        .routes(routes!(
            get::get_consumption,
            update::patch_consumption,
            update::put_consumption,
            delete::delete_consumption
        ))
}

/// A consumption.
#[derive(Serialize)]
#[serde(transparent)]
struct Consumption(Map<String, Value>);

/// A consumption to be logged. Without `sessionId` it belongs to the session it falls into.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct NewConsumption(Map<String, Value>);

/// Fields of a consumption to be set; null clears.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct ConsumptionPatch(Map<String, Value>);

impl PartialSchema for Consumption {
    fn schema() -> RefOr<Schema> {
        schema::shown(&CONTRACT)
    }
}

impl ToSchema for Consumption {}

impl PartialSchema for NewConsumption {
    fn schema() -> RefOr<Schema> {
        schema::given(&CONTRACT, true)
    }
}

impl ToSchema for NewConsumption {}

impl PartialSchema for ConsumptionPatch {
    fn schema() -> RefOr<Schema> {
        schema::given(&CONTRACT, false)
    }
}

impl ToSchema for ConsumptionPatch {}
