//! `tidemark migrate`.

use std::process::ExitCode;

use super::report;
use crate::config::Config;
use crate::postgres::{self, Databases};

/// Applies what is missing of the schema.
pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let databases = Databases::open_beside(&config.database).await?;
    let migrated = postgres::migrate(&databases.log).await;
    databases.close().await;
    migrated?;
    report::text(&format!("The schema is up to date ({}).\n", postgres::migrations_digest()))?;
    Ok(ExitCode::SUCCESS)
}
