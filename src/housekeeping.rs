//! What a server tidies up by itself: keys in memory all the time, the rest at its start and every
//! hour.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock;
use crate::commands::subject;
use crate::store::Store;

/// How often unwrapped keys whose time is up are forgotten.
const SWEEP: Duration = Duration::from_secs(15);
/// How often everything else.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a request that appended nothing is recognised when it comes again.
const RECEIPTS: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Starts tidying; ends when the returned task is aborted.
pub fn start(store: Store) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                _ = sweeps.tick() => {
                    store.sealer().keyring().sweep().await;
                    continue;
                }
                _ = ticks.tick() => {}
            }
            let kept = i64::try_from(RECEIPTS.as_millis()).unwrap_or(i64::MAX);
            match store.prune_receipts(clock::now_ms() - kept).await {
                Ok(0) => {}
                Ok(pruned) => tracing::info!(pruned, "receipts without events forgotten"),
                Err(error) => tracing::warn!(%error, "receipts were not pruned; will retry"),
            }
            match subject::finish_erasures(&store).await {
                Ok(0) => {}
                Ok(keys) => tracing::warn!(keys, "interrupted erasures were carried through"),
                Err(error) => tracing::error!(%error, "an erasure is unfinished; will retry"),
            }
        }
    })
}
