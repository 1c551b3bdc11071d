//! One running server: HTTP in front of the system, with the projectors beside it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::app::{App, StartError};
use crate::auth::dev::{DevIssuer, DevIssuerError};
use crate::auth::{JwksTiming, KeySet, KeySetError, Keys, RemoteKeys, TrustedIssuer, Verifier};
use crate::config::{Config, IssuerConfig, JwksSource};
use crate::http::directory::Directory;
use crate::http::rate::{Rate, RateClass, default_rates};
use crate::http::readiness::SystemReadiness;
use crate::http::state::{AppState, Limits};
use crate::postgres::space::Room;
use crate::projector::service::Projectors;
use crate::{housekeeping, http, metrics, watch};

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("could not start the system")]
    Start(#[from] StartError),
    #[error("could not open the development issuer")]
    DevIssuer(#[from] DevIssuerError),
    #[error("could not read the keys of the identity provider {issuer}")]
    KeySet { issuer: String, source: KeySetError },
    #[error("could not make an HTTP client to fetch keys with")]
    Client(#[from] reqwest::Error),
    #[error("could not install metrics")]
    Metrics(#[from] metrics::InstallError),
    #[error("could not listen on {address} (is another server running? set TIDEMARK_LISTEN)")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("could not serve")]
    Serve(#[from] std::io::Error),
}

/// A server that listens and is ready.
pub struct Server {
    pub app: Arc<App>,
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    state: AppState,
    projectors: Projectors,
    housekeeping: JoinHandle<()>,
    watching: JoinHandle<()>,
}

impl Server {
    /// Starts everything and listens.
    ///
    /// # Errors
    /// [`ServeError`] with what to do about it; nothing keeps running.
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let app = App::start(config).await?;
        match Self::in_front_of(Arc::clone(&app), config).await {
            Ok(server) => Ok(server),
            Err(error) => {
                app.stop().await;
                Err(error)
            }
        }
    }

    async fn in_front_of(app: Arc<App>, config: &Config) -> Result<Self, ServeError> {
        let verifier = Arc::new(Verifier::new(issuers(config)?));
        let slot = Arc::default();
        let readiness = SystemReadiness {
            app: Arc::clone(&slot),
            verifier: Arc::clone(&verifier),
            room: Room::default(),
        };
        let mut state = AppState::new(
            Arc::clone(&verifier),
            Arc::new(Directory(Arc::clone(&slot))),
            Arc::new(readiness.clone()),
            metrics::install()?,
            limits(config),
        );
        state.app = slot;
        // The slot is ours alone so far.
        let _ = state.app.set(Arc::clone(&app));
        let address = config.http.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Listen { address, source })?;
        let address = listener.local_addr()?;
        let projectors = Projectors::start(&app.read_pool, &app.source());
        let housekeeping = housekeeping::start(app.store.clone());
        let watching = watch::start(readiness, verifier, Arc::clone(&app));
        Ok(Self { app, address, listener, state, projectors, housekeeping, watching })
    }

    /// Serves until `shutdown` completes, then lets running requests finish and closes everything.
    ///
    /// # Errors
    /// Where the listener fails for good.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let timing = http::Timing::from(&*self.state.limits);
        let router = http::router(self.state);
        tracing::info!(address = %self.address, "listening");
        http::serve(self.listener, router, shutdown, timing).await?;
        tracing::info!("stopping");
        self.housekeeping.abort();
        self.watching.abort();
        self.projectors.stop().await;
        self.app.stop().await;
        Ok(())
    }
}

/// Whose tokens are accepted.
fn issuers(config: &Config) -> Result<Vec<TrustedIssuer>, ServeError> {
    match &config.identity {
        Some(identity) => identity.issuers.iter().map(trusted).collect(),
        None => {
            tracing::warn!("tokens of the development issuer are accepted; set TIDEMARK_JWKS");
            Ok(vec![DevIssuer::open(&config.data_dir)?.trusted()])
        }
    }
}

/// A published key set is fetched when it is needed: a provider that is away keeps no server from
/// starting.
fn trusted(config: &IssuerConfig) -> Result<TrustedIssuer, ServeError> {
    let issuer = config.issuer.clone();
    let keys: Keys = match &config.jwks {
        JwksSource::File(path) => KeySet::from_file(path)
            .map_err(|source| ServeError::KeySet { issuer: issuer.clone(), source })?
            .into(),
        JwksSource::Url(url) => RemoteKeys::new(&issuer, url, JwksTiming::default())?.into(),
    };
    let audiences = config.audiences.iter().cloned().collect();
    Ok(TrustedIssuer { issuer, audiences, algorithms: config.algorithms.clone(), keys })
}

/// Rates guard against strangers. Whoever can read the development key on this machine is none, and
/// imports a whole history in one go.
fn limits(config: &Config) -> Limits {
    let rates = match config.http.rate_limit {
        None if config.identity.is_none() => BTreeMap::new(),
        None => default_rates(),
        Some(0) => BTreeMap::new(),
        Some(requests) => {
            let window = Duration::from_secs(15 * 60);
            let rate = Rate { requests, window };
            BTreeMap::from([(RateClass::Standard, rate), (RateClass::Sync, rate)])
        }
    };
    Limits { rates, ..Limits::default() }
}

/// Completes on the first request of the operating system to stop.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
