//! A server as its users start it: the program itself, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub struct Served {
    child: Child,
    pub base: String,
}

impl Served {
    /// Starts `tidemark serve` on a free port and waits until it says that it is up.
    pub fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidemark"))
            .env_remove("DATABASE_URL")
            .env_remove("TIDEMARK_KEYS_URL")
            .env("TIDEMARK_DATA_DIR", data_dir)
            .env("TIDEMARK_LOG", "error")
            .args(["serve", "--listen", "127.0.0.1:0", "--rate-limit", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let base = lines
            .map_while(Result::ok)
            .find_map(|line| {
                let url = line.trim().strip_prefix("API")?.trim();
                url.strip_suffix("/api/v1").map(str::to_owned)
            })
            .expect("the server says where it listens");
        Self { child, base }
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self, client: &reqwest::Client) {
        let url = format!("{}/readyz", self.base);
        loop {
            match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Resident memory in MB, Postgres apart.
    pub fn resident_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("a process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
        let kilobytes: f64 =
            line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
        kilobytes / 1024.0
    }

    /// Stops it, and its Postgres with it.
    pub fn stop(mut self) {
        assert!(self.end().expect("it stops").success());
    }

    fn end(&mut self) -> std::io::Result<ExitStatus> {
        if let Ok(pid) = self.child.id().try_into() {
            // Where it is gone already, the wait says so.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        self.child.wait()
    }
}

/// A bench that fails leaves no server behind.
impl Drop for Served {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.end();
        }
    }
}
