//! Starts the cluster, keeps it running and stops it.

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use super::{
    EmbeddedConfig, EmbeddedError,
    account::Account,
    failed,
    initialise::{SUPERUSER, initialise_if_missing},
    layout::{Layout, PORT, ServerLock},
    postmaster::{Holder, Postmaster, remove_lock_file, send},
    programs::Programs,
    settings,
};

const READY_POLL: Duration = Duration::from_millis(20);
/// How long a survivor may take to answer, for instance while it recovers from a crash of its own.
const SURVIVOR_PATIENCE: Duration = Duration::from_secs(15);
/// A first start is tried this often: orphaned backends of a killed postmaster hold its memory for a moment.
const START_ATTEMPTS: u32 = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A postmaster that ran this long earns a fresh backoff.
const STABLE: Duration = Duration::from_secs(60);

/// A running private cluster. [`Cluster::stop`] ends it in good order; dropping it asks Postgres to
/// stop without waiting.
#[derive(Debug)]
pub struct Cluster {
    launcher: Arc<Launcher>,
    /// The postmaster of the moment; 0 between two.
    pid: Arc<AtomicI32>,
    stop: Option<oneshot::Sender<()>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Makes the cluster if it is missing, starts or adopts its postmaster, and waits until it answers.
    /// From then on a task restarts the postmaster whenever it dies.
    ///
    /// # Errors
    /// See [`EmbeddedError`]; nothing keeps running after an error.
    pub async fn start(config: &EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let account = Account::choose();
        let layout = Layout::prepare(&config.data_dir, &account)?;
        let lock = ServerLock::acquire(&layout)?;
        let programs =
            Programs::find(config.bin_dir.as_deref(), &layout.data_dir, layout.cluster_version())?;
        initialise_if_missing(config, &layout, &account, &programs).await?;
        let launcher = Arc::new(Launcher { account, layout, programs });
        let postmaster = match launcher.adopt().await? {
            Some(survivor) => survivor,
            None => {
                launcher.configure(&config.settings).await?;
                launcher.launch().await?
            }
        };
        let pid = Arc::new(AtomicI32::new(postmaster.pid().unwrap_or_default()));
        let (stop, stopped) = oneshot::channel();
        let supervisor =
            tokio::spawn(supervise(launcher.clone(), postmaster, pid.clone(), stopped, lock));
        Ok(Self { launcher, pid, stop: Some(stop), supervisor: Some(supervisor) })
    }

    /// How to connect to this database of the cluster, as its superuser, over the socket.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        self.launcher.connect_options(database)
    }

    /// How to connect to a cluster that another process runs, as tools do beside a server.
    ///
    /// # Errors
    /// Where the data directory cannot be entered.
    pub fn beside(
        config: &EmbeddedConfig,
        database: &str,
    ) -> Result<PgConnectOptions, EmbeddedError> {
        let layout = Layout::prepare(&config.data_dir, &Account::choose())?;
        Ok(connect_options(&layout, database))
    }

    /// The canonical data directory.
    pub fn data_dir(&self) -> &Path {
        &self.launcher.layout.data_dir
    }

    /// The process id of the postmaster, or none while it is being restarted.
    pub fn postmaster_pid(&self) -> Option<i32> {
        Some(self.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// Disconnects everybody, writes a checkpoint, ends Postgres and gives the data directory free.
    pub async fn stop(mut self) {
        // The supervisor takes the closed channel as its sign.
        drop(self.stop.take());
        if let Some(supervisor) = self.supervisor.take()
            && let Err(error) = supervisor.await
        {
            tracing::error!(%error, "the supervisor of Postgres failed");
        }
    }

    /// Gives the data directory free but leaves Postgres running, for the next [`Cluster::start`] to adopt.
    pub async fn leave_running(mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.abort();
            drop(supervisor.await);
        }
    }
}

fn connect_options(layout: &Layout, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(&layout.socket_dir)
        .port(PORT)
        .username(SUPERUSER)
        .database(database)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The supervisor may never run again if the runtime is going down, so signal from here too.
        if self.supervisor.is_some()
            && let Some(pid) = self.postmaster_pid()
        {
            send(pid, Signal::SIGINT);
        }
    }
}

/// Restarts the postmaster whenever it dies, until told to stop it. Holds the lock as long as it works.
async fn supervise(
    launcher: Arc<Launcher>,
    mut postmaster: Postmaster,
    pid: Arc<AtomicI32>,
    mut stopped: oneshot::Receiver<()>,
    _lock: ServerLock,
) {
    let mut backoff = FIRST_BACKOFF;
    let mut since = Instant::now();
    loop {
        tokio::select! {
            _ = &mut stopped => {
                postmaster.stop().await;
                return;
            }
            () = postmaster.exited() => {}
        }
        pid.store(0, Ordering::Release);
        if since.elapsed() > STABLE {
            backoff = FIRST_BACKOFF;
        }
        loop {
            tracing::error!(?backoff, "Postgres died; starting it again");
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            match launcher.spawn() {
                Ok((started, _)) => {
                    postmaster = started;
                    break;
                }
                Err(error) => tracing::error!(%error, "could not start Postgres"),
            }
        }
        since = Instant::now();
        pid.store(postmaster.pid().unwrap_or_default(), Ordering::Release);
    }
}

