//! `tidemark token`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use super::report;
use crate::auth::Role;
use crate::auth::dev::DevIssuer;
use crate::config::Config;

/// Longest validity in minutes: 30 days.
const MAX_TTL: u64 = 30 * 24 * 60;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whom the token is for: any name; the first request with it creates the account
    #[arg(long, value_name = "NAME", value_parser = name)]
    sub: String,

    /// Roles beyond `user`: analyst, auditor, admin
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,

    /// Validity in minutes, at most 30 days
    #[arg(long, value_name = "MINUTES", default_value_t = 24 * 60,
          value_parser = clap::value_parser!(u64).range(1..=MAX_TTL))]
    ttl: u64,

    /// Print the token in a JSON object
    #[arg(long)]
    json: bool,
}

fn name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("expected a name") } else { Ok(text.to_owned()) }
}

/// Prints a token of the development issuer.
pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    if config.identity.is_some() {
        anyhow::bail!("tokens come from your identity provider here (TIDEMARK_JWKS is set)");
    }
    let mut roles = BTreeSet::from([Role::User]);
    for name in &args.roles {
        let role = Role::find(name).ok_or_else(|| {
            anyhow::anyhow!("there is no role {name:?} (try analyst, auditor or admin)")
        })?;
        roles.insert(role);
    }
    if roles.len() > 1 {
        tracing::warn!(subject = args.sub, ?roles, "a token with elevated roles was issued");
    }
    if !config.data_dir.is_dir() {
        anyhow::bail!(
            "there is no {} yet (start `tidemark serve` first, or set TIDEMARK_DATA_DIR)",
            config.data_dir.display()
        );
    }
    let issuer = DevIssuer::open(&config.data_dir)?;
    let token = issuer.issue(&args.sub, &roles, Duration::from_secs(args.ttl * 60))?;
    if args.json {
        report::json(&serde_json::json!({ "token": token }))?;
    } else {
        report::text(&format!("{token}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
