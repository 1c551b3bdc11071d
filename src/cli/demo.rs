//! `tidemark demo`: shows that it works, and stays up to be looked at.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::output::{Point, Table, Terminal, number, plot};
use crate::app::App;
use crate::auth::Role;
use crate::auth::dev::DevIssuer;
use crate::commands::verify::log::verify_log;
use crate::config::Config;
use crate::demo::story::{Check, Report, Story};
use crate::import::apple_health::Export;
use crate::projector::{compare, generation};
use crate::read_models::ReadModel;
use crate::server::{Server, stop_signal};
use crate::store::Filter;

/// A week of one invented person.
const EXPORT: &[u8] = include_bytes!("../../tests/fixtures/apple-health/export.xml");

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Import this Apple Health export.xml instead of the one that is built in
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,

    /// Stop when the checks are done instead of serving on
    #[arg(long)]
    exit: bool,

    /// Print only the checks, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    if config.identity.is_some() {
        anyhow::bail!("the demo issues its own tokens (unset TIDEMARK_JWKS)");
    }
    let mut config = config.clone();
    // The demo is one client with many people; limits are for strangers.
    config.http.rate_limit = Some(0);
    if args.exit {
        // Nobody will look at it afterwards, and a server may be running at the usual place.
        config.http.listen.set_port(0);
    }
    let began = Instant::now();
    let server = Server::start(&config).await?;
    let (app, base) = (Arc::clone(&server.app), format!("http://{}", server.address));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));

    let issuer = DevIssuer::open(&config.data_dir)?;
    let issue = |name: &str| {
        issuer
            .issue(name, &BTreeSet::from([Role::User]), Duration::from_secs(3600))
            .map_err(|error| error.to_string())
    };
    let say = |line: &str| {
        if !args.json {
            println!("  {line} …");
        }
    };
    if !args.json {
        println!("Tidemark is up at {base}. The demo:");
    }
    let mut story = Story::new(&base, &issue)?;
    let told = match &args.export {
        Some(path) => {
            let file =
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            story.tell(Export::new(BufReader::new(file)), &say).await
        }
        None => story.tell(Export::new(Cursor::new(EXPORT)), &say).await,
    };
    let mut report = story.into_report();
    if let Err(error) = told {
        let error = anyhow::Error::from(error);
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        report.checks.push(Check::new("story_told", false, chain.join(": ")));
    }
    report.checks.extend(inspect(&app).await?);
    let ok = report.checks.iter().all(|check| check.ok);

    if args.json {
        println!("{}", json!({ "checks": report.checks, "ok": ok }));
    } else {
        show(&app, &report, began.elapsed()).await?;
    }
    if !args.exit {
        if !args.json {
            println!("\nThe server stays up (Ctrl-C stops it):");
            println!(
                "  API      {base}/api/v1      try: curl -H \"Authorization: Bearer $(tidemark token --sub you)\" {base}/api/v1/users/me"
            );
            println!("  OpenAPI  {base}/openapi.json");
            println!("  health   {base}/readyz      metrics  {base}/metrics");
        }
        stop_signal().await;
    }
    let _ = stop.send(());
    serving.await??;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What only the inside can tell: the order of the log, and read models against a fold of it.
async fn inspect(app: &App) -> anyhow::Result<Vec<Check>> {
    let head = app.store.head().await?.position;
    let (count, last): (i64, i64) =
        sqlx::query_as("SELECT count(*), coalesce(max(position), 0) FROM events")
            .fetch_one(app.store.pool())
            .await?;
    let mut checks = vec![Check::new(
        "positions_dense",
        count == last && last == head,
        format!("{count} events, last position {last}, head {head}"),
    )];
    let verified = verify_log(&app.store, 1, 3, |_| {}).await?;
    checks.push(Check::new(
        "log_verifies",
        verified.faults.is_empty() && verified.events == last.unsigned_abs(),
        format!("{} leaf hashes recomputed from stored bytes", verified.events),
    ));
    for model in ReadModel::ALL {
        let compared = compare::verify(&app.read_pool, &app.source(), model, |_| {}).await?;
        let name = match model {
            ReadModel::HealthRollup => "rollups_equal_rebuild",
            ReadModel::Entities => "entities_equal_rebuild",
        };
        let wrong = compared.differences.len() as u64 + compared.parked + compared.unsettled;
        checks.push(Check::new(
            name,
            wrong == 0,
            format!(
                "{} people folded from the log: {} equal, {wrong} not",
                compared.same + wrong,
                compared.same
            ),
        ));
    }
    Ok(checks)
}

async fn show(app: &App, report: &Report, took: Duration) -> anyhow::Result<()> {
    let terminal = Terminal::of_stdout();
    println!(
        "\n{} samples and {} sessions through the API in {:.1} s.",
        report.samples, report.sessions, report.upload_seconds
    );
    if let Some((stats, samples)) = &report.import {
        println!(
            "The export: {} records read, {samples} samples stored, {} of unknown types, {} malformed.",
            stats.records,
            stats.unknown.values().sum::<u64>(),
            stats.malformed.values().sum::<u64>()
        );
    }
    println!("\nDaily rollups (the last week):");
    let mut table =
        Table::new(["metric", "day", "#samples", "#sum", "#min", "#max", "#avg", "state"]);
    for (metric, rows) in &report.rollups {
        for row in rows.iter().rev().take(7).rev() {
            let cell =
                |name: &str| row[name].as_f64().map_or(String::new(), |value| number(value, 1));
            table.row([
                (*metric).to_owned(),
                text(&row["dayUtc"]),
                row["countVal"].to_string(),
                cell("sumVal"),
                cell("minVal"),
                cell("maxVal"),
                cell("avgVal"),
                text(&row["freshness"]["status"]),
            ]);
        }
    }
    println!("{}", table.render(terminal));
    if let Some(rows) = report.rollups.get("steps") {
        let points: Vec<Point> = rows
            .iter()
            .map(|row| {
                Point::new(
                    text(&row["dayUtc"]).get(5..).unwrap_or_default(),
                    row["sumVal"].as_f64(),
                )
            })
            .collect();
        println!("{}", plot("steps a day", &points, 8, terminal));
    }

    println!("How the two phones' edits were merged (GET /sync/explain):");
    println!("{}\n", serde_json::to_string_pretty(&report.explained)?);

    println!("The log's tail (what an operator sees; payloads are sealed):");
    let head = app.store.head().await?.position;
    let page = app.store.page((head - 8).max(0), head, 8, &Filter::default()).await?;
    let mut table = Table::new(["#position", "type", "stream", "#sequence"]);
    for event in page {
        table.row([
            event.position.to_string(),
            event.event_type,
            event.stream.to_string(),
            event.sequence.to_string(),
        ]);
    }
    println!("{}", table.render(terminal));

    println!("Projectors:");
    let mut table = Table::new(["projector", "#generation", "#position", "#lag", "#parked"]);
    for one in generation::list(&mut *app.read_pool.acquire().await?).await? {
        if one.state == "live" {
            table.row([
                one.projector,
                one.generation.to_string(),
                one.position.to_string(),
                (head - one.position).max(0).to_string(),
                one.parked.to_string(),
            ]);
        }
    }
    println!("{}", table.render(terminal));

    println!("Checks:");
    for check in &report.checks {
        println!("  {} {:32} {}", if check.ok { "ok  " } else { "FAIL" }, check.name, check.detail);
    }
    println!("\nDone in {:.1} s.", took.as_secs_f64());
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