/// Everything needed to start a postmaster again.
#[derive(Debug)]
struct Launcher {
    account: Account,
    layout: Layout,
    programs: Programs,
}

impl Launcher {
    fn connect_options(&self, database: &str) -> PgConnectOptions {
        connect_options(&self.layout, database)
    }

    /// The postmaster that a killed server left behind, if it answers. One that does not is stopped.
    async fn adopt(&self) -> Result<Option<Postmaster>, EmbeddedError> {
        let pid_file = self.layout.pid_file();
        let survivor = match Holder::of(&pid_file, &self.layout.cluster) {
            Holder::Ours(survivor) => survivor,
            Holder::Unclear { pid } => return Err(EmbeddedError::Stuck { pid }),
            Holder::Nobody => return Ok(None),
        };
        let pid = survivor.pid();
        let mut postmaster = Postmaster::Survivor(survivor);
        tokio::select! {
            () = self.answers() => {
                tracing::info!(pid, "adopted the Postgres that an earlier server left running");
                return Ok(Some(postmaster));
            }
            // It was about to stop.
            () = postmaster.exited() => return Ok(None),
            () = tokio::time::sleep(SURVIVOR_PATIENCE) => {}
        }
        tracing::warn!(
            pid,
            "the Postgres that an earlier server left running does not answer; stopping it"
        );
        if postmaster.stop().await { Ok(None) } else { Err(EmbeddedError::Stuck { pid }) }
    }

    async fn configure(&self, extra: &[(String, String)]) -> Result<(), EmbeddedError> {
        let mut supported = Vec::new();
        for (name, value, otherwise) in settings::IF_SUPPORTED {
            let value = if self.supports(name, value).await { Some(value) } else { otherwise };
            supported.extend(value.map(|value| (name, value)));
        }
        let text = settings::render(&self.layout.socket_dir, &supported, extra);
        self.layout.install("postgresql.conf", &text, &self.account)
    }

    /// Whether this build of Postgres takes the value.
    async fn supports(&self, name: &str, value: &str) -> bool {
        let mut postgres = self.account.command(&self.programs.postgres());
        postgres.arg("-D").arg(&self.layout.cluster).args(["-c", &format!("{name}={value}")]);
        postgres.args(["-C", name]).stdin(Stdio::null());
        postgres.output().await.is_ok_and(|output| output.status.success())
    }

    /// Starts a postmaster and waits until it answers.
    async fn launch(&self) -> Result<Postmaster, EmbeddedError> {
        let mut backoff = FIRST_BACKOFF;
        let mut attempt = 1;
        loop {
            let (mut postmaster, log_end) = self.spawn()?;
            tokio::select! {
                () = self.answers() => return Ok(postmaster),
                () = postmaster.exited() => {}
            }
            if attempt == START_ATTEMPTS {
                let output = self.layout.log_since(log_end);
                return Err(EmbeddedError::Start { log: self.layout.log.clone(), output });
            }
            attempt += 1;
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
    }

    /// Starts a postmaster; says where its part of the log begins.
    fn spawn(&self) -> Result<(Postmaster, u64), EmbeddedError> {
        let pid_file = self.layout.pid_file();
        if matches!(Holder::of(&pid_file, &self.layout.cluster), Holder::Nobody) {
            for file in self.layout.lock_files() {
                remove_lock_file(&file).map_err(failed("remove", &file))?;
            }
        }
        let (log, log_end) = self.layout.open_log()?;
        let stdout = log.try_clone().map_err(failed("open", &self.layout.log))?;
        let program = self.programs.postgres();
        let child = self
            .account
            .command(&program)
            .arg("-D")
            .arg(&self.layout.cluster)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .spawn()
            .map_err(failed("run", program))?;
        Ok((Postmaster::Child(child), log_end))
    }

    /// Returns when the server on our socket answers and says that it serves our cluster.
    async fn answers(&self) {
        let options = self.connect_options("postgres");
        let cluster = self.layout.cluster.to_string_lossy();
        loop {
            if let Ok(mut connection) = PgConnection::connect_with(&options).await {
                let served = sqlx::query_scalar::<_, String>("SHOW data_directory")
                    .fetch_one(&mut connection)
                    .await;
                drop(connection.close().await);
                if served.is_ok_and(|directory| directory == cluster) {
                    return;
                }
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}
