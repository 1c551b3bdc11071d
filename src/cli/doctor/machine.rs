//! What can be looked at without a database: programs, files, disk, clock.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::Check;
use crate::cli::report;
use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::keys::master::FILE_NAME as MASTER_KEY_FILE;
use crate::postgres::embedded::Programs;

/// Below this the next checkpoint may stop everything.
const DISK_FAIL: u64 = 256 << 20;
const DISK_WARN: u64 = 2 << 30;
/// 2024-01-01: a clock before it was never set.
const EARLIEST_MS: i64 = 1_704_067_200_000;

/// All checks of the machine.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![clock_is_set(clock::now_ms())];
    if let DatabaseConfig::Embedded(embedded) = &config.database {
        checks.push(programs(embedded.bin_dir.as_deref(), &embedded.data_dir));
    }
    checks.extend(data_dir(&config.data_dir));
    checks.push(match &config.master_key {
        Some(_) => Check::ok("master key", "given by the environment"),
        None => key_file("master key", &config.data_dir.join(MASTER_KEY_FILE)),
    });
    checks.push(match (&config.identity, &config.database) {
        (Some(identity), _) => {
            let issuers: Vec<&str> =
                identity.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
            Check::ok("identity", format!("tokens of {}", issuers.join(", ")))
        }
        (None, DatabaseConfig::Embedded(_)) => {
            Check::ok("identity", "tokens of the development issuer are accepted")
        }
        (None, DatabaseConfig::External { .. }) => Check::warn(
            "identity",
            "tokens of the development issuer are accepted",
            "set TIDEMARK_JWKS before anybody else can reach the server",
        ),
    });
    checks
}

fn clock_is_set(now_ms: i64) -> Check {
    let now = report::time(now_ms);
    if now_ms < EARLIEST_MS {
        return Check::fail("clock", now, "set the clock: times in the log never go back");
    }
    Check::ok("clock", now)
}

fn programs(bin_dir: Option<&Path>, data_dir: &Path) -> Check {
    let wanted = fs::read_to_string(data_dir.join("cluster").join("PG_VERSION"))
        .ok()
        .and_then(|version| version.trim().parse().ok());
    match Programs::find(bin_dir, data_dir, wanted) {
        Ok(programs) => {
            let place = programs.postgres();
            Check::ok("postgres", format!("version {} in {}", programs.major(), place.display()))
        }
        Err(error) => Check::fail(
            "postgres",
            report::one_line(&error.into()),
            "install the Postgres server, or set TIDEMARK_POSTGRES_BIN",
        ),
    }
}

fn data_dir(path: &Path) -> Vec<Check> {
    let Ok(metadata) = fs::metadata(path) else {
        let detail = format!("{} does not exist yet", path.display());
        return vec![Check::ok("data directory", detail)];
    };
    vec![directory_mode(path, metadata.uid(), metadata.permissions().mode()), disk(path)]
}

fn directory_mode(path: &Path, owner: u32, mode: u32) -> Check {
    let name = "data directory";
    let found = format!("{} (mode {:o})", path.display(), mode & 0o7777);
    let us = nix::unistd::geteuid();
    if owner != us.as_raw() && !us.is_root() {
        return Check::fail(name, format!("{found} belongs to another user"), "run as its owner");
    }
    match mode & 0o077 {
        // Root's Postgres runs as another user, who passes through.
        0 | 0o011 => Check::ok(name, found),
        bits if bits & 0o022 != 0 => {
            Check::fail(name, format!("{found}: others can write"), "chmod go-w the directory")
        }
        _ => Check::warn(name, format!("{found}: others can look in"), "chmod go-r the directory"),
    }
}

fn disk(path: &Path) -> Check {
    let Ok(disk) = statvfs(path) else {
        return Check::warn("disk", "its free space is not known", "look with df");
    };
    // The widths of these counters differ between systems.
    #[allow(clippy::useless_conversion, reason = "the counters are narrower on some systems")]
    let free = u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()));
    space(free)
}

fn space(free: u64) -> Check {
    let detail = format!("{} MiB free", free >> 20);
    match free {
        _ if free < DISK_FAIL => {
            Check::fail("disk", detail, "make room: a full disk stops all writes")
        }
        _ if free < DISK_WARN => Check::warn("disk", detail, "make room soon"),
        _ => Check::ok("disk", detail),
    }
}

fn key_file(name: &'static str, path: &Path) -> Check {
    let Ok(metadata) = fs::metadata(path) else {
        return Check::ok(name, "made at the first start");
    };
    let mode = metadata.permissions().mode() & 0o777;
    let found = format!("{} (mode {mode:o})", path.display());
    match mode & 0o077 {
        0 => Check::ok(name, found),
        _ => Check::fail(name, found, "chmod 600 the file, and count the key as known to others"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_fails() {
        assert_eq!(clock_is_set(0).state, State::Fail);
        assert_eq!(clock_is_set(clock::now_ms()).state, State::Ok);
    }

    #[test]
    fn little_space_warns_and_none_fails() {
        assert_eq!(space(10 << 30).state, State::Ok);
        assert_eq!(space(1 << 30).state, State::Warn);
        assert_eq!(space(1 << 20).state, State::Fail);
    }

    #[test]
    fn keys_that_others_can_read_fail() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(key_file("k", &path).state, State::Ok, "not there yet");
        fs::write(&path, "k").unwrap();
        for (mode, state) in [(0o600, State::Ok), (0o640, State::Fail), (0o604, State::Fail)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(key_file("k", &path).state, state, "{mode:o}");
        }
    }

    #[test]
    fn directories_that_others_can_write_fail() {
        let owner = nix::unistd::geteuid().as_raw();
        let state = |mode| directory_mode(Path::new("/d"), owner, mode).state;
        assert_eq!(state(0o40700), State::Ok);
        assert_eq!(state(0o40711), State::Ok);
        assert_eq!(state(0o40755), State::Warn);
        assert_eq!(state(0o40777), State::Fail);
    }
}
