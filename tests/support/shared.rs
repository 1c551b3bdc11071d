//! The shared cluster and its databases.
//!
//! A file lock orders the processes that start it. Databases are copies of a template that is named
//! after its migrations, so that a new migration makes a new template and nothing stale is used.

use std::{
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{sys::signal::kill, unistd::Pid};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tidemark::postgres::{Cluster, connect::quote_identifier, migrate, migrations_digest};
use tokio::sync::OnceCell;

use super::{embedded_config, open_to_all, pool_of};

/// The cluster ends itself when nothing has used it for so many minutes.
const IDLE_MINUTES: u32 = 15;

/// A database of one test. It is dropped some time after the test.
pub struct TestDatabase {
    /// The migrated log database.
    pub log: PgConnectOptions,
    /// An empty database for the key store, as production has it: apart.
    pub keys: PgConnectOptions,
}

impl TestDatabase {
    /// A small pool on the log database.
    pub fn pool(&self) -> PgPool {
        pool_of(&self.log)
    }

    /// A small pool on the key store.
    pub fn keys_pool(&self) -> PgPool {
        pool_of(&self.keys)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let names =
            [&self.log, &self.keys].map(|options| options.get_database().map(str::to_owned));
        FINISHED.lock().expect("not poisoned").extend(names.into_iter().flatten());
    }
}

/// Databases of finished tests in this process, to be dropped by whoever comes next.
static FINISHED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SHARED: OnceCell<PgConnectOptions> = OnceCell::const_new();

/// A fresh database with all migrations applied, and an empty one for keys.
pub async fn database() -> TestDatabase {
    let shared = SHARED.get_or_init(start).await;
    let template = template_name();
    create(shared, Some(&template)).await
}

/// Two fresh databases with nothing in them.
pub async fn empty_database() -> TestDatabase {
    let shared = SHARED.get_or_init(start).await;
    create(shared, None).await
}

async fn create(shared: &PgConnectOptions, template: Option<&str>) -> TestDatabase {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    touch(&directory().join("used"));
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let log = format!("test_{}_{number}", std::process::id());
    let keys = format!("{log}_keys");
    let mut admin = super::connect(shared).await;
    let finished = std::mem::take(&mut *FINISHED.lock().expect("not poisoned"));
    for name in &finished {
        drop_database(&mut admin, name).await;
    }
    for (name, template) in [(&log, template.unwrap_or("template0")), (&keys, "template0")] {
        drop_database(&mut admin, name).await;
        execute(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    }
    admin.close().await.expect("closed");
    TestDatabase { log: shared.clone().database(&log), keys: shared.clone().database(&keys) }
}

/// Finds the running cluster or starts one, makes the template, and removes what dead processes left.
async fn start() -> PgConnectOptions {
    let directory = directory();
    fs::create_dir_all(&directory).expect("the directory of the shared cluster");
    let owner = fs::metadata(&directory).expect("metadata").uid();
    assert_eq!(owner, nix::unistd::geteuid().as_raw(), "{} is not ours", directory.display());
    open_to_all(&directory);
    touch(&directory.join("used"));

    let lock = lock(&directory.join("lock")).await;
    let options = run_cluster(&directory).await;
    let mut admin = super::connect(&options).await;
    make_template(&mut admin, &options).await;
    drop_orphans(&mut admin).await;
    admin.close().await.expect("closed");
    drop(lock);
    options
}

async fn run_cluster(directory: &Path) -> PgConnectOptions {
    let config = embedded_config(directory.join("data"))
        .with_setting("fsync", "off")
        .with_setting("synchronous_commit", "off")
        .with_setting("full_page_writes", "off")
        .with_setting("max_connections", "250");
    // Starting adopts a cluster that runs already; a broken one is thrown away.
    let cluster = match Cluster::start(&config).await {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("the shared test cluster is broken ({error}); making a new one");
            fs::remove_dir_all(&config.data_dir).expect("removed");
            Cluster::start(&config).await.expect("the shared test cluster")
        }
    };
    let options = cluster.connect_options("postgres");
    let pid = cluster.postmaster_pid().expect("a running postmaster");
    cluster.leave_running().await;
    watch(directory, pid);
    options
}

/// Leaves a process behind that stops the cluster once it is idle, unless one is there already.
fn watch(directory: &Path, pid: i32) {
    let mark = directory.join("watched");
    let watched = fs::read_to_string(&mark).unwrap_or_default();
    let mut fields = watched.split_whitespace().map(|field| field.parse::<i32>().unwrap_or(0));
    if fields.next() == Some(pid)
        && let Some(watcher) = fields.next()
        && is_alive(watcher)
    {
        return;
    }
    let script = format!(
        "runs() {{ [ \"$(head -n 1 data/cluster/postmaster.pid)\" = {pid} ]; }}
         ( while runs && [ -n \"$(find used -mmin -{IDLE_MINUTES})\" ]; do sleep 20; done
           rm -f watched; runs && kill -INT {pid} ) >/dev/null 2>&1 & echo $!"
    );
    // The shell ends at once and leaves its loop to init, so that nobody has to wait for it.
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(directory)
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .expect("a watcher");
    let watcher = String::from_utf8_lossy(&output.stdout);
    fs::write(&mark, format!("{pid} {watcher}")).expect("written");
}

/// The template appears under its name only when it is migrated completely.
async fn make_template(admin: &mut PgConnection, options: &PgConnectOptions) {
    let template = template_name();
    if exists(admin, &template).await {
        return;
    }
    let unfinished = "template_unfinished";
    drop_database(admin, unfinished).await;
    execute(admin, &format!("CREATE DATABASE {unfinished} TEMPLATE template0")).await;
    migrate(&options.clone().database(unfinished)).await.expect("migrations");
    execute(admin, &format!("ALTER DATABASE {unfinished} RENAME TO {template}")).await;
}

/// Removes the databases of processes that are gone.
async fn drop_orphans(admin: &mut PgConnection) {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname LIKE 'test\\_%'")
            .fetch_all(&mut *admin)
            .await
            .expect("the list of databases");
    for name in names {
        let owner = name.split('_').nth(1).and_then(|pid| pid.parse().ok());
        if !owner.is_some_and(is_alive) {
            drop_database(admin, &name).await;
        }
    }
}

async fn exists(admin: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await
        .expect("an answer")
}

async fn drop_database(admin: &mut PgConnection, name: &str) {
    let name = quote_identifier(name);
    execute(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
}

async fn execute(admin: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(statement).execute(admin).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
}

fn template_name() -> String {
    format!("template_{}", migrations_digest())
}

/// `TIDEMARK_TEST_DIR`, else one per checkout and user, in a place that every user may enter (a home
/// directory may be closed).
fn directory() -> PathBuf {
    if let Some(chosen) = std::env::var_os("TIDEMARK_TEST_DIR") {
        return chosen.into();
    }
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    let user = nix::unistd::geteuid();
    std::env::temp_dir().join(format!("tidemark-tests-{user}-{:016x}", hasher.finish()))
}

async fn lock(path: &Path) -> File {
    let path = path.to_owned();
    let wait = move || {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.lock()?;
        std::io::Result::Ok(file)
    };
    tokio::task::spawn_blocking(wait)
        .await
        .expect("joined")
        .expect("the lock of the shared cluster")
}

fn touch(path: &Path) {
    fs::write(path, "").expect("touched");
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
}
