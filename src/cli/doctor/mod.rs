//! `tidemark doctor`: is everything as it must be, and if not, what to do.
//!
//! It changes nothing: no migration, no key, no row. What it cannot look at because something
//! before it failed, it leaves out.

mod database;
mod machine;

use std::process::ExitCode;

use serde::Serialize;

use super::output::{Table, Terminal};
use super::report;
use crate::config::Config;
use crate::postgres::Databases;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It works, and should be better.
    Warn,
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Ok, detail: detail.into(), hint: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { name, state: State::Warn, detail: detail.into(), hint: Some(hint) }
    }

    fn fail(name: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { name, state: State::Fail, detail: detail.into(), hint: Some(hint) }
    }
}

/// Looks at everything. Exits with 1 where anything fails.
pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let mut checks = machine::checks(config);
    match Databases::open_beside(&config.database).await {
        Ok(databases) => {
            checks.push(Check::ok("databases", "the log and the key store answer"));
            checks.extend(database::checks(config, &databases).await);
            databases.close().await;
        }
        Err(error) => {
            let detail = report::one_line(&error.into());
            let hint = "nothing else can be looked at until they answer";
            checks.push(Check::fail("databases", detail, hint));
        }
    }
    let ok = checks.iter().all(|check| check.state != State::Fail);
    if args.json {
        report::json(&serde_json::json!({ "checks": checks, "ok": ok }))?;
    } else {
        report::text(&render(&checks, Terminal::of_stdout()))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn render(checks: &[Check], terminal: Terminal) -> String {
    let mut table = Table::new(["", "what", "found", "what to do"]);
    for check in checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        table.row([state, check.name, &check.detail, check.hint.unwrap_or_default()]);
    }
    table.render(terminal)
}
