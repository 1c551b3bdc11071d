//! The loop around a worker: woken by new events, patient with failures.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::source::{LogReader, StateReader};
use super::{Generation, ProjectorError, Worker, generation, progress};
use crate::read_models::ReadModel;

/// How often an idle worker looks without being woken. Looking is the truth, waking is haste.
const POLL: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs until cancelled, then gives the shards up. `wake` changes when
/// the log grows.
pub async fn run<S: LogReader + StateReader>(
    mut worker: Worker<S>,
    pool: PgPool,
    mut wake: watch::Receiver<u64>,
    cancel: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    let mut observed: Option<Instant> = None;
    while !cancel.is_cancelled() {
        let step = AssertUnwindSafe(worker.step()).catch_unwind().await;
        let idle = match step.unwrap_or(Err(ProjectorError::Panicked { projector: "a worker" })) {
            Ok(stepped) => {
                pause = FIRST_PAUSE;
                (stepped.events == 0).then_some(POLL)
            }
            Err(ProjectorError::Lost { projector }) => {
                tracing::info!(projector, "another worker was faster");
                Some(FIRST_PAUSE)
            }
            Err(error) => {
                tracing::warn!(
                    class = %error.class(),
                    error = &error as &dyn std::error::Error,
                    pause_ms = pause.as_millis() as u64,
                    "projecting failed and will be tried again"
                );
                let now = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                Some(now)
            }
        };
        if observed.is_none_or(|at| at.elapsed() >= POLL) {
            if let Err(error) = observe(&worker, &pool).await {
                tracing::debug!(class = %error.class(), "projector metrics are not available");
            }
            observed = Some(Instant::now());
        }
        if let Some(idle) = idle {
            tokio::select! {
                () = cancel.cancelled() => {}
                // A closed channel must not turn waiting into spinning.
                Ok(()) = wake.changed() => {}
                () = tokio::time::sleep(idle) => {}
            }
        }
    }
    if let Err(error) = worker.stop().await {
        tracing::warn!(class = %error.class(), "shards will be free when their lease ends");
    }
}

/// Publishes how far each projector is behind and how many people it is parked for.
async fn observe<S: LogReader + StateReader>(
    worker: &Worker<S>,
    pool: &PgPool,
) -> Result<(), ProjectorError> {
    let head = worker.source().head().await?;
    for (model, position) in worker.positions() {
        let name = model.spec().name;
        let lag = head.saturating_sub(position).max(0);
        metrics::gauge!(crate::metrics::PROJECTOR_LAG_POSITIONS, "name" => name).set(lag as f64);
        let parked = parked(pool, model).await?;
        metrics::gauge!(crate::metrics::PROJECTOR_PARKED, "name" => name).set(parked as f64);
    }
    Ok(())
}

async fn parked(pool: &PgPool, model: ReadModel) -> Result<usize, ProjectorError> {
    let mut db = pool.acquire().await?;
    let live: Option<Generation> = generation::live(&mut db, model).await?;
    match live {
        Some(generation) => Ok(progress::parked(&mut db, &generation).await?.len()),
        None => Ok(0),
    }
}
