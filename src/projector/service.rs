//! The projectors of one process: started with the server, stopped with it.

use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ProjectorError, StoreSource, Worker, generation, rebuild, run};
use crate::ids;
use crate::read_models::ReadModel;

/// Pause before another attempt to bring an outdated generation up to date.
const PAUSE: Duration = Duration::from_secs(30);

/// Running projectors.
pub struct Projectors {
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Projectors {
    /// Starts a worker over all read models, and rebuilds those whose formulas have changed.
    pub fn start(pool: &PgPool, source: &StoreSource) -> Self {
        let cancel = CancellationToken::new();
        let owner = ids::new_id();
        let models = ReadModel::ALL.to_vec();
        let worker = Worker::live(pool.clone(), source.clone(), owner, models);
        let hints = source.0.hints();
        let running = tokio::spawn(run::run(worker, pool.clone(), hints, cancel.clone()));
        let renewing = tokio::spawn(renew(pool.clone(), source.clone(), owner, cancel.clone()));
        Self { cancel, tasks: vec![running, renewing] }
    }

    /// Lets the page at hand finish and gives all shards up.
    pub async fn stop(self) {
        self.cancel.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a projector task failed");
            }
        }
    }
}

/// Replaces generations that other formulas made. Their rows are served as stale until then.
async fn renew(pool: PgPool, source: StoreSource, owner: Uuid, cancel: CancellationToken) {
    for model in ReadModel::ALL {
        loop {
            let renewed = tokio::select! {
                () = cancel.cancelled() => return,
                renewed = renew_one(&pool, &source, model, owner) => renewed,
            };
            match renewed {
                Ok(()) => break,
                Err(error) => {
                    let projector = model.spec().name;
                    tracing::warn!(projector, class = %error.class(), "rebuild failed; will retry");
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

async fn renew_one(
    pool: &PgPool,
    source: &StoreSource,
    model: ReadModel,
    owner: Uuid,
) -> Result<(), ProjectorError> {
    let live = generation::ensure_live(&mut *pool.acquire().await?, model).await?;
    if live.is_current() {
        return Ok(());
    }
    let projector = model.spec().name;
    tracing::info!(projector, from = live.compute_version, "formulas have changed: rebuilding");
    let rebuilt = rebuild::rebuild(pool, source, model, owner, |_| {}).await?;
    tracing::info!(projector, people = rebuilt.people, rows = rebuilt.rows, "rebuilt");
    Ok(())
}
