//! A server with a log of its own, and people who call it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aggregates::{Metadata, UserId};
use futures_util::future::BoxFuture;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Map, Value};
use tidemark::app::App;
use tidemark::auth::Verifier;
use tidemark::auth::dev::{self, DevIssuer};
use tidemark::config::{Config, DatabaseConfig, HttpConfig, LogConfig, LogFormat};
use tidemark::http::directory::Directory;
use tidemark::http::state::{AppState, Check, Limits, Readiness};
use tidemark::http::{Timing, router, serve};
use tidemark::{ids, metrics};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{self, TestDatabase};

/// A running server.
pub struct World {
    pub app: Arc<App>,
    pub database: Arc<TestDatabase>,
    client: Client,
    base: String,
    issuer: DevIssuer,
    server: JoinHandle<()>,
    directory: Arc<support::DataDir>,
}

impl World {
    /// A server that lets people ask as often as they like: tests are faster than phones.
    pub async fn new() -> Self {
        Self::with(unlimited()).await
    }

    /// A server with these limits.
    pub async fn with(limits: Limits) -> Self {
        let directory = support::DataDir::new();
        std::fs::create_dir_all(directory.path()).unwrap();
        Self::start(Arc::new(support::database().await), Arc::new(directory), limits).await
    }

    /// Another server process on the same databases.
    pub async fn another(&self) -> Self {
        let (database, directory) = (Arc::clone(&self.database), Arc::clone(&self.directory));
        Self::start(database, directory, unlimited()).await
    }

    /// A server on these databases, with what lies in that directory.
    pub async fn start(
        database: Arc<TestDatabase>,
        directory: Arc<support::DataDir>,
        limits: Limits,
    ) -> Self {
        let data_dir = directory.path();
        let config = Config {
            data_dir: data_dir.clone(),
            database: DatabaseConfig::External {
                log: Box::new(database.log.clone()),
                keys: Some(Box::new(database.keys.clone())),
            },
            master_key: None,
            identity: None,
            http: HttpConfig { listen: ([127, 0, 0, 1], 0).into(), rate_limit: None },
            log: LogConfig { filter: "off".to_owned(), format: LogFormat::Text },
        };
        let app = App::start(&config).await.unwrap();
        let issuer = DevIssuer::open(&data_dir).unwrap();
        let slot = Arc::new(OnceLock::from(Arc::clone(&app)));
        let mut state = AppState::new(
            Arc::new(Verifier::new(vec![issuer.trusted()])),
            Arc::new(Directory(Arc::clone(&slot))),
            Arc::new(Ready),
            metrics::install().unwrap(),
            limits,
        );
        state.app = slot;
        let timing = Timing::from(&*state.limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            serve(listener, router(state), pending(), timing).await.unwrap();
        });
        let client = Client::builder().no_proxy().build().unwrap();
        Self { app, database, client, base, issuer, server, directory }
    }

    /// A person with an account, and their phone.
    pub async fn person(&self, name: &str) -> Person<'_> {
        let token = self.issuer.issue(name, &BTreeSet::new(), Duration::from_secs(3600)).unwrap();
        let metadata = Metadata::owner(ids::new_id());
        let accounts = &self.app.accounts;
        let user = accounts.resolve(dev::ISSUER, name, &Map::new(), &metadata).await.unwrap();
        Person { world: self, user, token, device: ids::new_id() }
    }

    /// A caller whose account is no more.
    pub fn gone(&self, name: &str) -> Person<'_> {
        let token = self.issuer.issue(name, &BTreeSet::new(), Duration::from_secs(3600)).unwrap();
        Person { world: self, user: UserId(Uuid::nil()), token, device: ids::new_id() }
    }

    /// The last position of the log.
    pub async fn position(&self) -> i64 {
        self.app.store.head().await.unwrap().position
    }

    /// A request to this server, without a caller.
    pub fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }
}

/// Limits that let people ask as often as they like.
pub fn unlimited() -> Limits {
    Limits { rates: BTreeMap::new(), ..Limits::default() }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Ready;

impl Readiness for Ready {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }
}

/// A caller.
pub struct Person<'a> {
    pub world: &'a World,
    pub user: UserId,
    token: String,
    device: Uuid,
}

impl Person<'_> {
    /// Another phone of the same person.
    pub fn other_phone(&self) -> Self {
        let Self { world, user, token, .. } = self;
        Self { world, user: *user, token: token.clone(), device: ids::new_id() }
    }

    /// A request of a caller who names this installation, or none.
    pub fn get_as(&self, path: &str, device: Option<&str>) -> RequestBuilder {
        let request = self.world.request(reqwest::Method::GET, path).bearer_auth(&self.token);
        match device {
            Some(device) => request.header("x-device-id", device),
            None => request,
        }
    }

    /// What the phone calls itself.
    pub fn device(&self) -> String {
        self.device.to_string()
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(reqwest::Method::GET, path)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(reqwest::Method::POST, path)
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.nameless(method, path).header("x-device-id", self.device.to_string())
    }

    /// A request that does not say which phone it comes from.
    pub fn nameless(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.world.request(method, path).bearer_auth(&self.token)
    }
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The error's code, after a look at its shape.
    pub fn code(&self) -> &str {
        assert_eq!(self.body["success"], false, "{}", self.body);
        self.body["error"]["code"].as_str().unwrap()
    }
}
