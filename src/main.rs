//! The `tidemark` program.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tidemark::cli::run().await
}
