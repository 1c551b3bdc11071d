//! The projectors of one process: started with the server, stopped with it.

use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::generation::History;
use super::{ProjectorError, StoreSource, Worker, generation, rebuild, run};
use crate::ids;
use crate::read_models::ReadModel;

/// Pause before another attempt to bring an outdated generation up to date.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a retired generation can be rolled back to, in seconds.
pub const ROLLBACK_WINDOW: f64 = 7.0 * 24.0 * 3_600.0;

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
        let renewing = tokio::spawn(renew(pool.clone(), source.clone(), cancel.clone()));
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

/// Replaces generations that older formulas made, and drops those that nobody will want back.
/// Rows of older formulas are served until then; a process that knows those may still carry them.
async fn renew(pool: PgPool, source: StoreSource, cancel: CancellationToken) {
    for model in ReadModel::ALL {
        if let Err(error) = tidy(&pool, model).await {
            let projector = model.spec().name;
            tracing::warn!(projector, class = %error.class(), "old generations were not dropped");
        }
        loop {
            match renew_one(&pool, &source, model, &cancel).await {
                Ok(()) => break,
                Err(ProjectorError::Cancelled { .. }) => return,
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
    cancel: &CancellationToken,
) -> Result<(), ProjectorError> {
    let mut db = pool.acquire().await?;
    let spec = model.spec();
    let projector = spec.name;
    if generation::ensure_live(&mut db, model).await?.compute_version >= spec.compute_version {
        return Ok(());
    }
    // What is being built by another process is not dead: it has to end first.
    rebuild::clear_dead(pool, model).await?;
    let live = generation::ensure_live(&mut db, model).await?;
    let history = generation::history(&mut db, model).await?;
    drop(db);
    match verdict(live.compute_version, spec.compute_version, history) {
        Verdict::Leave => return Ok(()),
        Verdict::Rejected => {
            tracing::warn!(
                projector,
                live = live.compute_version,
                rejected = spec.compute_version,
                "a generation of these formulas was rolled back: rows stay as they are until \
                 `tidemark projectors rebuild` or a program with newer ones"
            );
            return Ok(());
        }
        Verdict::Deadly => {
            tracing::error!(
                projector,
                builds = history.unfinished,
                "building a generation has killed the process again and again: it is not tried \
                 any more; find out why with `tidemark projectors rebuild`"
            );
            return Ok(());
        }
        Verdict::Build => {}
    }
    tracing::info!(projector, from = live.compute_version, "formulas have changed: rebuilding");
    // An id of its own: what is said of the live worker's shards is not said of these.
    let who = (model, ids::new_id());
    let rebuilt = rebuild::rebuild_unless(pool, source, who, None, cancel, |_| {}).await?;
    tracing::info!(projector, people = rebuilt.people, rows = rebuilt.rows, "rebuilt");
    Ok(())
}

async fn tidy(pool: &PgPool, model: ReadModel) -> Result<(), ProjectorError> {
    match rebuild::clear_dead(pool, model).await {
        Ok(()) | Err(ProjectorError::Building { .. }) => {}
        Err(error) => return Err(error),
    }
    let dropped = generation::prune(&mut *pool.acquire().await?, model, ROLLBACK_WINDOW).await?;
    if dropped > 0 {
        tracing::info!(projector = model.spec().name, dropped, "old generations dropped");
    }
    Ok(())
}

/// What to do about a live generation, unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Leave,
    Rejected,
    Deadly,
    Build,
}

fn verdict(live: i32, ours: i32, history: History) -> Verdict {
    match history {
        // Never back to older formulas: a program that knows newer ones made what is live.
        _ if live >= ours => Verdict::Leave,
        History { rejected: true, .. } => Verdict::Rejected,
        History { unfinished, .. } if unfinished >= generation::DEATHS => Verdict::Deadly,
        _ => Verdict::Build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_built_unasked_only_for_newer_formulas_that_are_not_known_to_be_bad() {
        let fresh = History { rejected: false, unfinished: 0 };
        assert_eq!(verdict(1, 2, fresh), Verdict::Build);
        assert_eq!(verdict(2, 2, fresh), Verdict::Leave);
        assert_eq!(verdict(3, 2, fresh), Verdict::Leave, "an older program changes nothing");
        assert_eq!(verdict(1, 2, History { rejected: true, ..fresh }), Verdict::Rejected);
        assert_eq!(verdict(1, 2, History { unfinished: 2, ..fresh }), Verdict::Build);
        assert_eq!(verdict(1, 2, History { unfinished: 3, ..fresh }), Verdict::Deadly);
    }
}
