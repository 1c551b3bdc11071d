//! One running postmaster: a child of ours, or the survivor of a server that was killed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::Child;

/// How often a survivor, for whom we cannot wait, is looked at.
const SURVIVOR_POLL: Duration = Duration::from_millis(250);
/// How long a fast shutdown may take (it writes a checkpoint) before it becomes an immediate one.
const FAST_SHUTDOWN: Duration = Duration::from_secs(30);
const IMMEDIATE_SHUTDOWN: Duration = Duration::from_secs(5);

/// A postmaster of our cluster.
#[derive(Debug)]
pub enum Postmaster {
    Child(Child),
    Survivor(Survivor),
}

/// A postmaster that an earlier server started.
#[derive(Clone, Debug)]
pub struct Survivor {
    pid: i32,
    cluster: PathBuf,
}

/// Whose process the cluster's pid file names. A file left by a crash may name one that got the
/// number later and has nothing to do with us.
#[derive(Debug)]
pub enum Holder {
    Ours(Survivor),
    /// Nobody, a process that has ended and only waits to be noticed by init, or a stranger.
    Nobody,
    /// A Postgres that does not say which cluster it serves; neither it nor its file may be touched.
    Unclear {
        pid: i32,
    },
}

impl Holder {
    pub fn of(pid_file: &Path, cluster: &Path) -> Self {
        let named = fs::read_to_string(pid_file)
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok())
            .filter(|pid| *pid > 1);
        let Some(pid) = named else { return Self::Nobody };
        let Some(arguments) = arguments_of(pid) else { return Self::Nobody };
        match serves(&arguments) {
            Serves::Nothing => Self::Nobody,
            Serves::Cluster(directory) if directory == cluster => {
                Self::Ours(Survivor { pid, cluster: cluster.to_owned() })
            }
            Serves::Cluster(_) => Self::Nobody,
            Serves::Unknown => Self::Unclear { pid },
        }
    }
}

impl Survivor {
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    fn lives(&self) -> bool {
        arguments_of(self.pid).is_some_and(|arguments| {
            matches!(serves(&arguments), Serves::Cluster(directory) if directory == self.cluster)
        })
    }
}

#[derive(Debug, PartialEq)]
enum Serves {
    Nothing,
    Cluster(PathBuf),
    Unknown,
}

/// Which cluster a command line serves. Only a postmaster keeps its own arguments; the processes
/// under it show a title like `postgres: checkpointer`.
fn serves(arguments: &[String]) -> Serves {
    let program = arguments.first().map(Path::new).and_then(Path::file_name);
    if !program.is_some_and(|name| name == "postgres" || name == "postmaster") {
        return Serves::Nothing;
    }
    arguments
        .windows(2)
        .find(|pair| pair[0] == "-D")
        .map(|pair| PathBuf::from(&pair[1]))
        .filter(|directory| directory.is_absolute())
        .map_or(Serves::Unknown, |directory| {
            Serves::Cluster(fs::canonicalize(&directory).unwrap_or(directory))
        })
}

impl Postmaster {
    /// Nothing once it has ended and been waited for.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Child(child) => child.id().and_then(|pid| i32::try_from(pid).ok()),
            Self::Survivor(survivor) => Some(survivor.pid),
        }
    }

    /// Returns when the process is gone. May be dropped and called again.
    pub async fn exited(&mut self) {
        match self {
            Self::Child(child) => {
                if let Err(error) = child.wait().await {
                    tracing::warn!(%error, "could not wait for Postgres");
                }
            }
            Self::Survivor(survivor) => {
                while survivor.lives() {
                    tokio::time::sleep(SURVIVOR_POLL).await;
                }
            }
        }
    }

    /// Disconnects everybody, writes a checkpoint and ends; harder if that takes too long. Says
    /// whether the process is gone.
    pub async fn stop(&mut self) -> bool {
        for (signal, patience) in
            [(Signal::SIGINT, FAST_SHUTDOWN), (Signal::SIGQUIT, IMMEDIATE_SHUTDOWN)]
        {
            if let Some(pid) = self.pid() {
                send(pid, signal);
            }
            if tokio::time::timeout(patience, self.exited()).await.is_ok() {
                return true;
            }
            tracing::warn!(%signal, "Postgres did not stop in time");
        }
        false
    }
}

/// Signals a postmaster of ours. One that is already gone is what the caller wanted.
pub fn send(pid: i32, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(pid), signal)
        && error != nix::errno::Errno::ESRCH
    {
        tracing::warn!(pid, %signal, %error, "could not signal Postgres");
    }
}

/// The command line of a running process; none for one that has ended.
#[cfg(target_os = "linux")]
fn arguments_of(pid: i32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
    let arguments = bytes.split(|byte| *byte == 0);
    Some(arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect())
}

/// The command line of a running process; none for one that has ended. `ps` puts spaces between the
/// arguments, so what follows `-D`, our last one, is taken whole.
#[cfg(not(target_os = "linux"))]
fn arguments_of(pid: i32) -> Option<Vec<String>> {
    let output = std::process::Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let arguments = match line.split_once(" -D ") {
        Some((program, directory)) => vec![program, "-D", directory],
        None => vec![line.as_str()],
    };
    Some(arguments.into_iter().map(str::to_owned).collect())
}

/// Removes a lock file that names nobody of ours. Postgres would do so itself for a number that is
/// free, but refuses to start when a stranger or an unreaped process has it. What is left of a dead
/// postmaster it still finds by its shared memory.
pub fn remove_lock_file(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_command_line_says_which_cluster_it_serves() {
        let cases = [
            ("/usr/lib/postgresql/15/bin/postgres -D /none/a", Serves::Cluster("/none/a".into())),
            ("postmaster -c port=1 -D /none/b", Serves::Cluster("/none/b".into())),
            ("postgres -D data", Serves::Unknown),
            ("postgres", Serves::Unknown),
            ("postgres: checkpointer", Serves::Nothing),
            ("/usr/bin/vim -D /none/a", Serves::Nothing),
        ];
        for (line, expected) in cases {
            assert_eq!(serves(&arguments(line)), expected, "{line}");
        }
    }

    #[test]
    fn a_pid_file_left_by_a_crash_never_points_at_a_stranger() {
        let directory = tempfile::tempdir().expect("directory");
        let pid_file = directory.path().join("postmaster.pid");
        fs::write(&pid_file, format!("{}\n/somewhere\n", std::process::id())).expect("written");
        assert!(matches!(Holder::of(&pid_file, directory.path()), Holder::Nobody));
        fs::write(&pid_file, "").expect("written");
        assert!(matches!(Holder::of(&pid_file, directory.path()), Holder::Nobody));
    }
}
