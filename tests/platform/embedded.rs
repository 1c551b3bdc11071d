//! The embedded cluster: it starts anywhere, keeps what was committed, and leaves others alone.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tidemark::{
    config::DatabaseConfig,
    postgres::{Cluster, Databases, EmbeddedError},
};
use tokio::time::timeout;

use crate::support::{self, DataDir, connect};

/// A user without any rights, to stand for a normal one when the tests run as root.
const NOBODY: u32 = 65_534;
/// How long the slowest honest start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn write(options: &PgConnectOptions) {
    let mut connection = connect(options).await;
    let statement = "CREATE TABLE IF NOT EXISTS kept (id serial); INSERT INTO kept DEFAULT VALUES";
    sqlx::raw_sql(statement).execute(&mut connection).await.expect("written");
}

async fn rows(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(connection).await
}

/// Connects as soon as the server answers again.
async fn reconnect(options: &PgConnectOptions) -> PgConnection {
    let attempts = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            if let Ok(mut connection) = PgConnection::connect_with(options).await
                && connection.ping().await.is_ok()
            {
                return connection;
            }
        }
    };
    timeout(PATIENCE, attempts).await.expect("the server answers again")
}

#[tokio::test]
async fn data_survives_a_stop() {
    let directory = DataDir::new();
    let config = DatabaseConfig::Embedded(directory.config());
    for round in 1..=2 {
        let databases = Databases::open(&config).await.expect("open");
        assert!(databases.is_embedded());
        write(&databases.log).await;
        assert_eq!(rows(&mut connect(&databases.log).await).await.expect("rows"), round);
        connect(&databases.keys).await.ping().await.expect("the key store answers");
        databases.close().await;
        assert!(!directory.path().join("cluster/postmaster.pid").exists());
    }
}

#[tokio::test]
async fn commits_are_durable_and_nothing_listens_on_the_network() {
    let own = support::own_cluster().await;
    let mut connection = connect(&own.cluster.connect_options("postgres")).await;
    for (setting, expected) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("timezone", "UTC"),
    ] {
        let value: String =
            sqlx::query_scalar("SELECT setting FROM pg_settings WHERE lower(name) = $1")
                .bind(setting)
                .fetch_one(&mut connection)
                .await
                .expect(setting);
        assert_eq!(value, expected, "{setting}");
    }
    let collation: String =
        sqlx::query_scalar("SELECT datcollate FROM pg_database WHERE datname = 'template1'")
            .fetch_one(&mut connection)
            .await
            .expect("a collation");
    assert_eq!(collation, "C");
    let socket_dir = own.directory.path().join("run");
    let mode = fs::metadata(socket_dir).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(connection);
    own.cluster.stop().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let own = support::own_cluster().await;
    let error = Cluster::start(&own.directory.config()).await.expect_err("refused");
    assert!(matches!(error, EmbeddedError::Locked { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    assert!(message.contains("TIDEMARK_DATA_DIR"), "{message}");
    // The first one is none the worse for it.
    connect(&own.cluster.connect_options("postgres")).await.ping().await.expect("alive");
    own.cluster.stop().await;
}

#[tokio::test]
async fn a_killed_postmaster_is_restarted_and_keeps_its_commits() {
    let own = support::own_cluster().await;
    let options = own.cluster.connect_options("postgres");
    write(&options).await;
    let pool = support::pool_of(&options);
    sqlx::query("SELECT 1").execute(&pool).await.expect("the pool works");

    let killed = own.cluster.postmaster_pid().expect("running");
    kill(Pid::from_raw(killed), Signal::SIGKILL).expect("killed");
    let mut connection = reconnect_after(&own.cluster, killed, &options).await;
    assert_eq!(rows(&mut connection).await.expect("rows"), 1);

    // The pool's dead connections fail once each at most; then it is whole again.
    let recovery = async { while sqlx::query("SELECT 1").execute(&pool).await.is_err() {} };
    timeout(PATIENCE, recovery).await.expect("the pool recovers");
    pool.close().await;
    own.cluster.stop().await;
}

/// Connects to the successor of the killed postmaster.
async fn reconnect_after(
    cluster: &Cluster,
    killed: i32,
    options: &PgConnectOptions,
) -> PgConnection {
    let successor = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        while cluster.postmaster_pid().is_none_or(|pid| pid == killed) {
            every.tick().await;
        }
    };
    timeout(PATIENCE, successor).await.expect("a successor");
    reconnect(options).await
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let directory = DataDir::new();
    let deep = directory.path().join("d".repeat(60)).join("e".repeat(60));
    let cluster = Cluster::start(&support::embedded_config(&deep)).await.expect("started");
    let options = cluster.connect_options("postgres");
    write(&options).await;
    let socket_dir = options.get_socket().expect("a socket").clone();
    assert!(!socket_dir.starts_with(&deep), "{}", socket_dir.display());
    let mode = fs::metadata(&socket_dir).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    cluster.stop().await;
    fs::remove_dir_all(socket_dir).expect("removed");
}

#[tokio::test]
async fn an_interrupted_initialisation_is_begun_again() {
    let directory = DataDir::new();
    let unfinished = directory.path().join("cluster.new");
    fs::create_dir_all(&unfinished).expect("made");
    support::open_to_all(&directory.path());
    fs::write(unfinished.join("PG_VERSION"), "15\n").expect("written");
    let cluster = Cluster::start(&directory.config()).await.expect("started");
    write(&cluster.connect_options("postgres")).await;
    cluster.stop().await;
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn a_pid_file_of_a_stranger_is_seen_through() {
    let directory = DataDir::new();
    let first = Cluster::start(&directory.config()).await.expect("started");
    write(&first.connect_options("postgres")).await;
    first.stop().await;

    // As after a power cut, when the number belongs to somebody else since.
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a stranger");
    let cluster_dir = directory.path().join("cluster");
    let pid_file = cluster_dir.join("postmaster.pid");
    let text = format!("{}\n{}\n1\n5432\n\n\n\n", stranger.id(), cluster_dir.display());
    fs::write(&pid_file, text).expect("written");
    let socket_lock = directory.path().join("run/.s.PGSQL.5432.lock");
    fs::write(&socket_lock, format!("{}\n", stranger.id())).expect("written");

    let second = Cluster::start(&directory.config()).await.expect("started again");
    assert_eq!(
        rows(&mut connect(&second.connect_options("postgres")).await).await.expect("rows"),
        1
    );
    second.stop().await;
    assert!(stranger.try_wait().expect("a status").is_none(), "the stranger was left alone");
    drop(stranger.stdin.take());
    stranger.wait().expect("the stranger ends");
}

#[tokio::test]
async fn a_directory_that_postgres_may_not_enter_is_named() {
    if !geteuid().is_root() {
        return;
    }
    let closed = tempfile::tempdir().expect("a directory");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("permissions");
    let config = support::embedded_config(closed.path().join("data"));
    let error = Cluster::start(&config).await.expect_err("refused").to_string();
    assert!(error.contains(&closed.path().display().to_string()), "{error}");
}

#[tokio::test]
async fn a_killed_server_leaves_a_postmaster_that_the_next_one_adopts() {
    let directory = DataDir::new();
    killed_server_is_succeeded(&directory, Supervisor::start(&directory.path(), None)).await;
}

#[tokio::test]
async fn it_runs_as_a_normal_user() {
    if !geteuid().is_root() {
        return; // Then every other test shows it.
    }
    let directory = DataDir::new();
    let mut supervisor = Supervisor::start(&directory.path(), Some(NOBODY));
    let owner =
        |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).expect("metadata"));
    assert_eq!(owner(&directory.path().join("cluster")), NOBODY);
    supervisor.stop();
}

