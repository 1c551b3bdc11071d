//! What handlers share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aggregates::ids::UserId;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::ApiError;
use super::rate::{self, Rate, RateClass, RateLimiter};
use crate::app::App;
use crate::auth::{Identity, Verifier};

/// The parts of the system that HTTP needs. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The rest of the system, once it is up; handlers take it by [`System`].
    ///
    /// [`System`]: super::extract::System
    pub app: Arc<OnceLock<Arc<App>>>,
    pub verifier: Arc<Verifier>,
    pub users: Arc<dyn UserDirectory>,
    pub readiness: Arc<dyn Readiness>,
    pub metrics: PrometheusHandle,
    pub limits: Arc<Limits>,
    /// One permit per request being worked on.
    pub(super) slots: Arc<Semaphore>,
    pub(super) rates: Arc<RateLimiter>,
}

impl AppState {
    /// State for a router with these parts.
    pub fn new(
        verifier: Arc<Verifier>,
        users: Arc<dyn UserDirectory>,
        readiness: Arc<dyn Readiness>,
        metrics: PrometheusHandle,
        limits: Limits,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(limits.concurrent_requests));
        let rates = Arc::new(RateLimiter::new(limits.rates.clone()));
        let app = Arc::new(OnceLock::new());
        Self { app, verifier, users, readiness, metrics, limits: Arc::new(limits), slots, rates }
    }
}

/// Finds the person behind a verified token.
pub trait UserDirectory: Send + Sync {
    /// The internal id of the person, who is created at their first request.
    ///
    /// # Errors
    /// 410 for an erased account, 503 if the store cannot be reached.
    fn resolve<'a>(
        &'a self,
        identity: &'a Identity,
        correlation: Uuid,
    ) -> BoxFuture<'a, Result<UserId, ApiError>>;
}

/// Tells whether this process can serve.
pub trait Readiness: Send + Sync {
    /// Every condition by name. The process is ready when all of them hold.
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// One condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// For operators; holds nothing personal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How much the server takes on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests worked on at once; more are answered 503.
    pub concurrent_requests: usize,
    /// From the end of routing to the answer.
    pub request_timeout: Duration,
    /// For the request body to arrive.
    pub body_timeout: Duration,
    /// For the request's head to arrive, and for an idle connection to stay open.
    pub head_timeout: Duration,
    /// For running requests to finish once the server is told to stop.
    pub shutdown_timeout: Duration,
    /// Web origins that may call the API from a browser.
    pub cors_origins: Vec<String>,
    /// Requests per person and class of route; a class left out is not limited.
    pub rates: BTreeMap<RateClass, Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_requests: 512,
            request_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(15),
            shutdown_timeout: Duration::from_secs(30),
            cors_origins: Vec::new(),
            rates: rate::default_rates(),
        }
    }
}
