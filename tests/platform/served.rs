//! A server as its users start it: the program itself, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::support::TestDatabase;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_tidemark");

pub struct Served {
    child: Child,
    pub base: String,
}

impl Served {
    /// Starts `tidemark serve` on a private cluster and waits until it says that it is up.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_as(command(data_dir))
    }

    /// As [`start`](Self::start), with a command that `change` has changed.
    pub fn start_with(data_dir: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut program = command(data_dir);
        change(&mut program);
        Self::start_as(program)
    }

    /// Starts this program as a server on a free port, and waits as [`start`](Self::start) does.
    pub fn start_as(mut program: Command) -> Self {
        let mut child = program
            .args(["serve", "--listen", "127.0.0.1:0", "--rate-limit", "0"])
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

    /// Ends it as a power cut would, without Postgres.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("it dies");
    }

    /// Asks it to stop and waits for that.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.child.wait().expect("it stops").success());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id"));
        kill(pid, signal).expect("the server is there");
    }

    /// A client for a person's token.
    pub fn client(&self, data_dir: &Path, name: &str) -> Client {
        let output = command(data_dir).args(["token", "--sub", name]).output().expect("a token");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let token = String::from_utf8(output.stdout).expect("text").trim().to_owned();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .expect("a client");
        Client { http, base: self.base.clone(), token, device: tidemark::ids::new_id() }
    }
}

/// A test that fails leaves no server behind.
impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with a clean environment and this data directory.
pub fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_remove("DATABASE_URL")
        .env_remove("TIDEMARK_KEYS_URL")
        .env("TIDEMARK_DATA_DIR", data_dir)
        .env("TIDEMARK_LOG", "warn")
        .stdin(Stdio::null());
    command
}

/// The program on databases that others may use as well.
pub fn command_on(data_dir: &Path, database: &TestDatabase) -> Command {
    let mut command = command(data_dir);
    command
        .env("DATABASE_URL", url(&database.log))
        .env("TIDEMARK_KEYS_URL", url(&database.keys))
        .env("TIDEMARK_MASTER_KEY", "5e".repeat(32));
    command
}

/// How to reach a database over its socket, as a URL.
pub fn url(options: &PgConnectOptions) -> String {
    let socket = options.get_socket().expect("a socket").to_string_lossy().replace('/', "%2F");
    let (user, name) = (options.get_username(), options.get_database().expect("a name"));
    format!("postgres://{user}@localhost:{}/{name}?host={socket}", options.get_port())
}

/// The process id of the cluster's postmaster.
pub fn postmaster(data_dir: &Path) -> Pid {
    let text = std::fs::read_to_string(data_dir.join("cluster/postmaster.pid")).expect("running");
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    Pid::from_raw(pid.expect("a process id"))
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub base: String,
    /// The phone the person calls from.
    pub device: Uuid,
    token: String,
}

/// What the server answered.
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: Value,
}

impl Client {
    /// The same person at another server.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// One request; none where the connection broke.
    pub async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let url = format!("{}{path}", self.base);
        let request = self.http.request(method, url).bearer_auth(&self.token);
        let mut request = request.header("x-device-id", self.device.to_string());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.json().await.ok()?;
        Some(Answer { status, retry_after, body })
    }

    /// The caller's account.
    pub async fn me(&self) -> Option<Answer> {
        self.send(reqwest::Method::GET, "/api/v1/users/me", None).await
    }

    /// A request that brings its own id.
    pub async fn request_as(&self, id: &str, path: &str, body: &Value) -> reqwest::Response {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let request = request.header("x-correlation-id", id).json(body);
        request.send().await.expect("an answer")
    }
}
