//! A full disk: writers are told to come back, the server says why, and goes on once there is room.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use tidemark::postgres::Cluster;
use tokio::sync::watch;

use crate::crash::people::{Person, Shared};
use crate::crash::{audit, begin, finish};
use crate::dice::Dice;
use crate::served::{Served, command};
use crate::support::{connect, embedded_config, open_to_all, skip};

/// Room for a cluster and a few segments of write-ahead log.
const SIZE: &str = "size=256m";
const PEOPLE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is none.
enum NoDisk {
    /// No machine that forbids it can be blamed for that.
    Forbidden(String),
    Failed(String),
}

/// A file system in memory with little room.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts it, or says why that is not possible here.
    fn mount() -> Result<Self, NoDisk> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        open_to_all(directory.path());
        let mut mount = Command::new("mount");
        mount.env("LC_ALL", "C");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tidemark-test"]).arg(directory.path());
        match mount.output() {
            Ok(output) if output.status.success() => {
                open_to_all(directory.path());
                Ok(Self(directory))
            }
            Ok(output) => {
                let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                // Root is not told apart: in most containers it may not mount either.
                let forbidden = ["ermission denied", "not permitted", "must be superuser"];
                Err(match forbidden.iter().any(|words| told.contains(words)) {
                    true => NoDisk::Forbidden(told),
                    false => NoDisk::Failed(told),
                })
            }
            Err(error) => Err(NoDisk::Failed(error.to_string())),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut filler =
            OpenOptions::new().create(true).append(true).open(self.filler()).expect("a file");
        for block in [vec![0; 1 << 20], vec![0; 1 << 12]] {
            while filler.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    fn free(&self) {
        let filler = File::create(self.filler()).expect("the file");
        filler.set_len(0).expect("emptied");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whatever still runs on it after a failed test keeps it until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Uses up the segments that Postgres keeps in reserve. It ends with the next, for which there is no
/// room.
async fn exhaust_write_ahead_log(options: &PgConnectOptions) {
    let mut connection = connect(options).await;
    let next = "SELECT pg_logical_emit_message(true, 'tidemark', 'x'), pg_switch_wal()";
    while sqlx::query(next).execute(&mut connection).await.is_ok() {}
}

/// The failed checks of `/readyz` by name; empty where it is ready.
async fn not_ready(base: &str) -> Vec<(String, String)> {
    let answer = reqwest::get(format!("{base}/readyz")).await.expect("the server answers");
    if answer.status() == 200 {
        return Vec::new();
    }
    let body: Value = answer.json().await.expect("JSON");
    let checks = body["error"]["details"]["checks"].as_array().expect("checks").clone();
    let text = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    let failed = checks.iter().filter(|check| check["ok"] == false);
    failed.map(|check| (text(check, "name"), text(check, "detail"))).collect()
}

async fn until_readiness(base: &str, wanted: impl Fn(&[(String, String)]) -> bool) {
    let began = Instant::now();
    loop {
        let found = not_ready(base).await;
        if wanted(&found) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_passes() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(NoDisk::Forbidden(reason)) => {
            eprintln!(
                "SKIPPED: nothing was shown about a full disk, as mounting is forbidden: {reason}"
            );
            return;
        }
        Err(NoDisk::Failed(reason)) => {
            return skip("a full disk, as tmpfs cannot be mounted here", &reason);
        }
    };
    let data_dir: &Path = &disk.0.path().join("data");
    let server = Served::start(data_dir);
    let bases = watch::Sender::new(vec![server.base.clone()]);
    let shared = Arc::new(Shared::new(bases.subscribe()));
    let mut dice = Dice::new(4);
    let people = (0..PEOPLE)
        .map(|n| server.client(data_dir, &format!("person-{n}")))
        .map(|client| Person::new(client, Dice::new(dice.next())))
        .collect::<Vec<_>>();
    let mut writing = begin(people.into_iter(), &shared);
    let log = Cluster::beside(&embedded_config(data_dir), "tidemark").expect("a socket");
    for also_the_log in [false, true] {
        shared.until_answered(3 * PEOPLE as u64).await;
        disk.fill();
        if also_the_log {
            exhaust_write_ahead_log(&log).await;
        }
        shared.until_refused(PEOPLE as u64).await;
        until_readiness(&server.base, |failed| {
            let named = |name: &str, why: &str| {
                failed.iter().any(|(failed, detail)| failed == name && detail.contains(why))
            };
            // Without room for its write-ahead log Postgres is down, and tries again and again.
            named("disk", if also_the_log { "" } else { "No space left" })
                && also_the_log == named("log", "")
        })
        .await;
        disk.free();
        shared.until_answered(3 * PEOPLE as u64).await;
        until_readiness(&server.base, <[_]>::is_empty).await;
        let people = finish(writing, &shared).await;
        audit::audit(&log, command(data_dir), &server.base, &people).await;
        writing = begin(people.into_iter(), &shared);
    }
    finish(writing, &shared).await;
    server.stop();
}
