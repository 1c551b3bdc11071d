//! Accepting connections until told to stop.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::state::Limits;

/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// How long the server waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For the head of a request, and for the next one on an idle connection.
    pub head: Duration,
    /// For running requests to finish once told to stop.
    pub grace: Duration,
}

impl From<&Limits> for Timing {
    fn from(limits: &Limits) -> Self {
        Self { head: limits.head_timeout, grace: limits.shutdown_timeout }
    }
}

/// Serves until `shutdown` completes, then lets running requests finish for as long as `timing`
/// allows. A client that sends the head of a request drop by drop is disconnected.
///
/// # Errors
/// None at present: a failed accept is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
    timing: Timing,
) -> io::Result<()> {
    let connections = TaskTracker::new();
    let (stopping, abandoned) = (CancellationToken::new(), CancellationToken::new());
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let serving = connection(stream, router.clone(), timing.head, stopping.clone());
        connections.spawn(abandoned.clone().run_until_cancelled_owned(serving));
    }
    drop(listener);
    stopping.cancel();
    connections.close();
    if tokio::time::timeout(timing.grace, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "stopped with requests still running");
        abandoned.cancel();
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    router: Router,
    head_timeout: Duration,
    stopping: CancellationToken,
) {
    // Answers are written whole; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    let service = TowerToHyperService::new(router);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopping.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
