//! `tidemark replay`: read models as they were.

use std::process::ExitCode;
use std::str::FromStr;

use aggregates::entity::time::parse_instant;
use anyhow::bail;
use serde_json::json;

use super::output::{Progress, Table, Terminal};
use super::{projectors, report};
use crate::app::App;
use crate::clock;
use crate::config::Config;
use crate::projector::replay::{Filled, Request, SchemaName, replay};
use crate::read_models::ReadModel;
use crate::store::{Filter, Store, read};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Last event that counts: a position, or a time such as 2026-01-02T10:00:00Z
    #[arg(long, value_name = "POSITION|TIME")]
    as_of: AsOf,

    /// Schema to make for the rows, beside those of the server
    #[arg(long, value_name = "SCHEMA")]
    into: String,

    /// Names of projectors, as `projectors list` shows them; all of them by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    models: Vec<String>,

    /// Replace a finished replay that is there already
    #[arg(long)]
    replace: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AsOf {
    Position(i64),
    /// In ms since the Unix epoch.
    Time(i64),
}

impl FromStr for AsOf {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(position) = text.parse() {
            return if position >= 0 { Ok(Self::Position(position)) } else { Err("is negative") };
        }
        parse_instant(text).map(Self::Time).ok_or("neither a position nor a time")
    }
}

/// Folds the log into a new schema. Exits with 1 where people had to be left out.
pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let into = SchemaName::parse(&args.into)?;
    let models = models(&args.models)?;
    let app = App::beside(config).await?;
    let result = fill(&app, args, into, models).await;
    app.stop().await;
    result
}

fn models(names: &[String]) -> anyhow::Result<Vec<ReadModel>> {
    if names.is_empty() {
        return Ok(ReadModel::ALL.to_vec());
    }
    let mut models = Vec::new();
    for name in names {
        let model = projectors::find(name)?;
        if !models.contains(&model) {
            models.push(model);
        }
    }
    Ok(models)
}

/// The position that is meant.
async fn resolve(store: &Store, as_of: AsOf) -> anyhow::Result<i64> {
    match as_of {
        AsOf::Position(position) => Ok(position),
        AsOf::Time(at_ms) if at_ms > clock::now_ms() => bail!("that time has not come yet"),
        AsOf::Time(at_ms) => Ok(store.position_at(at_ms).await?),
    }
}

async fn fill(
    app: &App,
    args: &Args,
    into: SchemaName,
    models: Vec<ReadModel>,
) -> anyhow::Result<ExitCode> {
    let position = resolve(&app.store, args.as_of).await?;
    let there =
        read::raw_page(app.store.pool(), position - 1, position, 1, &Filter::default()).await?;
    let committed_ms = there.first().map(|event| event.committed_ms);
    let log_id = app.store.head().await?.log_id;
    let request = Request { into, models, log_id, position, committed_ms, replace: args.replace };
    let progress = Progress::items(app.store.people().await?, "people folded");
    let done = |people| progress.set(people);
    let filled = replay(&app.read_pool, &app.source(), &request, done).await?;
    drop(progress);
    if args.json {
        report::json(&json!({
            "schema": request.into.as_str(), "log_id": log_id, "position": position,
            "committed_at": committed_ms.map(report::time), "models": filled,
        }))?;
    } else {
        report::text(&render(&request, &filled, Terminal::of_stdout()))?;
    }
    let whole = filled.iter().all(|one| one.unreadable == 0);
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn render(request: &Request, filled: &[Filled], terminal: Terminal) -> String {
    let mut table = Table::new(["model", "#people", "#rows", "#erased", "#unreadable"]);
    for one in filled {
        table.row([
            one.model.to_owned(),
            one.people.to_string(),
            one.rows.to_string(),
            one.erased.to_string(),
            one.unreadable.to_string(),
        ]);
    }
    let at = request.committed_ms.map(|ms| format!(" ({})", report::time(ms))).unwrap_or_default();
    let (schema, position) = (request.into.as_str(), request.position);
    format!("{}\nschema {schema}: the log up to position {position}{at}\n", table.render(terminal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_of_is_a_position_or_a_time() {
        assert_eq!("17".parse(), Ok(AsOf::Position(17)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(AsOf::Time(1000)));
        assert!("-1".parse::<AsOf>().is_err());
        assert!("yesterday".parse::<AsOf>().is_err());
    }
}
