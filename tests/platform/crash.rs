//! Whatever is killed, what was answered 2xx is there afterwards.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::served::{Client, Served, command, postmaster};
use crate::support::DataDir;

/// People who write at once.
const WRITERS: usize = 8;

/// A person who renames themselves again and again, and remembers the last name that was accepted.
struct Writer {
    client: Client,
    accepted: AtomicU64,
}

fn name_of(n: u64) -> String {
    format!("name {n}")
}

async fn writers(server: &Served, data_dir: &Path) -> Vec<Arc<Writer>> {
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let client = server.client(data_dir, &format!("writer-{n}"));
        assert_eq!(client.me().await.expect("an answer").status, 200);
        writers.push(Arc::new(Writer { client, accepted: AtomicU64::new(0) }));
    }
    writers
}

/// Writes until told to stop; refusals and broken connections are tried again.
fn write(writers: &[Arc<Writer>], stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
    let start = |writer: &Arc<Writer>| {
        let (writer, stop) = (Arc::clone(writer), Arc::clone(stop));
        tokio::spawn(async move {
            let mut n = writer.accepted.load(Ordering::SeqCst) + 1;
            while !stop.load(Ordering::SeqCst) {
                match writer.client.rename(&name_of(n)).await {
                    Some(answer) if answer.status == 200 => {
                        writer.accepted.store(n, Ordering::SeqCst);
                        n += 1;
                    }
                    Some(answer) => {
                        assert_eq!(answer.status, 503, "{}", answer.body);
                        assert!(answer.retry_after.is_some(), "503 says when to come back");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
    };
    writers.iter().map(start).collect()
}

async fn until_all_wrote(writers: &[Arc<Writer>], more: u64) {
    let before: Vec<u64> =
        writers.iter().map(|writer| writer.accepted.load(Ordering::SeqCst)).collect();
    let began = Instant::now();
    loop {
        let done = writers
            .iter()
            .zip(&before)
            .all(|(writer, before)| writer.accepted.load(Ordering::SeqCst) >= before + more);
        if done {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "writers do not get on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The name each person has now is the last accepted one, or the one that was on its way.
async fn nothing_accepted_is_lost(writers: &[Arc<Writer>], base: &str) {
    for writer in writers {
        let client = writer.client.at(base);
        let answer = client.me().await.expect("an answer");
        let name = answer.body["data"]["name"].as_str().unwrap_or_default().to_owned();
        let accepted = writer.accepted.load(Ordering::SeqCst);
        let possible = [name_of(accepted), name_of(accepted + 1)];
        assert!(possible.contains(&name), "{name} is not one of {possible:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_server_in_mid_write_loses_nothing_it_answered() {
    let directory = DataDir::new();
    let data_dir = directory.path();
    let server = Served::start(&data_dir);
    let people = writers(&server, &data_dir).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = write(&people, &stop);
    until_all_wrote(&people, 5).await;
    server.kill();
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("the writer stops");
    }

    let server = Served::start(&data_dir);
    nothing_accepted_is_lost(&people, &server.base).await;
    server.stop();
    the_log_is_whole(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_postgres_in_mid_write_loses_nothing_and_passes_by_itself() {
    let directory = DataDir::new();
    let data_dir = directory.path();
    let server = Served::start(&data_dir);
    let people = writers(&server, &data_dir).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = write(&people, &stop);
    for _ in 0..2 {
        until_all_wrote(&people, 5).await;
        kill(postmaster(&data_dir), Signal::SIGKILL).expect("Postgres is there");
    }
    // The same server serves on once Postgres is back, without anybody's help.
    until_all_wrote(&people, 5).await;
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("the writer stops");
    }
    nothing_accepted_is_lost(&people, &server.base).await;
    server.stop();
    the_log_is_whole(&data_dir);
}

/// Positions, leaves, state and read models, as an operator would check them.
fn the_log_is_whole(data_dir: &Path) {
    let output = command(data_dir).args(["verify", "all", "--json"]).output().expect("it runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
