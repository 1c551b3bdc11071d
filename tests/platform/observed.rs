//! What an operator sees: readiness, lines and ids that can be followed.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tidemark::app::App;
use tidemark::auth::dev::DevIssuer;
use tidemark::auth::{JwksTiming, RemoteKeys, TrustedIssuer, Verifier};
use tidemark::config::{Config, DatabaseConfig, HttpConfig, LogConfig, LogFormat};
use tidemark::http::readiness::SystemReadiness;
use tidemark::http::state::Readiness;
use tidemark::keys::CacheLimits;
use tidemark::postgres::space::Room;
use tidemark::projector::service::Projectors;
use tidemark::watch::ACTIONS;
use uuid::Uuid;

use crate::served::{Served, command};
use crate::support::{self, DataDir, TestDatabase};

/// A system on databases of its own, and what it says of itself.
struct Observed {
    app: Arc<App>,
    readiness: SystemReadiness,
    database: TestDatabase,
    directory: DataDir,
}

impl Observed {
    async fn new() -> Self {
        let directory = DataDir::new();
        let database = support::database().await;
        let config = Config {
            data_dir: directory.path(),
            database: DatabaseConfig::External {
                log: Box::new(database.log.clone()),
                keys: Some(Box::new(database.keys.clone())),
            },
            master_key: None,
            key_cache: CacheLimits::default(),
            identity: None,
            http: HttpConfig { listen: ([127, 0, 0, 1], 0).into(), rate_limit: None },
            log: LogConfig { filter: "off".to_owned(), format: LogFormat::Text },
        };
        let app = App::start(&config).await.expect("a system");
        let readiness = SystemReadiness {
            app: Arc::new(OnceLock::from(Arc::clone(&app))),
            verifier: Arc::new(Verifier::new(Vec::new())),
            room: Room::default(),
        };
        Self { app, readiness, database, directory }
    }

    /// The detail of a check that does not hold; none if it holds.
    async fn broken(&self, name: &str) -> Option<String> {
        let checks = self.readiness.checks().await;
        let check = checks.into_iter().find(|check| check.name == name).expect("the check");
        (!check.ok).then(|| check.detail.unwrap_or_default())
    }

    /// Lets nobody into a database, or lets everybody in again.
    async fn shut(&self, database: &sqlx::postgres::PgConnectOptions, shut: bool) {
        let name = database.get_database().expect("a name");
        let mut admin = support::connect(&database.clone().database("postgres")).await;
        let statements = format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS {};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
            !shut
        );
        sqlx::raw_sql(&statements).execute(&mut admin).await.expect("shut");
    }
}

#[tokio::test]
async fn readiness_tells_which_database_is_gone_and_when_it_is_back() {
    let observed = Observed::new().await;
    for (check, database) in [("keys", &observed.database.keys), ("log", &observed.database.log)] {
        assert_eq!(observed.broken(check).await, None);
        observed.shut(database, true).await;
        assert!(observed.broken(check).await.is_some(), "{check}");
        let other = if check == "keys" { "log" } else { "keys" };
        assert_eq!(observed.broken(other).await, None, "{other} is well");
        observed.shut(database, false).await;
        // Connections that died are noticed when they are next used.
        while observed.broken(check).await.is_some() {}
    }
    observed.app.stop().await;
}

#[tokio::test]
async fn readiness_tells_of_a_database_that_takes_nothing() {
    let observed = Observed::new().await;
    assert_eq!(observed.broken("log").await, None);
    let name = observed.database.log.get_database().expect("a name");
    let mut admin = support::connect(&observed.database.log.clone().database("postgres")).await;
    for (read_only, expected) in [(true, Some("read-only")), (false, None)] {
        let statements = format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = {read_only};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        sqlx::raw_sql(&statements).execute(&mut admin).await.expect("set");
        loop {
            let told = observed.broken("log").await;
            let as_expected = match (&told, expected) {
                (Some(told), Some(expected)) => told.contains(expected),
                (told, expected) => told.is_some() == expected.is_some(),
            };
            if as_expected {
                break;
            }
        }
    }
    observed.app.stop().await;
}

