//! `tidemark projectors`: how far read models are, and their rebuild.

use std::process::ExitCode;

use std::time::Duration;

use aggregates::UserId;
use aggregates::projection::SkipCommand;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::operator;
use super::output::{Progress, Table, Terminal};
use super::report;
use crate::app::App;
use crate::commands::projection;
use crate::config::Config;
use crate::ids;
use crate::projector::{Worker, generation, rebuild, repair};
use crate::read_models::ReadModel;
use crate::store::{Filter, read};

/// How long a skip waits to be taken up.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

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
    /// Show whom projectors are parked for, and at which event
    Parked {
        #[arg(long)]
        json: bool,
    },
    /// Try again for the people a projector is parked for
    Retry {
        /// Name of the projector, as `list` shows it
        name: String,
        /// Only for this person
        #[arg(long, value_name = "USER_ID")]
        user: Option<Uuid>,
        #[arg(long)]
        json: bool,
    },
    /// Leave out the event a projector is parked at for a person, now and in every rebuild
    Skip {
        /// Name of the projector, as `list` shows it
        name: String,
        /// The person, as `parked` shows them
        #[arg(value_name = "USER_ID")]
        user: Uuid,
        /// The event's position, as `parked` shows it
        position: i64,
        /// Where the reason is written down, such as a ticket: one word, recorded in the log
        #[arg(long, value_name = "REFERENCE")]
        reason: String,
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, action: &Action) -> anyhow::Result<ExitCode> {
    let app = App::beside(config).await?;
    let result = match action {
        Action::List { json } => list(&app, *json).await,
        Action::Rebuild { name, json } => rebuild_one(&app, name, *json).await,
        Action::Parked { json } => parked(&app, *json).await,
        Action::Retry { name, user, json } => retry(&app, name, user.map(UserId), *json).await,
        Action::Skip { name, user, position, reason, json } => {
            skip(&app, name, UserId(*user), *position, reason, *json).await
        }
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

async fn parked(app: &App, json: bool) -> anyhow::Result<ExitCode> {
    let mut table =
        Table::new(["projector", "person", "#position", "event", "error", "#attempts", "since"]);
    let mut rows = Vec::new();
    for model in ReadModel::ALL {
        for one in repair::parked(&app.read_pool, model).await? {
            let (name, user) = (model.spec().name, one.user.to_string());
            let event = event_type(app, one.position).await?.unwrap_or_default();
            let since = report::time(one.at_ms);
            rows.push(json!({
                "projector": name, "user": user, "position": one.position, "event_type": event,
                "error": one.error, "attempts": one.attempts, "since": since,
            }));
            let (position, attempts) = (one.position.to_string(), one.attempts.to_string());
            table.row([name.to_owned(), user, position, event, one.error, attempts, since]);
        }
    }
    match json {
        true => println!("{}", json!({ "parked": rows })),
        false if rows.is_empty() => println!("Nobody is parked."),
        false => println!("{}", table.render(Terminal::of_stdout())),
    }
    Ok(ExitCode::SUCCESS)
}

async fn event_type(app: &App, position: i64) -> Result<Option<String>, sqlx::Error> {
    let all = Filter::default();
    let found = read::raw_page(app.store.pool(), position - 1, position, 1, &all).await?;
    Ok(found.into_iter().next().map(|event| event.event_type))
}

async fn retry(
    app: &App,
    name: &str,
    only: Option<UserId>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let model = find(name)?;
    let (freed, failed) = repair::retry(&app.read_pool, &app.source(), model, only).await?;
    if json {
        println!("{}", json!({ "projector": name, "freed": freed, "failed": failed }));
    } else {
        println!("{name}: {freed} people freed, {failed} still parked.");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn skip(
    app: &App,
    name: &str,
    user: UserId,
    position: i64,
    reason: &str,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let model = find(name)?;
    let parked_at = repair::parked_at(&app.read_pool, model, user).await?;
    let command = SkipCommand::Skip {
        projector: name.to_owned(),
        position,
        parked_at,
        by: operator::name(),
        reference: reason.to_owned(),
    };
    let recorded_at = projection::skip(&app.store, user, command).await?;
    // A running server takes it up; without one, this does.
    let models = vec![model];
    let mut worker = Worker::live(app.read_pool.clone(), app.source(), ids::new_id(), models);
    worker.catch_up(recorded_at).await?;
    worker.stop().await?;
    let deadline = Instant::now() + PATIENCE;
    let parked_at = loop {
        let parked_at = repair::parked_at(&app.read_pool, model, user).await?;
        if parked_at != Some(position) || Instant::now() > deadline {
            break parked_at;
        }
        tokio::time::sleep(PAUSE).await;
    };
    let done = parked_at.is_none();
    if json {
        println!(
            "{}",
            json!({
                "projector": name, "user": user.to_string(), "skipped": position,
                "recorded_at": recorded_at, "done": done, "parked_at": parked_at,
            })
        );
    } else {
        let outcome = match parked_at {
            None => "the person goes on, with answers marked as partial".to_owned(),
            Some(at) if at == position => {
                "it takes effect once a projector has come that far".to_owned()
            }
            Some(at) => format!("the person is parked at position {at} now"),
        };
        println!("{name}: position {position} is skipped (recorded at {recorded_at}); {outcome}.");
    }
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
