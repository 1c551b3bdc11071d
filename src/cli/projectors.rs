//! `tidemark projectors`: how far read models are, and their rebuild.

use std::process::ExitCode;

use serde_json::json;

use super::output::{Progress, Table, Terminal};
use crate::app::App;
use crate::config::Config;
use crate::ids;
use crate::projector::{generation, rebuild};
use crate::read_models::ReadModel;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Show every generation, how far it is and whom it is parked for
    List {
        #[arg(long)]
        json: bool,
    },
    /// Fold a projector's rows anew from the log, compare, and swap them in
    Rebuild {
        /// Name of the projector, as `list` shows it
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Try again for the people a projector is parked for
    Retry {
        /// Name of the projector, as `list` shows it
        name: String,
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, action: &Action) -> anyhow::Result<ExitCode> {
    let app = App::beside(config).await?;
    let result = match action {
        Action::List { json } => list(&app, *json).await,
        Action::Rebuild { name, json } => rebuild_one(&app, name, *json).await,
        Action::Retry { name, json } => retry(&app, name, *json).await,
    };
    app.stop().await;
    result
}

async fn list(app: &App, json: bool) -> anyhow::Result<ExitCode> {
    let head = app.store.head().await?.position;
    let generations = generation::list(&mut *app.read_pool.acquire().await?).await?;
    // A retired generation stands still for good; that is no lag.
    let lag = |one: &generation::Listed| {
        let runs = matches!(one.state.as_str(), "live" | "building");
        runs.then(|| (head - one.position).max(0))
    };
    if json {
        let rows: Vec<_> = generations
            .iter()
            .map(|one| {
                json!({
                    "projector": one.projector, "generation": one.generation,
                    "compute_version": one.compute_version, "state": one.state,
                    "position": one.position, "lag": lag(one),
                    "parked": one.parked,
                })
            })
            .collect();
        println!("{}", json!({ "head": head, "projectors": rows }));
        return Ok(ExitCode::SUCCESS);
    }
    let headings =
        ["projector", "#generation", "#formulas", "state", "#position", "#lag", "#parked"];
    let mut table = Table::new(headings);
    for one in generations {
        let behind = lag(&one).map(|lag| lag.to_string()).unwrap_or_default();
        table.row([
            one.projector,
            one.generation.to_string(),
            format!("v{}", one.compute_version),
            one.state,
            one.position.to_string(),
            behind,
            one.parked.to_string(),
        ]);
    }
    println!("{}", table.render(Terminal::of_stdout()));
    println!("log head: {head}");
    Ok(ExitCode::SUCCESS)
}

fn find(name: &str) -> anyhow::Result<ReadModel> {
    ReadModel::find(name).ok_or_else(|| {
        let names: Vec<&str> = ReadModel::ALL.iter().map(|model| model.spec().name).collect();
        anyhow::anyhow!("there is no projector {name:?} (there are {})", names.join(", "))
    })
}

async fn rebuild_one(app: &App, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let model = find(name)?;
    let people: i64 =
        sqlx::query_scalar("SELECT count(*) FROM user_heads").fetch_one(app.store.pool()).await?;
    let progress = Progress::items(people.unsigned_abs(), "people folded");
    let done = |people| progress.set(people);
    let rebuilt =
        rebuild::rebuild(&app.read_pool, &app.source(), model, ids::new_id(), done).await?;
    drop(progress);
    let differences = rebuilt.comparison.differences.len();
    if json {
        println!(
            "{}",
            json!({
                "projector": name, "people": rebuilt.people, "rows": rebuilt.rows,
                "retired": rebuilt.retired.number, "live": rebuilt.live.number,
                "same": rebuilt.comparison.same, "different": differences,
                "unsettled": rebuilt.comparison.unsettled,
            })
        );
    } else {
        println!(
            "{name}: generation {} is live, {} retired; {} rows of {} people, {differences} differ.",
            rebuilt.live.number, rebuilt.retired.number, rebuilt.rows, rebuilt.people
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn retry(app: &App, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let model = find(name)?;
    let (freed, failed) = rebuild::retry(&app.read_pool, &app.source(), model).await?;
    if json {
        println!("{}", json!({ "projector": name, "freed": freed, "failed": failed }));
    } else {
        println!("{name}: {freed} people freed, {failed} still parked.");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
