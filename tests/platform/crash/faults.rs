//! What dies in a round, and how.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};
use tidemark::postgres::Cluster;

use crate::dice::Dice;
use crate::served::{Served, postmaster};
use crate::support::embedded_config;

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the server; Postgres lives on and is adopted.
    Server,
    /// `kill -9` of the postmaster; its backends are orphans.
    Postmaster,
    /// `kill -9` of one process under the postmaster, which then restarts all of them.
    PostgresProcess,
    /// A backend is told to end, as an administrator or a failover does it.
    Backends,
    /// The server and then the postmaster, as a power cut takes both.
    Both,
    /// The server, and its successor as soon as it serves.
    ServerTwice,
}

impl Fault {
    pub const ALL: [Self; 6] = [
        Self::Server,
        Self::Postmaster,
        Self::PostgresProcess,
        Self::Backends,
        Self::Both,
        Self::ServerTwice,
    ];

    /// The fault of a round: each once, then any.
    pub fn nth(round: u64, dice: &mut Dice) -> Self {
        let first = usize::try_from(round - 1).ok().and_then(|n| Self::ALL.get(n));
        *first.unwrap_or_else(|| dice.one_of(&Self::ALL))
    }

    /// Whether a server dies of it.
    fn hits_server(self) -> bool {
        matches!(self, Self::Server | Self::Both | Self::ServerTwice)
    }

    /// Strikes; a server that it takes is gone afterwards.
    pub async fn strike(self, data_dir: &Path, server: &mut Option<Served>, dice: &mut Dice) {
        if self.hits_server()
            && let Some(server) = server.take()
        {
            server.kill();
        }
        match self {
            Self::Server => {}
            Self::Postmaster | Self::Both => end(postmaster(data_dir)),
            Self::ServerTwice => {
                let successor = Served::start(data_dir);
                tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
                successor.kill();
            }
            Self::PostgresProcess => {
                let mut connection = connected(data_dir).await;
                let pids = processes(&mut connection, "true").await;
                end(Pid::from_raw(*dice.one_of(&pids)));
            }
            Self::Backends => {
                let mut connection = connected(data_dir).await;
                let backends = "application_name LIKE 'tidemark%'";
                let pids = processes(&mut connection, backends).await;
                for _ in 0..3 {
                    let pid = *dice.one_of(&pids);
                    let ended = sqlx::query("SELECT pg_terminate_backend($1)").bind(pid);
                    ended.execute(&mut connection).await.expect("told");
                }
            }
        }
    }
}

fn end(process: Pid) {
    kill(process, Signal::SIGKILL).expect("it was there");
}

/// A connection beside the server's, as soon as there is one to be had.
async fn connected(data_dir: &Path) -> PgConnection {
    let options = Cluster::beside(&embedded_config(data_dir), "tidemark").expect("a socket");
    loop {
        if let Ok(connection) = PgConnection::connect_with(&options).await {
            return connection;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends the leases that a dead server left, which would keep its successor's projectors waiting for
/// some seconds in each round.
pub async fn end_leases(data_dir: &Path) {
    end_all_leases(&mut connected(data_dir).await).await;
}

/// As if their time were over.
pub async fn end_all_leases(connection: &mut PgConnection) {
    let leases = "UPDATE projector.checkpoints SET lease_until = clock_timestamp()";
    sqlx::query(leases).execute(connection).await.expect("ended");
}

/// Processes of Postgres other than the one that answers.
async fn processes(connection: &mut PgConnection, which: &str) -> Vec<i32> {
    let query =
        format!("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {which}");
    sqlx::query_scalar(&query).fetch_all(connection).await.expect("a list of processes")
}