async fn killed_server_is_succeeded(directory: &DataDir, mut supervisor: Supervisor) {
    let left_running = supervisor.postmaster_pid;
    supervisor.kill();

    let cluster = Cluster::start(&directory.config()).await.expect("adopted");
    assert_eq!(cluster.postmaster_pid(), Some(left_running), "the same postmaster");
    let options = cluster.connect_options("postgres");
    assert_eq!(rows(&mut connect(&options).await).await.expect("rows"), 1);

    // An adopted one is watched like a child of our own.
    kill(Pid::from_raw(left_running), Signal::SIGKILL).expect("killed");
    let mut connection = reconnect_after(&cluster, left_running, &options).await;
    assert_eq!(rows(&mut connection).await.expect("rows"), 1);
    cluster.stop().await;
}

const SUPERVISED_DIRECTORY: &str = "TIDEMARK_TEST_SUPERVISED_DIRECTORY";

/// Another process with a cluster: this test binary, told to run nothing but [`supervised_process`].
struct Supervisor {
    process: Child,
    postmaster_pid: i32,
    /// Kept open, because the test harness in there fails if it cannot print.
    _output: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Returns when the cluster runs and holds one row.
    fn start(data_dir: &Path, user: Option<u32>) -> Self {
        let own = std::env::current_exe().expect("this binary");
        let parent = data_dir.parent().expect("a parent");
        // Another user may not be allowed where the build puts its output.
        let binary = parent.join("supervisor");
        fs::copy(own, &binary).expect("copied");
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("permissions");
        let mut command = Command::new(&binary);
        command
            .args(["--exact", "embedded::supervised_process", "--nocapture"])
            .env(SUPERVISED_DIRECTORY, data_dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(user) = user {
            fs::set_permissions(parent, fs::Permissions::from_mode(0o777)).expect("permissions");
            command.uid(user).gid(user).env_remove("XDG_RUNTIME_DIR");
        }
        let mut process = command.spawn().expect("a process");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let postmaster_pid = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("postmaster ")?.1.trim().parse().ok())
            .expect("the process says which postmaster it runs");
        Self { process, postmaster_pid, _output: output }
    }

    fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
    }

    /// Lets it end in good order.
    fn stop(&mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().expect("gone");
        assert!(status.success(), "{status}");
    }
}

/// Not a test: the other process. It runs a cluster until its input ends.
#[tokio::test]
async fn supervised_process() {
    let Some(data_dir) = std::env::var_os(SUPERVISED_DIRECTORY) else { return };
    let cluster = Cluster::start(&support::embedded_config(data_dir)).await.expect("started");
    write(&cluster.connect_options("postgres")).await;
    let pid = cluster.postmaster_pid().expect("running");
    println!("postmaster {pid}");
    std::io::stdout().flush().expect("written");
    let input = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    input.await.expect("the input ends");
    cluster.stop().await;
}
