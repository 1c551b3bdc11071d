//! Which operating-system user runs Postgres. It refuses to run as root, so root hands it to another.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use nix::unistd::{User, geteuid};
use tokio::process::Command;

/// Tried in this order when the server runs as root.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// `nobody` where the user database is missing, as in minimal containers.
const NOBODY: u32 = 65_534;

/// The user who owns the cluster and runs its processes.
#[derive(Clone, Debug)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
    /// Whether this process is root and has to become the account.
    drops: bool,
}

impl Account {
    /// The user of this process or, for root, an unprivileged one.
    pub fn choose() -> Self {
        let own = geteuid();
        if !own.is_root() {
            let gid = nix::unistd::getegid().as_raw();
            return Self { name: own.to_string(), uid: own.as_raw(), gid, drops: false };
        }
        UNPRIVILEGED
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .filter(|user| !user.uid.is_root())
            .map_or_else(
                || Self { name: "nobody".to_owned(), uid: NOBODY, gid: NOBODY, drops: true },
                |user| Self {
                    name: user.name,
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                    drops: true,
                },
            )
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether the account differs from the user of this process.
    pub const fn drops_privileges(&self) -> bool {
        self.drops
    }

    /// A command that runs as this account, in no particular directory, deaf to the caller's `PG*`
    /// variables and to a Ctrl-C at the caller's terminal.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Setting the uid as root also clears the supplementary groups.
        if self.drops {
            command.uid(self.uid).gid(self.gid);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir("/").process_group(0);
        command
    }

    /// Gives a file or directory to the account.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        if self.drops { chown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// The outermost directory on the way to `path` that the account may not enter.
    pub fn barred_from(&self, path: &Path) -> Option<PathBuf> {
        if !self.drops {
            return None;
        }
        let mut outermost_last = path.ancestors().collect::<Vec<_>>();
        outermost_last.reverse();
        outermost_last
            .into_iter()
            .find(|directory| fs::metadata(directory).is_ok_and(|meta| !self.may_enter(&meta)))
            .map(Path::to_owned)
    }

    fn may_enter(&self, directory: &fs::Metadata) -> bool {
        let shift = if directory.uid() == self.uid {
            6
        } else if directory.gid() == self.gid {
            3
        } else {
            0
        };
        directory.mode() >> shift & 1 == 1
    }
}
