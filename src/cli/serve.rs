//! `tidemark serve`.

use std::io::Write;
use std::process::ExitCode;

use crate::config::Config;
use crate::server::{Server, stop_signal};

/// Serves until it is told to stop.
pub(super) async fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let server = Server::start(config).await?;
    let base = format!("http://{}", server.address);
    // Whoever started us may have stopped listening; that is no reason not to serve.
    let _ = announce(&base, config.identity.is_none());
    server.run(stop_signal()).await?;
    Ok(ExitCode::SUCCESS)
}

fn announce(base: &str, development: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Tidemark is up.")?;
    writeln!(out, "  API      {base}/api/v1")?;
    writeln!(out, "  OpenAPI  {base}/openapi.json")?;
    writeln!(out, "  health   {base}/readyz   metrics   {base}/metrics")?;
    if development {
        writeln!(out, "  a token  tidemark token --sub you")?;
    }
    out.flush()
}
