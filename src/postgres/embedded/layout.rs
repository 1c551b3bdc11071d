//! The files of a data directory, and the lock that makes one server their only user.
//!
//! ```text
//! <data_dir>/tidemark.lock   held while a server runs; names its process
//! <data_dir>/cluster/        the Postgres cluster
//! <data_dir>/postgres.log    what Postgres says
//! <data_dir>/run/            0700, the socket (elsewhere if the path is too long for one)
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;

use super::{EmbeddedError, account::Account, failed};

/// The socket's number; it only names the file, since nothing listens on TCP.
pub const PORT: u16 = 5432;
const SOCKET_FILE: &str = ".s.PGSQL.5432";
/// What `sockaddr_un` holds without its final NUL.
const LONGEST_SOCKET_PATH: usize = if cfg!(target_os = "macos") { 103 } else { 107 };
/// A log larger than this is put aside at the next start.
const LOG_LIMIT: u64 = 16 << 20;

/// Where everything of one cluster is.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Canonical, so that it equals what Postgres reports.
    pub data_dir: PathBuf,
    pub cluster: PathBuf,
    pub socket_dir: PathBuf,
    pub log: PathBuf,
}

impl Layout {
    /// Creates the directories and makes sure that `account` can work in them.
    pub fn prepare(data_dir: &Path, account: &Account) -> Result<Self, EmbeddedError> {
        // Another user runs Postgres, so it must be able to pass through.
        let mode = if account.drops_privileges() { 0o711 } else { 0o700 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(data_dir)
            .map_err(failed("create the data directory", data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(failed("resolve", data_dir))?;
        if let Some(directory) = account.barred_from(&data_dir) {
            return Err(EmbeddedError::NotTraversable {
                directory,
                user: account.name().to_owned(),
            });
        }
        let socket_dir = socket_directory(&data_dir, account);
        make_private(&socket_dir, account)?;
        Ok(Self {
            cluster: data_dir.join("cluster"),
            log: data_dir.join("postgres.log"),
            socket_dir,
            data_dir,
        })
    }

    /// The major version of the cluster that is there, if one is.
    pub fn cluster_version(&self) -> Option<u32> {
        fs::read_to_string(self.cluster.join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    pub fn pid_file(&self) -> PathBuf {
        self.cluster.join("postmaster.pid")
    }

    /// The files that name the running postmaster: in the cluster, and beside its socket.
    pub fn lock_files(&self) -> [PathBuf; 2] {
        [self.pid_file(), self.socket_dir.join(format!("{SOCKET_FILE}.lock"))]
    }

    /// Opens the log for appending and says where it ends now.
    pub fn open_log(&self) -> Result<(File, u64), EmbeddedError> {
        if fs::metadata(&self.log).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
            fs::rename(&self.log, self.log.with_extension("log.1"))
                .map_err(failed("put aside", &self.log))?;
        }
        let open = || {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
            let end = file.metadata()?.len();
            Ok((file, end))
        };
        open().map_err(failed("open", &self.log))
    }

    /// What the log gained since `offset`, on one line and bounded.
    pub fn log_since(&self, offset: u64) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(&self.log)
            && file.seek(SeekFrom::Start(offset)).is_ok()
            && file.take(4096).read_to_end(&mut text).is_err()
        {
            text.clear();
        }
        one_line(&text)
    }

    /// Replaces a file of the cluster. The new one is written outside and renamed, so that a link
    /// planted by the cluster's owner is never followed by root.
    pub fn install(&self, name: &str, text: &str, account: &Account) -> Result<(), EmbeddedError> {
        let target = self.cluster.join(name);
        let fresh = self.data_dir.join(format!("{name}.new"));
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            account.own(&fresh)?;
            fs::rename(&fresh, &target)
        };
        write().map_err(failed("write", &target))
    }
}

/// Text of a program on one line, for a one-line error.
pub fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The lock of the server on its data directory; the system releases it when the process dies.
#[derive(Debug)]
pub struct ServerLock(File);

impl ServerLock {
    /// Takes the lock or says who has it.
    pub fn acquire(layout: &Layout) -> Result<Self, EmbeddedError> {
        let path = layout.data_dir.join("tidemark.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let pid =
                    file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                return Err(EmbeddedError::Locked { data_dir: layout.data_dir.clone(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
        let mut name_holder = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        name_holder().map_err(failed("write", &path))?;
        Ok(Self(file))
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        // Closing would do; unlocking first also covers a descriptor that a fork still shares.
        drop(self.0.unlock());
    }
}

/// Inside the data directory, or in a short place named by its hash if the socket's path is too long.
fn socket_directory(data_dir: &Path, account: &Account) -> PathBuf {
    let inside = data_dir.join("run");
    if inside.join(SOCKET_FILE).as_os_str().len() <= LONGEST_SOCKET_PATH {
        return inside;
    }
    let hash = digest::digest(&digest::SHA256, data_dir.as_os_str().as_bytes());
    let name = format!("tidemark-{}", hex::encode(&hash.as_ref()[..8]));
    // The session's runtime directory is closed to other users, so it serves only without a switch of user.
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| !account.drops_privileges() && dir.is_absolute() && dir.is_dir())
        .map(|dir| dir.join(&name))
        .filter(|dir| dir.join(SOCKET_FILE).as_os_str().len() <= LONGEST_SOCKET_PATH)
        .unwrap_or_else(|| Path::new("/tmp").join(name))
}

/// Makes a directory that only `account` may enter, and refuses one that somebody else put there.
fn make_private(directory: &Path, account: &Account) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => account.own(directory).map_err(failed("give away", directory)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let unsafe_because = |reason| EmbeddedError::UnsafeSocketDirectory {
                directory: directory.to_owned(),
                reason,
            };
            let meta = fs::symlink_metadata(directory).map_err(failed("inspect", directory))?;
            if !meta.is_dir() {
                return Err(unsafe_because("it is not a directory"));
            }
            // Root may have been interrupted between making it and giving it away.
            if account.drops_privileges() && meta.uid() == 0 {
                account.own(directory).map_err(failed("give away", directory))?;
            } else if meta.uid() != account.uid() {
                return Err(unsafe_because("it belongs to another user"));
            }
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
                .map_err(failed("protect", directory))
        }
        Err(source) => Err(failed("create", directory)(source)),
    }
}
