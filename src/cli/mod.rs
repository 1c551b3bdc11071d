//! The command line: one file a command.
//!
//! Answers go to stdout, everything else to stderr. An error is one line with a hint; its causes
//! follow on the same line. Commands that report take `--json`.

mod catalogue;
mod demo;
pub mod dev;
mod doctor;
mod erase;
mod import;
mod keys;
mod log;
mod migrate;
mod operator;
pub mod output;
mod projectors;
mod replay;
mod report;
mod serve;
mod status;
mod token;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigArgs, DEFAULT_FILTER};
use crate::telemetry;

#[derive(Debug, Parser)]
#[command(name = "tidemark", version, about, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve,
    /// Show that it works: a month of three people, two phones, an import; then serve on
    Demo(demo::Args),
    /// Bring the database schema up to date, and do nothing else
    Migrate,
    /// Look after the read models
    #[command(subcommand)]
    Projectors(projectors::Action),
    /// Read models as they were at a position or a time, into a schema of their own
    Replay(replay::Args),
    /// Issue a token of the development issuer
    Token(token::Args),
    /// How the system is: the log's head, projectors, key store, server
    Status(status::Args),
    /// Look into the log
    Log(log::Args),
    /// Bring in data from elsewhere
    #[command(subcommand)]
    Import(import::Source),
    /// Look whether everything is as it must be, and say what to do
    Doctor(doctor::Args),
    /// Check what is stored against what it follows from
    Verify(verify::Args),
    /// Read and change the public catalogue of products
    Catalogue(catalogue::Args),
    /// Look after the keys that protect all others
    #[command(subcommand)]
    Keys(keys::Action),
    /// Destroy a person's keys, and with them everything they sealed
    Erase(erase::Args),
    /// Tools for working on Tidemark itself
    #[command(subcommand, hide = true)]
    Dev(dev::Action),
}

/// Parses the arguments, runs the command, and reports its failure.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    let mut config = match cli.config.resolve() {
        Ok(config) => config,
        Err(error) => return failed(&error.into()),
    };
    if matches!(cli.command, Command::Demo(_)) && config.log.filter == DEFAULT_FILTER {
        // The demo speaks for itself; requests would drown it.
        config.log.filter = "error".to_owned();
    }
    telemetry::init(&config.log);
    match dispatch(cli.command, &config).await {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

async fn dispatch(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve => serve::run(config).await,
        Command::Demo(args) => demo::run(config, &args).await,
        Command::Migrate => migrate::run(config).await,
        Command::Projectors(action) => projectors::run(config, &action).await,
        Command::Replay(args) => replay::run(config, &args).await,
        Command::Token(args) => token::run(config, &args),
        Command::Status(args) => status::run(config, &args).await,
        Command::Log(args) => log::run(config, &args).await,
        Command::Import(source) => import::run(config, &source).await,
        Command::Doctor(args) => doctor::run(config, &args).await,
        Command::Verify(args) => verify::run(config, &args).await,
        Command::Catalogue(args) => catalogue::run(config, &args).await,
        Command::Keys(action) => keys::run(config, &action).await,
        Command::Erase(args) => erase::run(config, &args).await,
        Command::Dev(action) => dev::run(&action, &dev::derived()?),
    }
}

/// One line: what was attempted, why it failed, and what to do.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("tidemark: {}", report::one_line(error));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_parses_as_documented() {
        let id = "99999999-8888-4777-8666-555555555555";
        let lines = [
            "tidemark status --json".to_owned(),
            "tidemark doctor --json".to_owned(),
            "tidemark log tail -n 5 --after 3 --type session.started --type x --json".to_owned(),
            format!("tidemark log tail --follow --stream-type session --user {id}"),
            "tidemark log show 7 --reveal --reason because".to_owned(),
            format!("tidemark log stream session {id} --after 2 --limit 9"),
            "tidemark verify log --from 9 --faults 3 --json".to_owned(),
            "tidemark verify --json all".to_owned(),
            "tidemark replay --as-of 17 --into march --models entities,health-rollup".to_owned(),
            "tidemark replay --as-of 2026-03-31T22:00:00Z --into march --replace --json".to_owned(),
            "tidemark import apple-health export.xml --user ada --json".to_owned(),
            "tidemark import apple-health e.xml --url http://h:1 --token t".to_owned(),
            "tidemark keys status --json".to_owned(),
            "tidemark keys rotate --batch 50 --json".to_owned(),
            "tidemark keys rotate-lookup --json".to_owned(),
            "tidemark catalogue define --set name=x --json".to_owned(),
            format!("tidemark catalogue update {id} {{\"name\":\"x\"}}"),
            format!("tidemark catalogue withdraw {id}"),
            "tidemark catalogue --json list --withdrawn".to_owned(),
        ];
        for line in lines {
            assert!(parses(&line), "{line}");
        }
    }

    #[test]
    fn nothing_is_revealed_without_a_reason() {
        assert!(!parses("tidemark log show 7 --reveal"));
        assert!(!parses("tidemark log show 7 --reason because"));
        assert!(!parses("tidemark log tail --follow --reveal --reason because"));
        assert!(!parses("tidemark log show 0"));
        assert!(!parses("tidemark import apple-health export.xml"), "whose data is it?");
    }
}
