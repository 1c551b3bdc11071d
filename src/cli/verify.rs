//! `tidemark verify`.

use std::process::ExitCode;

use clap::Subcommand;
use serde::{Serialize, Serializer};

use super::output::{Progress, Table, Terminal};
use super::report;
use crate::app::App;
use crate::commands::verify::Faults;
use crate::commands::verify::bookkeeping::verify_bookkeeping;
use crate::commands::verify::log::verify_log;
use crate::commands::verify::people::verify_people;
use crate::config::Config;
use crate::projector::compare::{self, Kind};
use crate::read_models::ReadModel;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,

    /// Name this many faults; all are counted
    #[arg(long, value_name = "N", default_value_t = 20, global = true)]
    faults: u16,

    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// The log against itself, and the marks kept beside it: hashes, order, heads, receipts
    Log {
        /// Check hashes and times from this position on only
        #[arg(long, value_name = "POSITION", default_value_t = 1,
              value_parser = clap::value_parser!(i64).range(1..))]
        from: i64,
    },
    /// Stored states and samples against the folds of the log
    State,
    /// Read models against the log
    Projections,
    /// All of it
    All,
}

/// What one part of a verification found.
#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    ok: bool,
    /// How much was looked at, by what it is.
    #[serde(serialize_with = "as_map")]
    checked: Vec<(&'static str, u64)>,
    #[serde(flatten)]
    faults: Faults,
}

fn as_map<S: Serializer>(counts: &[(&'static str, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().copied())
}

/// Checks what is stored. Exits with 1 where anything is at fault.
pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let app = App::beside(config).await?;
    let parts = check(&app, args).await;
    app.stop().await;
    let parts = parts?;
    let ok = parts.iter().all(|part| part.ok);
    if args.json {
        report::json(&serde_json::json!({ "parts": parts, "ok": ok }))?;
    } else {
        report::text(&render(&parts, Terminal::of_stdout()))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(app: &App, args: &Args) -> anyhow::Result<Vec<Part>> {
    let keep = usize::from(args.faults);
    Ok(match args.command {
        Command::Log { from } => log(app, from, keep).await?,
        Command::State => vec![state(app, keep).await?],
        Command::Projections => projections(app, keep).await?,
        Command::All => {
            let mut parts = log(app, 1, keep).await?;
            parts.push(state(app, keep).await?);
            parts.extend(projections(app, keep).await?);
            parts
        }
    })
}

async fn log(app: &App, from: i64, keep: usize) -> anyhow::Result<Vec<Part>> {
    let head = app.store.head().await?.position;
    let work = u64::try_from((head - from + 1).max(0) + head).unwrap_or_default();
    let bar = Progress::items(work, "log");
    let report = verify_log(&app.store, from, keep, |done| bar.advance(done)).await?;
    drop(bar);
    let beside = verify_bookkeeping(&app.store, keep).await?;
    let checked = vec![("events", report.events), ("streams", report.streams)];
    Ok(vec![
        Part::new("log", checked, report.faults),
        Part::new("bookkeeping", vec![("checks", beside.checks)], beside.faults),
    ])
}

async fn state(app: &App, keep: usize) -> anyhow::Result<Part> {
    let bar = Progress::items(app.store.people().await?, "people");
    let people = verify_people(&app.store, keep, |done| bar.set(done)).await?;
    drop(bar);
    Ok(Part::new("state", vec![("people", people.people)], people.faults))
}

async fn projections(app: &App, keep: usize) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for model in ReadModel::ALL {
        let name = model.spec().name;
        let bar = Progress::items(app.store.people().await?, name);
        let compared =
            compare::verify(&app.read_pool, &app.source(), model, |done| bar.set(done)).await?;
        drop(bar);
        let mut faults = Faults::keeping(keep);
        for one in &compared.differences {
            let rows = |kind| one.rows.get(&kind).copied().unwrap_or_default();
            let detail = format!(
                "{}: {} rows say something else than the log, {} it does not give, {} are missing",
                one.user,
                rows(Kind::Changed),
                rows(Kind::OnlyOld),
                rows(Kind::OnlyNew)
            );
            faults.add(None, "rows", detail);
        }
        if compared.parked > 0 {
            let detail =
                format!("{} people wait (see `tidemark projectors list`)", compared.parked);
            faults.add(None, "parked", detail);
        }
        // People whose events are still arriving are no fault: there is nothing to compare yet.
        let equal = vec![("people_equal", compared.same), ("behind", compared.unsettled)];
        parts.push(Part::new(name, equal, faults));
    }
    Ok(parts)
}

impl Part {
    fn new(name: &'static str, checked: Vec<(&'static str, u64)>, faults: Faults) -> Self {
        Self { name, ok: faults.is_empty(), checked, faults }
    }
}

fn render(parts: &[Part], terminal: Terminal) -> String {
    let mut table = Table::new(["part", "checked", "#faults"]);
    for part in parts {
        let checked: Vec<String> = part
            .checked
            .iter()
            .map(|(what, count)| format!("{count} {}", what.replace('_', " ")))
            .collect();
        table.row([part.name.to_owned(), checked.join(", "), part.faults.count.to_string()]);
    }
    let mut text = table.render(terminal);
    let mut faults = Table::new(["part", "#position", "fault", "what is wrong"]);
    for part in parts {
        for fault in &part.faults.first {
            faults.row([
                part.name.to_owned(),
                fault.position.map(|at| at.to_string()).unwrap_or_default(),
                fault.kind.to_owned(),
                fault.detail.clone(),
            ]);
        }
    }
    if !faults.is_empty() {
        text = format!("{text}\n{}", faults.render(terminal));
    }
    text
}
