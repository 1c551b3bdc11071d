//! `tidemark import`: data from elsewhere, through the public API as a phone would send it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::output::{Progress, Table, Terminal};
use super::report;
use crate::auth::Role;
use crate::auth::dev::DevIssuer;
use crate::client::wire::{Batch, BatchResult, MAX_BATCH, Sample};
use crate::client::{ApiClient, Patience};
use crate::config::Config;
use crate::import::apple_health::{self, Export, ImportStats, ParsedRecord};
use crate::server::Server;

/// A long import outlasts the longest token only if it takes a month.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// The device an import stands for; the same in every run.
const DEVICE: Uuid = Uuid::from_u128(0x3d8c_52b0_7a1f_4e69_8c04_d6f1_29ab_7e35);

/// Counts of an answer that the summary tells already, or that do not add up over batches.
const TOLD: [&str; 4] = ["totalReceived", "successfulCount", "failedCount", "durationMs"];

#[derive(Debug, Subcommand)]
pub(super) enum Source {
    /// The export.xml of Apple Health
    AppleHealth(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file export.xml, unpacked
    #[arg(value_name = "EXPORT.XML")]
    file: PathBuf,

    /// Whose data it is: the name in a token of the development issuer
    #[arg(long, value_name = "NAME", required_unless_present = "token")]
    user: Option<String>,

    /// Server to send it to [default: the running one, else one started for the import]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Token to send it with [default: one of the development issuer]
    #[arg(long, env = "TIDEMARK_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What became of an export.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// What was read.
    read: ImportStats,
    batches: u64,
    /// Samples that the server holds now.
    accepted: u64,
    /// Samples that it refused, by code.
    refused: BTreeMap<String, u64>,
    /// Refused samples that may succeed when the import is run again.
    retryable: u64,
    /// Sums of the counts that the server answered with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    counts: BTreeMap<String, u64>,
    seconds: f64,
    /// Why the import ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Imports a file. Running it again changes nothing that is there already.
pub(super) async fn run(config: &Config, source: &Source) -> anyhow::Result<ExitCode> {
    let Source::AppleHealth(args) = source;
    // Before anything is started for a file that cannot be read.
    let total = fs::metadata(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?
        .len();
    let mut export = apple_health::open(&args.file)?;
    let first = export.next().transpose()?;
    let place = Place::find(config, args.url.as_deref()).await?;
    let client = client(config, args, &place.url);
    let summary = match client {
        Ok(client) => Ok(send(first, export, total, &client).await),
        Err(error) => Err(error),
    };
    place.leave().await?;
    let summary = summary?;
    if args.json {
        report::json(&summary)?;
    } else {
        report::text(&render(&summary, &args.file, Terminal::of_stdout()))?;
    }
    let done = summary.error.is_none() && summary.retryable == 0;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn client(config: &Config, args: &Args, url: &str) -> anyhow::Result<ApiClient> {
    let token = match &args.token {
        Some(token) => token.clone(),
        None => dev_token(config, args.user.as_deref().unwrap_or_default())?,
    };
    let mut client = ApiClient::new(url, token, DEVICE)?;
    // A server that limits requests says how long to wait, and an import has time.
    client.patience =
        Patience { attempts: 30, longest: Duration::from_secs(60), ..client.patience };
    Ok(client)
}

/// A token that the server of this data directory accepts.
fn dev_token(config: &Config, user: &str) -> anyhow::Result<String> {
    if config.identity.is_some() {
        anyhow::bail!("tokens come from your identity provider here (pass one with --token)");
    }
    let roles = BTreeSet::from([Role::User]);
    let issuer = DevIssuer::open(&config.data_dir).context("no token was given with --token")?;
    Ok(issuer.issue(user, &roles, TOKEN_TTL)?)
}

/// The server to talk to.
struct Place {
    url: String,
    /// One of our own, with the way to stop it.
    own: Option<(tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<anyhow::Result<()>>)>,
}

impl Place {
    async fn find(config: &Config, url: Option<&str>) -> anyhow::Result<Self> {
        if let Some(url) = url {
            return Ok(Self { url: url.to_owned(), own: None });
        }
        let configured = format!("http://{}", config.http.listen);
        if answers(&configured).await {
            return Ok(Self { url: configured, own: None });
        }
        let mut config = config.clone();
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.http.rate_limit = Some(0);
        let server = Server::start(&config).await?;
        let url = format!("http://{}", server.address);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = tokio::spawn(async move {
            server.run(async { stopped.await.unwrap_or_default() }).await?;
            Ok(())
        });
        Ok(Self { url, own: Some((stop, serving)) })
    }

    async fn leave(self) -> anyhow::Result<()> {
        let Some((stop, serving)) = self.own else { return Ok(()) };
        // A server that is gone already says why when it is joined.
        let _ = stop.send(());
        serving.await?
    }
}

async fn answers(url: &str) -> bool {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
    match client {
        Ok(client) => client.get(format!("{url}/livez")).send().await.is_ok(),
        Err(_) => false,
    }
}

/// Sends an export in batches that depend on nothing but the file, so that a second run sends the
/// same ones under the same ids.
async fn send<R: BufRead>(
    first: Option<ParsedRecord>,
    mut export: Export<R>,
    total: u64,
    client: &ApiClient,
) -> Summary {
    let mut first = first.map(Ok);
    let began = Instant::now();
    let bar = Progress::bytes(total, "import");
    let mut summary = Summary::default();
    let mut waiting: Vec<Sample> = Vec::with_capacity(MAX_BATCH);
    let outcome = loop {
        match first.take().or_else(|| export.next()) {
            Some(Ok(record)) => waiting.extend(record.samples),
            Some(Err(error)) => {
                // What was read before the fault is good.
                break summary.flush(&mut waiting, client, 1).await.and(Err(error.into()));
            }
            None => break summary.flush(&mut waiting, client, 1).await,
        }
        if let Err(error) = summary.flush(&mut waiting, client, MAX_BATCH).await {
            break Err(error);
        }
        bar.set(export.bytes_read());
    };
    summary.error = outcome.err().map(|error| report::one_line(&error));
    summary.read = export.stats().clone();
    summary.seconds = began.elapsed().as_secs_f64();
    summary
}

impl Summary {
    /// Sends full batches until fewer than `least` samples wait.
    async fn flush(
        &mut self,
        waiting: &mut Vec<Sample>,
        client: &ApiClient,
        least: usize,
    ) -> anyhow::Result<()> {
        while waiting.len() >= least {
            let rest = waiting.split_off(waiting.len().min(MAX_BATCH));
            let batch = Batch::of_content(std::mem::replace(waiting, rest), Vec::new());
            let result = client.batch_upsert(&batch).await.context("could not send a batch")?;
            self.count(&result);
        }
        Ok(())
    }

    fn count(&mut self, result: &BatchResult) {
        self.batches += 1;
        self.accepted += result.successful.len() as u64;
        for failed in &result.failed {
            *self.refused.entry(failed.error_code.clone()).or_default() += 1;
            self.retryable += u64::from(failed.retryable);
        }
        if let Value::Object(counts) = &result.metrics {
            for (name, value) in counts {
                if let Some(value) = value.as_u64().filter(|_| !TOLD.contains(&name.as_str())) {
                    *self.counts.entry(name.clone()).or_default() += value;
                }
            }
        }
    }
}

fn render(summary: &Summary, file: &Path, terminal: Terminal) -> String {
    let Summary { read, .. } = summary;
    let mut table = Table::new([&*file.display().to_string(), "#"]);
    let mut line = |what: &str, count: u64| {
        table.row([what.to_owned(), count.to_string()]);
    };
    line("records read", read.records);
    line("samples found in them", read.samples);
    line("batches sent", summary.batches);
    line("samples accepted", summary.accepted);
    for (name, count) in &summary.counts {
        line(&format!("  {name}"), *count);
    }
    for (code, count) in &summary.refused {
        line(&format!("refused: {code}"), *count);
    }
    for (reason, count) in &read.malformed {
        line(&format!("malformed: {reason}"), *count);
    }
    line("records of unknown types", read.unknown.values().sum());
    let mut text = table.render(terminal);
    let mut named = |title: &str, names: &BTreeMap<String, u64>| {
        if !names.is_empty() {
            let mut table = Table::new([title, "#records"]);
            for (name, count) in names {
                table.row([name.clone(), count.to_string()]);
            }
            text = format!("{text}\n{}", table.render(terminal));
        }
    };
    named("unknown type", &read.unknown);
    named("left out by design", &read.skipped);
    for problem in &read.problems {
        text.push_str(&format!("line {}: {}\n", problem.line, problem.reason));
    }
    text.push_str(&format!("\nTook {:.1} s.\n", summary.seconds));
    if summary.retryable > 0 {
        text.push_str("Run it again later: some refused samples may be accepted then.\n");
    }
    if let Some(error) = &summary.error {
        text.push_str(&format!("It ended early: {error}. Run it again to go on.\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_summed_by_code_and_by_count() {
        let result: BatchResult = serde_json::from_value(json!({
            "successful": [{"sourceId": "s", "sourceRecordId": "r", "startAt": "t", "serverId": "i"}],
            "failed": [
                {"sourceId": "s", "sourceRecordId": "r", "startAt": "t",
                 "errorCode": "INVALID_UNIT", "retryable": false, "error": ""},
                {"sourceId": "s", "sourceRecordId": "r", "startAt": "t",
                 "errorCode": "BUSY", "retryable": true, "error": ""},
            ],
            "deletions": null,
            "metrics": {"recorded": 1, "unchanged": 0, "durationMs": 9, "note": "text"},
        }))
        .unwrap();
        let mut summary = Summary::default();
        summary.count(&result);
        summary.count(&result);
        assert_eq!((summary.batches, summary.accepted, summary.retryable), (2, 2, 2));
        assert_eq!(
            summary.refused,
            [("BUSY".to_owned(), 2), ("INVALID_UNIT".to_owned(), 2)].into()
        );
        assert_eq!(
            summary.counts,
            [("recorded".to_owned(), 2), ("unchanged".to_owned(), 0)].into()
        );
    }
}
