//! Accepting connections until told to stop.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Serves until `shutdown` completes, then lets running requests finish for up to `grace`.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let signal = async move {
        shutdown.await;
        // The receiver is gone only when the server has ended by itself.
        let _ = stopping.send(());
    };
    let out_of_patience = async move {
        match stopped.await {
            Ok(()) => tokio::time::sleep(grace).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = axum::serve(listener, router).with_graceful_shutdown(signal).into_future() => ended,
        () = out_of_patience => {
            tracing::warn!("stopped with requests still running");
            Ok(())
        }
    }
}
