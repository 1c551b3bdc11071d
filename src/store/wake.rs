//! The wake-up after an append: a hint, never the truth.
//!
//! Readers poll; a hint only spares them the wait. It is sent outside the append's transaction
//! and at most once in a few milliseconds, because a `NOTIFY` inside serialises commits. Within
//! the process it travels through a watch channel, to other processes through Postgres.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::watch;

/// The channel's name; it carries no data.
const CHANNEL: &str = "tidemark_log";
/// Appends closer together than this share one notification to other processes.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// Sends and receives hints.
#[derive(Clone)]
pub(crate) struct Waker {
    local: watch::Sender<u64>,
    remote: watch::Sender<u64>,
}

impl Waker {
    /// Starts the tasks that carry hints to and from other processes.
    pub fn start(pool: PgPool) -> Self {
        let waker = Self { local: watch::Sender::new(0), remote: watch::Sender::new(0) };
        tokio::spawn(notify(pool.clone(), waker.remote.subscribe()));
        tokio::spawn(listen(pool, waker.local.clone()));
        waker
    }

    /// Says that something was appended.
    pub fn wake(&self) {
        self.local.send_modify(|n| *n = n.wrapping_add(1));
        self.remote.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// A receiver that changes after each append of this process and soon after those of others.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.local.subscribe()
    }
}

async fn notify(pool: PgPool, mut hints: watch::Receiver<u64>) {
    while hints.changed().await.is_ok() {
        hints.mark_unchanged();
        // A lost notification costs a poll interval, nothing else.
        if let Err(error) =
            sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&pool).await
        {
            tracing::debug!(error = %error, "wake-up not sent");
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

async fn listen(pool: PgPool, local: watch::Sender<u64>) {
    loop {
        if let Err(error) = listen_until_lost(&pool, &local).await {
            tracing::debug!(error = %error, "wake-up listener lost its connection");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if pool.is_closed() {
            return;
        }
    }
}

async fn listen_until_lost(pool: &PgPool, local: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        listener.recv().await?;
        local.send_modify(|n| *n = n.wrapping_add(1));
    }
}
