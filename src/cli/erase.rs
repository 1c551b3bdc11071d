//! `tidemark erase`: destroys a person's keys, and with them everything they sealed.

use std::process::ExitCode;

use aggregates::{Metadata, Purpose, UserId};
use serde_json::json;
use uuid::Uuid;

use super::report;
use crate::app::App;
use crate::commands::subject::shred;
use crate::config::Config;
use crate::ids;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The person's internal id, as `log tail` shows it
    #[arg(value_name = "USER_ID")]
    user: Uuid,

    /// Erase one purpose only: identity, activity or health [default: all three]
    #[arg(long, value_name = "PURPOSE")]
    purpose: Option<String>,

    /// A code for the record, such as user_request or retention
    #[arg(long, value_name = "CODE", default_value = "user_request")]
    reason: String,

    /// Really do it: nothing brings the data back
    #[arg(long)]
    yes: bool,

    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let purposes = match &args.purpose {
        None => Purpose::ALL.to_vec(),
        Some(name) => vec![Purpose::parse(name).ok_or_else(|| {
            anyhow::anyhow!("there is no purpose {name:?} (try identity, activity or health)")
        })?],
    };
    if !args.yes {
        anyhow::bail!("an erasure cannot be undone (add --yes to do it)");
    }
    let app = App::beside(config).await?;
    let metadata = Metadata::system("erase", ids::new_id());
    let erased = shred(&app.store, UserId(args.user), &purposes, &args.reason, &metadata).await;
    app.stop().await;
    erased?;
    let names: Vec<&str> = purposes.iter().map(|purpose| purpose.as_str()).collect();
    if args.json {
        report::json(&json!({ "user": args.user, "erased": names }))?;
    } else {
        report::text(&format!(
            "Erased: {}. Backups of the key store end with their own retention.\n",
            names.join(", ")
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