#[tokio::test]
async fn every_condition_of_readiness_comes_with_what_to_do() {
    let observed = Observed::new().await;
    let mut checks = observed.readiness.checks().await;
    let starting = SystemReadiness { app: Arc::default(), ..observed.readiness.clone() };
    checks.extend(starting.checks().await);
    let checks: BTreeSet<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    let actions: BTreeSet<&str> = ACTIONS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(checks, actions);
    observed.app.stop().await;
}

#[tokio::test]
async fn room_is_looked_for_now_and_then_and_where_there_is_doubt() {
    let observed = Observed::new().await;
    let (room, open) = (Room::default(), observed.app.store.pool());
    let closed = support::pool_of(&observed.database.log);
    closed.close().await;
    assert!(room.check(&closed, false).await.is_err(), "nobody has looked yet");
    room.check(open, false).await.expect("room");
    room.check(&closed, false).await.expect("remembered");
    assert!(room.check(&closed, true).await.is_err(), "appends fail");
    assert!(room.check(&closed, false).await.is_err(), "what is not there is looked for");
    room.check(open, false).await.expect("room again");
    observed.app.stop().await;
}

#[tokio::test]
async fn readiness_names_a_master_key_that_this_process_lacks() {
    let observed = Observed::new().await;
    let statement = "UPDATE master_keys SET state = 'accepted';
                     INSERT INTO master_keys (kek_id, state) VALUES ('00000000000000aa', 'current')";
    sqlx::raw_sql(statement).execute(&observed.database.keys_pool()).await.expect("rotated");
    let told = observed.broken("keys").await.expect("a detail");
    assert!(told.contains("00000000000000aa") && told.contains("TIDEMARK_MASTER_KEY"), "{told}");
    observed.app.stop().await;
}

#[tokio::test]
async fn readiness_tells_how_far_read_models_are_and_whether_they_are_there() {
    let observed = Observed::new().await;
    let told = observed.broken("projectors").await.expect("a detail");
    assert!(told.contains("has not been built yet"), "{told}");
    let projectors = Projectors::start(&observed.app.read_pool, &observed.app.source());
    while observed.broken("projectors").await.is_some() {}
    projectors.stop().await;
    // Nobody projects now, as if somebody else held every lease.
    let metadata = aggregates::Metadata::system("test", Uuid::nil());
    let map = serde_json::Map::new();
    let accounts = &observed.app.accounts;
    accounts.resolve("https://id.example", "ann", &map, &metadata).await.expect("an account");
    let head = observed.app.store.head().await.expect("a head").position;
    let checks = observed.readiness.checks().await;
    let check = checks.into_iter().find(|check| check.name == "projectors").expect("the check");
    assert!(check.ok, "stale rows say so themselves");
    assert!(check.detail.expect("a detail").contains(&format!("entities: {head} behind")));
    let behind = tidemark::http::readiness::behind(&observed.app).await.expect("an answer");
    assert!(behind.iter().all(|one| one.lag == head && one.parked == 0));
    observed.app.stop().await;
}

#[tokio::test]
async fn readiness_tells_of_an_identity_provider_whose_keys_were_never_had() {
    let issuer = || {
        let keys =
            RemoteKeys::new("https://id.example", "http://127.0.0.1:9/jwks", JwksTiming::default());
        let audiences = BTreeSet::from(["app".to_owned()]);
        TrustedIssuer::new("https://id.example", audiences, keys.expect("a client"))
    };
    let mut observed = Observed::new().await;
    assert_eq!(observed.broken("identity").await, None);
    observed.readiness.verifier = Arc::new(Verifier::new(vec![issuer()]));
    let told = observed.broken("identity").await.expect("a detail");
    assert!(told.contains("not fetched yet") && told.contains("no keys"), "{told}");
    observed.readiness.verifier.tend().await;
    let told = observed.broken("identity").await.expect("a detail");
    assert!(told.contains("cannot be reached"), "{told}");

    // One whose people can be served is enough; the others are told all the same.
    let dev = DevIssuer::open(&observed.directory.path()).expect("an issuer");
    observed.readiness.verifier = Arc::new(Verifier::new(vec![issuer(), dev.trusted()]));
    assert_eq!(observed.broken("identity").await, None);
    let checks = observed.readiness.checks().await;
    let check = checks.into_iter().find(|check| check.name == "identity").expect("the check");
    assert!(check.detail.expect("a detail").contains("https://id.example"));
    observed.app.stop().await;
}

