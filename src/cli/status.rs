//! `tidemark status`.

use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::output::{Table, Terminal};
use super::report;
use crate::app::App;
use crate::clock;
use crate::config::Config;
use crate::projector::generation;
use crate::read_models::ReadModel;

/// Up to here rows are counted; beyond, the planner's estimate is as good as anybody needs.
const COUNTED: i64 = 100_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    log: Log,
    keys: Keys,
    projectors: Vec<Projector>,
    server: Server,
}

#[derive(Debug, Serialize)]
struct Log {
    log_id: Uuid,
    storage_format: i32,
    epoch: i16,
    /// Of the last event; positions are dense, so this is the number of events too.
    position: i64,
    streams: Count,
    people: Count,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_commit_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_commit_age_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Count {
    count: i64,
    /// Whether it is the planner's estimate.
    estimated: bool,
}

#[derive(Debug, Serialize)]
struct Keys {
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// How far one projector is.
#[derive(Debug, Serialize)]
struct Projector {
    name: &'static str,
    /// The live one; none if it was never built.
    generation: Option<i32>,
    /// Of its slowest shard.
    position: i64,
    /// Events behind the head.
    lag: i64,
    /// People it failed on.
    parked: i64,
}

#[derive(Debug, Serialize)]
struct Server {
    address: String,
    running: bool,
    ready: bool,
    /// Its conditions, as `/readyz` tells them.
    checks: Vec<Condition>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Condition {
    name: String,
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Says how the system is. Exits with 1 where the key store cannot be used, or a server runs and is
/// not ready.
pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let app = App::beside(config).await?;
    let status = gather(config, &app).await;
    app.stop().await;
    let status = status?;
    if args.json {
        report::json(&status)?;
    } else {
        report::text(&render(&status, Terminal::of_stdout()))?;
    }
    let well = status.keys.reachable && (status.server.ready || !status.server.running);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn gather(config: &Config, app: &App) -> anyhow::Result<Status> {
    let head = app.store.head().await?;
    let keys = app.store.sealer().keyring().check_master().await;
    let committed = (head.position > 0).then_some(head.committed_ms);
    Ok(Status {
        log: Log {
            log_id: head.log_id,
            storage_format: head.storage_format,
            epoch: head.epoch,
            position: head.position,
            streams: count(app.store.pool(), "streams").await?,
            people: count(app.store.pool(), "user_heads").await?,
            last_commit_at: committed.map(report::time),
            last_commit_age_ms: committed.map(|at| (clock::now_ms() - at).max(0)),
        },
        keys: Keys {
            reachable: keys.is_ok(),
            problem: keys.err().map(|error| report::one_line(&error.into())),
        },
        projectors: projectors(app, head.position).await?,
        server: server(config).await,
    })
}

/// Rows of a table of the log: exactly where there are few, else estimated.
async fn count(pool: &PgPool, table: &'static str) -> Result<Count, sqlx::Error> {
    let query =
        format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT {}) AS first_rows", COUNTED + 1);
    let count: i64 = sqlx::query_scalar(&query).fetch_one(pool).await?;
    if count <= COUNTED {
        return Ok(Count { count, estimated: false });
    }
    let estimate: f64 =
        sqlx::query_scalar("SELECT reltuples::float8 FROM pg_class WHERE oid = $1::regclass")
            .bind(table)
            .fetch_one(pool)
            .await?;
    Ok(Count { count: (estimate as i64).max(count), estimated: true })
}

/// Every projector's live generation. One that was never built has everything before it.
async fn projectors(app: &App, head: i64) -> anyhow::Result<Vec<Projector>> {
    let listed = generation::list(&mut *app.read_pool.acquire().await?).await?;
    Ok(ReadModel::ALL
        .into_iter()
        .map(|model| {
            let name = model.spec().name;
            let live = listed.iter().find(|one| one.projector == name && one.state == "live");
            let position = live.map_or(0, |one| one.position);
            Projector {
                name,
                generation: live.map(|one| one.generation),
                position,
                lag: (head - position).max(0),
                parked: live.map_or(0, |one| one.parked),
            }
        })
        .collect())
}

/// Asks whether a server answers where one is configured.
async fn server(config: &Config) -> Server {
    let address = format!("http://{}", config.http.listen);
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
    let answer = match client {
        Ok(client) => client.get(format!("{address}/readyz")).send().await.ok(),
        Err(_) => None,
    };
    let Some(answer) = answer else {
        return Server { address, running: false, ready: false, checks: Vec::new() };
    };
    let ready = answer.status().is_success();
    let body: Value = answer.json().await.unwrap_or_default();
    let place = if ready { "/data/checks" } else { "/error/details/checks" };
    let checks = body.pointer(place).cloned().unwrap_or_default();
    let checks = serde_json::from_value(checks).unwrap_or_default();
    Server { address, running: true, ready, checks }
}

fn render(status: &Status, terminal: Terminal) -> String {
    let Status { log, keys, projectors, server } = status;
    let mut facts = Table::new(["log", ""]);
    facts.row(["id".to_owned(), log.log_id.to_string()]);
    facts.row(["position".to_owned(), format!("{} (epoch {})", log.position, log.epoch)]);
    facts.row(["storage format".to_owned(), log.storage_format.to_string()]);
    facts.row(["streams".to_owned(), about(log.streams)]);
    facts.row(["people".to_owned(), about(log.people)]);
    let last = match (&log.last_commit_at, log.last_commit_age_ms) {
        (Some(at), Some(age)) => format!("{at}, {} s ago", age / 1000),
        _ => "never".to_owned(),
    };
    facts.row(["last commit".to_owned(), last]);
    let keys = keys.problem.clone().unwrap_or_else(|| "reachable".to_owned());
    facts.row(["key store".to_owned(), keys]);
    let state = match (server.running, server.ready) {
        (false, _) => "not running",
        (true, false) => "not ready",
        (true, true) => "ready",
    };
    facts.row(["server".to_owned(), format!("{state} at {}", server.address)]);
    for check in server.checks.iter().filter(|check| !check.ok) {
        let detail = check.detail.clone().unwrap_or_else(|| "does not hold".to_owned());
        facts.row([format!("server: {}", check.name), detail]);
    }
    let mut table = Table::new(["projector", "#generation", "#position", "#behind", "#parked"]);
    for p in projectors {
        table.row([
            p.name.to_owned(),
            p.generation.map_or_else(|| "not built".to_owned(), |number| number.to_string()),
            p.position.to_string(),
            p.lag.to_string(),
            p.parked.to_string(),
        ]);
    }
    format!("{}\n{}", facts.render(terminal), table.render(terminal))
}

fn about(count: Count) -> String {
    match count.estimated {
        true => format!("about {}", count.count),
        false => count.count.to_string(),
    }
}
