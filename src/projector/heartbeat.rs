//! Leases are renewed while a page is worked on, by a task of its own: computing may keep the
//! worker's task busy for longer than others wait.

use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::checkpoint;

/// A page that takes longer than this is given up to whoever else wants to try.
const LONGEST_STEP: Duration = Duration::from_secs(600);
/// Leases shorter than this are meant to be lost.
const SHORTEST_LEASE: f64 = 0.03;

/// Beats until dropped.
pub struct Heartbeat(Option<JoinHandle<()>>);

impl Heartbeat {
    /// Renews all leases of `owner` three times as often as they end.
    pub fn start(pool: &PgPool, owner: Uuid, lease_seconds: f64) -> Self {
        if lease_seconds < SHORTEST_LEASE {
            return Self(None);
        }
        let pool = pool.clone();
        let beats = tokio::time::timeout(LONGEST_STEP, async move {
            loop {
                tokio::time::sleep(Duration::from_secs_f64(lease_seconds / 3.0)).await;
                let renewed = match pool.acquire().await {
                    Ok(mut db) => checkpoint::renew(&mut db, owner, lease_seconds).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = renewed {
                    tracing::debug!(class = %error.class(), "a lease was not renewed");
                }
            }
        });
        Self(Some(tokio::spawn(async move {
            let _: Result<(), _> = beats.await;
        })))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