#[tokio::test]
async fn readiness_tells_of_appends_that_fail_until_one_succeeds() {
    let observed = Observed::new().await;
    let metadata = aggregates::Metadata::system("test", Uuid::nil());
    let append = async || {
        let map = serde_json::Map::new();
        observed.app.accounts.resolve("https://id.example", "ann", &map, &metadata).await
    };
    let mut blocker = support::connect(&observed.database.log).await;
    sqlx::raw_sql("BEGIN; LOCK TABLE log_head").execute(&mut blocker).await.expect("locked");
    assert!(append().await.is_err(), "the lock is held for longer than anybody waits");
    assert_eq!(observed.broken("appends").await.as_deref(), Some("the last append failed"));
    sqlx::raw_sql("ROLLBACK").execute(&mut blocker).await.expect("unlocked");
    append().await.expect("it goes on by itself");
    assert_eq!(observed.broken("appends").await, None);
    observed.app.stop().await;
}

/// The lines of a JSON log.
fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("the log");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for a line, asking the server how it is meanwhile.
async fn until(server: &Served, log: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(60) {
        if let Some(line) = lines(log).into_iter().find(&wanted) {
            return line;
        }
        let _ = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client")
            .get(format!("{}/readyz", server.base))
            .send()
            .await;
    }
    panic!("the line never came: {:?}", lines(log).iter().rev().take(20).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_id_leads_from_the_request_to_events_and_read_models() {
    let directory = DataDir::new();
    let data_dir = directory.path();
    std::fs::create_dir_all(&data_dir).expect("a directory");
    support::open_to_all(&data_dir);
    let log = data_dir.join("server.log");
    let server = Served::start_with(&data_dir, |command| {
        command
            .env("TIDEMARK_LOG", "info,tidemark=debug")
            .env("TIDEMARK_LOG_FORMAT", "json")
            .stderr(File::create(&log).expect("a log"));
    });
    let client = server.client(&data_dir, "ann");
    assert_eq!(client.me().await.expect("an answer").status, 200);
    let id = "7f1d8f0e-55c5-4a5e-9a6b-0d3f5f0a1b2c";
    let start = chrono::DateTime::from_timestamp_millis(tidemark::clock::now_ms());
    let start = start.expect("a time").to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let body = json!({
        "clientSessionId": "s-1", "sessionStartTimestamp": start, "notes": "Anna",
    });
    let answer = client.request_as(id, "/api/v1/sessions", &body).await;
    assert_eq!(answer.headers()["x-correlation-id"], id);
    assert_eq!(answer.headers()["x-request-id"], id);
    assert_eq!(answer.status(), 201, "{:?}", answer.text().await);

    let in_span = |line: &Value, name: &str, field: &str| {
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        spans.iter().any(|span| span["name"] == name && span[field] == id)
    };
    until(&server, &log, |line| {
        line["message"] == "answered" && in_span(line, "request", "request_id")
    })
    .await;
    let appended = until(&server, &log, |line| {
        line["message"] == "append answered" && in_span(line, "append", "correlation_id")
    })
    .await;
    let spans = appended["spans"].as_array().expect("spans");
    let position = &spans.last().expect("a span")["position"];
    let handled = spans.iter().find(|span| span["name"] == "command").expect("a command");
    assert_eq!(handled["aggregate"], "session");
    let metrics = reqwest::Client::builder().no_proxy().build().expect("a client");
    let metrics = metrics.get(format!("{}/metrics", server.base)).send().await;
    let metrics = metrics.expect("metrics").text().await.expect("text");
    for (aggregate, command) in [("user", "register"), ("session", "lifecycle")] {
        let row =
            format!(r#"commands_total{{aggregate="{aggregate}",command="{command}",outcome="#);
        assert_eq!(metrics.matches(&row).count(), 1, "{row} {metrics}");
    }
    let projected =
        until(&server, &log, |line| line["message"] == "projected" && line["correlation_id"] == id)
            .await;
    assert_eq!(&projected["position"], position, "it is the same event");
    assert!(projected["span"]["name"] == "project" || projected["spans"][0]["name"] == "project");

    let shown = command(&data_dir)
        .args(["log", "show", &position.to_string(), "--json"])
        .output()
        .expect("the program");
    let event: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(event["correlation_id"], json!(id), "{event}");
    let id = event["stream_id"].as_str().expect("an id");
    assert_eq!(handled["stream"], format!("session/{id}"), "{event}");
    for line in lines(&log) {
        assert!(!line.to_string().contains("Anna"), "{line}");
    }
    server.stop();
}

#[tokio::test]
async fn trouble_is_told_once_with_what_to_do_and_again_when_it_is_over() {
    let directory = DataDir::new();
    let data_dir = directory.path();
    std::fs::create_dir_all(&data_dir).expect("a directory");
    support::open_to_all(&data_dir);
    let log = data_dir.join("server.log");
    let database = support::database().await;
    let server = Served::start_with(&data_dir, |command| {
        command
            .env("DATABASE_URL", support::url_of(&database.log))
            .env("TIDEMARK_KEYS_URL", support::url_of(&database.keys))
            .env("TIDEMARK_KEY_CACHE_SECONDS", "1")
            .env("TIDEMARK_LOG", "info")
            .env("TIDEMARK_LOG_FORMAT", "json")
            .stderr(File::create(&log).expect("a log"));
    });
    let keys = database.keys.get_database().expect("a name");
    let mut admin = support::connect(&database.keys.clone().database("postgres")).await;
    let shut = format!(
        "ALTER DATABASE {keys} ALLOW_CONNECTIONS false;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{keys}'"
    );
    sqlx::raw_sql(&shut).execute(&mut admin).await.expect("shut");
    let told =
        until(&server, &log, |line| line["check"] == "keys" && line["level"] == "ERROR").await;
    assert!(told["action"].as_str().expect("an action").contains("bring it back"), "{told}");
    let open = format!("ALTER DATABASE {keys} ALLOW_CONNECTIONS true");
    sqlx::raw_sql(&open).execute(&mut admin).await.expect("open");
    until(&server, &log, |line| line["check"] == "keys" && line["level"] == "INFO").await;
    let count = lines(&log).iter().filter(|line| line["check"] == "keys").count();
    assert_eq!(count, 2, "once each");

    // A key that vanished is one person's trouble, told once however often they ask.
    let ann = server.client(&data_dir, "ann");
    assert_eq!(ann.me().await.expect("an answer").status, 200);
    let statement = "DELETE FROM subject_keys WHERE purpose = 'identity'";
    sqlx::raw_sql(statement).execute(&database.keys_pool()).await.expect("deleted");
    while ann.me().await.expect("an answer").status != 500 {}
    for _ in 0..3 {
        assert_eq!(ann.me().await.expect("an answer").status, 500);
    }
    assert_eq!(server.client(&data_dir, "ben").me().await.expect("an answer").status, 200);
    let alarms = lines(&log).into_iter().filter(|line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("a person's key cannot"))
    });
    let alarms: Vec<Value> = alarms.collect();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0]["action"].as_str().expect("an action").contains("restore the key store"));
    server.stop();
}
