//! `GET /health/freshness`: how far the health read models have come.

use std::collections::BTreeMap;

use aggregates::UserId;
use projections::freshness::{Progress, UserHead};
use projections::registry::Class;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::read;
use crate::app::App;
use crate::clock;
use crate::commands::users::health_rules;
use crate::http::envelope::Envelope;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Caller, Query, System};
use crate::projector::StateReader;
use crate::read_models::{ReadModel, reader};
use crate::store::Filter;

/// What to wait for.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Wait until the read models have folded this watermark.
    min_watermark: Option<String>,
    /// How long to wait for it, 0 to 2000 ms; not at all if left out.
    wait_ms: Option<u64>,
}

/// Where the caller's health data and its read models stand.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FreshnessReport {
    /// The watermark of the stored data: a decimal number.
    watermark: String,
    /// By read model.
    projections: BTreeMap<&'static str, ModelFreshness>,
}

/// How far one read model has come.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ModelFreshness {
    /// The watermark it has folded: a decimal number.
    watermark: String,
    state: ModelState,
    /// For how long the oldest upload it has not folded is stored, in ms.
    lag_ms: i64,
}

/// How a read model stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ModelState {
    /// It holds everything.
    Ready,
    /// It has held everything that was there at some time, and goes on.
    Stale,
    /// It has folded nothing of the caller's yet.
    Computing,
    /// It met data that it cannot fold, and waits for an operator.
    Failed,
    /// An operator had it leave out an event of the caller's that it could not fold.
    Partial,
    /// The caller does not allow it: it shows nothing.
    Empty,
}

/// How far the health read models have come for the caller.
#[utoipa::path(
    get,
    path = "/health/freshness",
    tag = "health",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "Watermarks and states", body = Envelope<FreshnessReport>),
        (status = 400, description = "A parameter is not valid", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 410, description = "The account was erased", body = ErrorBody),
        (status = 429, description = "Too many requests", body = ErrorBody),
        (status = 503, description = "The read models are not available now", body = ErrorBody),
    ),
)]
pub(super) async fn freshness(
    System(app): System,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Envelope<FreshnessReport>, ApiError> {
    let hears = |model: &ReadModel| model.spec().hears.contains(&Class::Health);
    let models: Vec<ReadModel> = ReadModel::ALL.into_iter().filter(hears).collect();
    let min_watermark = parameters.min_watermark.as_deref();
    read::wait(&app, caller.user, &models, min_watermark, parameters.wait_ms).await?;
    let mut folded = Vec::with_capacity(models.len());
    for model in models {
        folded.push((model, reader::progress(&app.read_pool, model, caller.user).await?));
    }
    // After the progress, so that nothing is called complete that was overtaken meanwhile.
    let head = app.source().user_head(caller.user).await?;
    let allowed = health_rules(&app.store, caller.user).await?.0.allow_aggregation;
    let mut projections = BTreeMap::new();
    for (model, progress) in folded {
        let report = match model {
            ReadModel::HealthRollup if !allowed => {
                let watermark = progress.watermark();
                ModelFreshness { watermark, state: ModelState::Empty, lag_ms: 0 }
            }
            _ => report(&app, caller.user, model, progress, &head).await?,
        };
        projections.insert(model.spec().name, report);
    }
    Ok(Envelope::new(FreshnessReport { watermark: head.health_seq.to_string(), projections }))
}

async fn report(
    app: &App,
    user: UserId,
    model: ReadModel,
    progress: Progress,
    head: &UserHead,
) -> Result<ModelFreshness, ApiError> {
    let heard = head.heard(model.spec().hears);
    let state = match (progress.covers(heard), progress.parked) {
        (true, _) if progress.partial => ModelState::Partial,
        (true, _) => ModelState::Ready,
        (false, true) => ModelState::Failed,
        (false, false) if progress.health_seq == 0 => ModelState::Computing,
        (false, false) => ModelState::Stale,
    };
    let lag_ms =
        if progress.covers(heard) { 0 } else { lag(app, user, progress.position, heard).await? };
    Ok(ModelFreshness { watermark: progress.watermark(), state, lag_ms })
}

/// Since when the first upload after a position is stored, in ms.
async fn lag(app: &App, user: UserId, after: i64, upto: i64) -> Result<i64, ApiError> {
    let aggregate_types = vec![aggregates::health_batch::TYPE.to_owned()];
    let filter = Filter { user: Some(user), aggregate_types, ..Filter::default() };
    let first = app.store.page(after, upto, 1, &filter).await?;
    let stored = first.first().map(|event| event.committed_ms);
    Ok(stored.map_or(0, |stored| (clock::now_ms() - stored).max(0)))
}
