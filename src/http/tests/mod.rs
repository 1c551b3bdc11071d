//! The whole router, in process, with a few routes that misbehave on purpose.

mod access;
mod bodies;
mod headers;
mod trouble;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aggregates::ids::UserId;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Router, routing};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use super::envelope::Envelope;
use super::error::{ApiError, code};
use super::extract::{BodyLimit, Caller, Correlation, DeviceId, Json, OptionalDeviceId};
use super::extract::{Path, Query, TimezoneOffset};
use super::rate::RateClass;
use super::state::{AppState, Check, Limits, Readiness, UserDirectory};
use super::{assemble, layer};
use crate::auth::dev::DevIssuer;
use crate::auth::{Identity, Role, Verifier};

/// One person per subject; `erased` has been erased and `broken` meets a failing store.
struct People;

impl UserDirectory for People {
    fn resolve<'a>(
        &'a self,
        identity: &'a Identity,
        _: Uuid,
    ) -> BoxFuture<'a, Result<UserId, ApiError>> {
        async move {
            match identity.subject.as_str() {
                "erased" => Err(code::ACCOUNT_ERASED.into()),
                "broken" => Err(ApiError::unavailable("connection refused (postgres)")),
                subject => Ok(UserId(Uuid::new_v5(&Uuid::NAMESPACE_URL, subject.as_bytes()))),
            }
        }
        .boxed()
    }
}

struct Ready(bool);

impl Readiness for Ready {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        let check = Check { name: "database".to_owned(), ok: self.0, detail: None };
        async move { vec![check] }.boxed()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    item_count: u32,
    #[serde(default)]
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    name: String,
}

#[derive(Deserialize)]
struct Page {
    limit: u32,
}

async fn order(Json(order): Json<Order>) -> Envelope<Value> {
    let names: Vec<_> = order.lines.into_iter().map(|line| line.name).collect();
    Envelope::created(json!({ "itemCount": order.item_count, "names": names }))
}

async fn panics() -> StatusCode {
    panic!("heart rate 61 of ann");
}

async fn fails() -> ApiError {
    ApiError::internal("password=hunter2").with_message("this is for the log")
}

async fn hangs() -> StatusCode {
    std::future::pending().await
}

fn resources() -> OpenApiRouter<AppState> {
    let uploads = OpenApiRouter::new()
        .route("/api/v1/health/samples/batch-upsert", routing::post(order))
        .layer(layer::body_limit(BodyLimit { wire: 2000, inflated: 4000 }));
    let counted_apart = OpenApiRouter::new()
        .route(
            "/api/v1/health/me",
            routing::get(|caller: Caller| async move { Envelope::new(caller.user) }),
        )
        .layer(layer::rate_class(RateClass::Sync));
    OpenApiRouter::new()
        .merge(uploads)
        .merge(counted_apart)
        .route("/orders", routing::post(order))
        .route(
            "/orders/{id}",
            routing::get(|Path(id): Path<Uuid>| async move { Envelope::new(id) }),
        )
        .route(
            "/pages",
            routing::get(|Query(page): Query<Page>| async move { Envelope::new(page.limit) }),
        )
        .route("/me", routing::get(|caller: Caller| async move { Envelope::new(caller.user) }))
        .route(
            "/audit",
            routing::get(|caller: Caller| async move {
                caller.require(Role::Auditor).map(|()| Envelope::new("entries"))
            }),
        )
        .route("/device", routing::get(|DeviceId(id): DeviceId| async move { Envelope::new(id) }))
        .route(
            "/maybe-device",
            routing::get(|OptionalDeviceId(id): OptionalDeviceId| async move { Envelope::new(id) }),
        )
        .route(
            "/offset",
            routing::get(
                |TimezoneOffset(offset): TimezoneOffset| async move { Envelope::new(offset) },
            ),
        )
        .route(
            "/correlation",
            routing::get(|correlation: Correlation| async move { Envelope::new(correlation.id) }),
        )
        .route("/large", routing::get(|| async { Envelope::new("x".repeat(5000)) }))
        .route("/panics", routing::get(panics))
        .route("/api/v1/health/panics", routing::get(panics))
        .route("/fails", routing::get(fails))
        .route("/hangs", routing::get(hangs))
}

struct App {
    router: Router,
    dev: DevIssuer,
    slots: Arc<Semaphore>,
    _dir: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    fn code(&self) -> String {
        let body = self.json();
        assert_eq!(body["success"], false, "{body}");
        let id = self.header("x-request-id");
        assert_eq!(body["error"]["requestId"], id, "{body}");
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl App {
    fn new() -> Self {
        Self::with(Limits::default(), true)
    }

    /// An app that loses patience almost at once.
    fn hasty() -> Self {
        let soon = Duration::from_millis(20);
        Self::with(
            Limits { request_timeout: 10 * soon, body_timeout: soon, ..Limits::default() },
            true,
        )
    }

    fn with(limits: Limits, ready: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dev = DevIssuer::open(dir.path()).unwrap();
        let verifier = Arc::new(Verifier::new(vec![dev.trusted()]));
        let metrics = crate::metrics::install().unwrap();
        let state =
            AppState::new(verifier, Arc::new(People), Arc::new(Ready(ready)), metrics, limits);
        let slots = state.slots.clone();
        Self { router: assemble(resources(), state), dev, slots, _dir: dir }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers, Body::empty())).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.send(request("POST", path, &all, body.into())).await
    }

    fn bearer(&self, subject: &str, roles: &[Role]) -> String {
        let roles: BTreeSet<Role> = roles.iter().copied().collect();
        let token = self.dev.issue(subject, &roles, Duration::from_secs(60)).unwrap();
        format!("Bearer {token}")
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let start = Request::builder().method(method).uri(path);
    let builder =
        headers.iter().fold(start, |builder, (name, value)| builder.header(*name, *value));
    builder.body(body).unwrap()
}
