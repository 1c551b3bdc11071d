//! `tidemark serve`.

use std::process::ExitCode;

use crate::config::Config;
use crate::server::{Server, stop_signal};

/// Serves until it is told to stop.
pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let server = Server::start(config).await?;
    let base = format!("http://{}", server.address);
    println!("Tidemark is up.");
    println!("  API      {base}/api/v1");
    println!("  OpenAPI  {base}/openapi.json");
    println!("  health   {base}/readyz   metrics   {base}/metrics");
    if config.identity.is_none() {
        println!("  a token  tidemark token --sub you");
    }
    server.run(stop_signal()).await?;
    Ok(ExitCode::SUCCESS)
}
