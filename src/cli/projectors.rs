//! `tidemark projectors`: how far read models are, whom they are parked for, and what to do about
//! either: rebuild, compare, roll back, prune, retry, skip.

use std::collections::BTreeSet;
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
use crate::projector::compare::{self, Comparison, Difference, Kind};
use crate::projector::service::ROLLBACK_WINDOW;
use crate::projector::{ProjectorError, Worker, generation, rebuild, repair};
use crate::read_models::ReadModel;
use crate::store::{Filter, read};

/// How long a skip waits to be taken up.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

const SECONDS_OF_DAY: f64 = 24.0 * 3_600.0;
/// Differing rows that a report names.
const SAMPLES: usize = 20;

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
        /// Report what differs, and swap only if nothing does that was not expected
        #[arg(long)]
        verify: bool,
        /// Ways in which rows may differ: changed, only-old, only-new
        #[arg(long, value_name = "WAYS", value_delimiter = ',', requires = "verify",
              value_parser = clap::builder::PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)))]
        expect: Vec<String>,
        #[arg(long)]
        json: bool,
    },
    /// Show what a rebuild would change: people, rows and columns, no values
    Diff {
        /// Name of the projector, as `list` shows it
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Make the generation live again that was so before the last swap
    Rollback {
        /// Name of the projector, as `list` shows it
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Drop retired generations for good; servers do so after 7 days
    Prune {
        /// Retired so many days ago or earlier
        #[arg(long, value_name = "DAYS", default_value_t = ROLLBACK_WINDOW / SECONDS_OF_DAY)]
        days: f64,
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
        Action::Rebuild { name, verify, expect, json } => {
            let kinds = expect.iter().filter_map(|name| Kind::parse(name)).collect();
            rebuild_one(&app, name, verify.then_some(kinds), *json).await
        }
        Action::Diff { name, json } => diff(&app, name, *json).await,
        Action::Rollback { name, json } => rollback(&app, name, *json).await,
        Action::Prune { days, json } => prune(&app, *days, *json).await,
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
        report::json(&json!({ "head": head, "projectors": rows }))?;
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
    report::text(&format!("{}\nlog head: {head}\n", table.render(Terminal::of_stdout())))?;
    Ok(ExitCode::SUCCESS)
}

/// The read model of that name, or an error that names those there are.
pub(super) fn find(name: &str) -> anyhow::Result<ReadModel> {
    ReadModel::find(name).ok_or_else(|| {
        let names: Vec<&str> = ReadModel::ALL.iter().map(|model| model.spec().name).collect();
        anyhow::anyhow!("there is no projector {name:?} (there are {})", names.join(", "))
    })
}

async fn rebuild_one(
    app: &App,
    name: &str,
    expected: Option<BTreeSet<Kind>>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let model = find(name)?;
    let progress = Progress::items(app.store.people().await?, "people folded");
    let done = |people| progress.set(people);
    let (pool, source, owner) = (&app.read_pool, app.source(), ids::new_id());
    let rebuilt =
        rebuild::rebuild_expecting(pool, &source, model, owner, expected.as_ref(), done).await;
    drop(progress);
    let rebuilt = match rebuilt {
        Err(ProjectorError::Differs { report, .. }) => {
            show(name, &report, Some(false), json)?;
            return Ok(ExitCode::FAILURE);
        }
        rebuilt => rebuilt?,
    };
    let comparison = &rebuilt.comparison;
    if json {
        report::json(&json!({
            "projector": name, "people": rebuilt.people, "rows": rebuilt.rows,
            "retired": rebuilt.retired.number, "live": rebuilt.live.number,
            "same": comparison.same, "different": comparison.differences.len(),
            "unsettled": comparison.unsettled,
        }))?;
    } else {
        if expected.is_some() {
            show(name, comparison, Some(true), false)?;
        }
        report::text(&format!(
            "{name}: generation {} is live, {} retired; {} rows of {} people, {} differ.\n",
            rebuilt.live.number,
            rebuilt.retired.number,
            rebuilt.rows,
            rebuilt.people,
            comparison.differences.len()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a rebuild with this program's formulas would change.
async fn diff(app: &App, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let model = find(name)?;
    let progress = Progress::items(app.store.people().await?, "people compared");
    let found =
        compare::verify(&app.read_pool, &app.source(), model, |done| progress.set(done)).await?;
    drop(progress);
    show(name, &found, None, json)?;
    Ok(if found.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what differs. Names rows and columns, never values.
fn show(name: &str, found: &Comparison, swapped: Option<bool>, json: bool) -> std::io::Result<()> {
    let samples = || {
        let named = |one: &'_ Difference| {
            let user = one.user.to_string();
            one.samples.clone().into_iter().map(move |sample| (user.clone(), sample))
        };
        found.differences.iter().flat_map(named).take(SAMPLES)
    };
    if json {
        let count = |kind: Kind| json!({ "people": found.people(kind), "rows": found.rows(kind) });
        let samples: Vec<_> =
            samples().map(|(user, row)| json!({ "user": user, "row": row })).collect();
        return report::json(&json!({
            "projector": name, "swapped": swapped,
            "people": {
                "equal": found.same, "different": found.differences.len(),
                "behind": found.unsettled, "parked": found.parked,
            },
            "rows": {
                "equal": found.equal_rows, "changed": count(Kind::Changed),
                "only_old": count(Kind::OnlyOld), "only_new": count(Kind::OnlyNew),
            },
            "samples": samples,
        }));
    }
    let mut table = Table::new(["rows", "#people", "#rows"]);
    table.row(["equal".to_owned(), found.same.to_string(), found.equal_rows.to_string()]);
    for kind in Kind::ALL {
        let (people, rows) = (found.people(kind), found.rows(kind));
        table.row([kind.as_str().to_owned(), people.to_string(), rows.to_string()]);
    }
    let mut text = table.render(Terminal::of_stdout());
    let mut rows = Table::new(["person", "row", "differs", "in columns"]);
    for (user, row) in samples() {
        rows.row([user, row.key, row.kind.as_str().to_owned(), row.columns.join(", ")]);
    }
    if !rows.is_empty() {
        text = format!("{text}\n{}", rows.render(Terminal::of_stdout()));
    }
    if found.unsettled + found.parked > 0 {
        text += &format!(
            "Not compared: {} people whose events are not all in the live rows, {} parked.\n",
            found.unsettled, found.parked
        );
    }
    if swapped == Some(false) {
        text += &format!(
            "{name}: rows differ in other ways than expected; the live generation stays.\n"
        );
    }
    report::text(&text)
}

async fn rollback(app: &App, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let model = find(name)?;
    let live = rebuild::rollback(&app.read_pool, &app.source(), model, ids::new_id()).await?;
    if json {
        report::json(&json!({
            "projector": name, "live": live.number, "compute_version": live.compute_version,
            "carried": live.is_current(),
        }))?;
    } else {
        let (number, version) = (live.number, live.compute_version);
        let mut text =
            format!("{name}: generation {number} with formulas v{version} is live again.\n");
        if !live.is_current() {
            text += &format!(
                "This program has other formulas: rows stay as they are, and answers say so, until \
                 a program with formulas v{version} runs.\n"
            );
        }
        report::text(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn prune(app: &App, days: f64, json: bool) -> anyhow::Result<ExitCode> {
    let mut dropped = 0;
    for model in ReadModel::ALL {
        let mut db = app.read_pool.acquire().await?;
        dropped += generation::prune(&mut db, model, days * SECONDS_OF_DAY).await?;
    }
    match json {
        true => report::json(&json!({ "dropped": dropped }))?,
        false => report::text(&format!("{dropped} generations dropped.\n"))?,
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
        true => report::json(&json!({ "parked": rows }))?,
        false if rows.is_empty() => report::text("Nobody is parked.\n")?,
        false => report::text(&table.render(Terminal::of_stdout()))?,
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
        report::json(&json!({ "projector": name, "freed": freed, "failed": failed }))?;
    } else {
        report::text(&format!("{name}: {freed} people freed, {failed} still parked.\n"))?;
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
        report::json(&json!({
            "projector": name, "user": user.to_string(), "skipped": position,
            "recorded_at": recorded_at, "done": done, "parked_at": parked_at,
        }))?;
    } else {
        let outcome = match parked_at {
            None => "the person goes on, with answers marked as partial".to_owned(),
            Some(at) if at == position => {
                "it takes effect once a projector has come that far".to_owned()
            }
            Some(at) => format!("the person is parked at position {at} now"),
        };
        report::text(&format!(
            "{name}: position {position} is skipped (recorded at {recorded_at}); {outcome}.\n"
        ))?;
    }
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
