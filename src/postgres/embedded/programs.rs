//! Finds the installed Postgres server programs. Nothing is downloaded.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::EmbeddedError;

/// The oldest major version that the schema works with.
const MINIMUM: u32 = 14;

/// Directories whose children are versioned installations, and the part below each child.
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr/lib64/postgresql", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];
const PLAIN: [&str; 5] = [
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/opt/homebrew/bin",
    "/usr/libexec/postgresql",
];

/// `initdb` and `postgres` of one installation.
#[derive(Clone, Debug)]
pub struct Programs {
    bin_dir: PathBuf,
    major: u32,
}

impl Programs {
    /// Looks in the configured directory, else where `pg_config` points, else in the usual places.
    /// An existing cluster needs its own major version; a new one gets the newest there is.
    ///
    /// # Errors
    /// [`EmbeddedError::ProgramsNotFound`] names every place that was tried.
    pub fn find(
        configured: Option<&Path>,
        data_dir: &Path,
        wanted: Option<u32>,
    ) -> Result<Self, EmbeddedError> {
        let places = configured.map_or_else(usual_places, |dir| vec![dir.to_owned()]);
        // Several places are often links to one installation, which need not be asked twice.
        let mut seen = HashSet::new();
        let found: Vec<Self> = places
            .iter()
            .filter_map(|dir| installation_of(dir))
            .filter(|bin_dir| seen.insert(bin_dir.clone()))
            .filter_map(Self::ask)
            .filter(|programs| programs.major >= MINIMUM)
            .collect();
        if found.is_empty() {
            return Err(EmbeddedError::ProgramsNotFound {
                minimum: MINIMUM,
                tried: list(places.iter().map(|dir| dir.display().to_string())),
                hint: INSTALL_HINT,
            });
        }
        let versions = || list(found.iter().map(|programs| programs.major.to_string()));
        match wanted {
            None => Ok(newest(&found)),
            Some(major) => {
                found.iter().find(|programs| programs.major == major).cloned().ok_or_else(|| {
                    EmbeddedError::OtherVersion {
                        data_dir: data_dir.to_owned(),
                        wanted: major,
                        found: versions(),
                    }
                })
            }
        }
    }

    pub fn initdb(&self) -> PathBuf {
        self.bin_dir.join("initdb")
    }

    pub fn postgres(&self) -> PathBuf {
        self.bin_dir.join("postgres")
    }

    /// The major version, like 15.
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// The installation, if its server says its version.
    fn ask(bin_dir: PathBuf) -> Option<Self> {
        let major = parse_version(&output_of(&bin_dir.join("postgres"), "--version")?)?;
        Some(Self { bin_dir, major })
    }
}

/// Where the programs of this directory really are, if both are there. They find their libraries
/// relative to that place.
fn installation_of(dir: &Path) -> Option<PathBuf> {
    let bin_dir = fs::canonicalize(dir.join("postgres")).ok()?.parent()?.to_owned();
    (dir.join("initdb").is_file() && bin_dir.join("initdb").is_file()).then_some(bin_dir)
}

#[cfg(target_os = "macos")]
const INSTALL_HINT: &str = "install them with: brew install postgresql@17";
#[cfg(not(target_os = "macos"))]
const INSTALL_HINT: &str =
    "install them with: apt-get install postgresql, or set TIDEMARK_POSTGRES_BIN";

fn newest(found: &[Programs]) -> Programs {
    found.iter().rev().max_by_key(|programs| programs.major).unwrap_or(&found[0]).clone()
}

/// In order of preference; directories that do not exist are kept, because the error names them.
fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(dir) = output_of(Path::new("pg_config"), "--bindir") {
        places.push(PathBuf::from(dir));
    }
    for (parent, below) in VERSIONED {
        let mut versions: Vec<PathBuf> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            // Homebrew's directory holds every formula.
            .filter(|path| {
                !parent.ends_with("opt") || path.to_string_lossy().contains("postgresql")
            })
            .map(|path| path.join(below))
            .collect();
        if versions.is_empty() {
            versions.push(Path::new(parent).join("*").join(below));
        }
        places.append(&mut versions);
    }
    places.extend(PLAIN.map(PathBuf::from));
    places
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The major version in text like `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases_and_betas() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn missing_programs_name_the_places_and_the_remedy() {
        let error = Programs::find(Some(Path::new("/nowhere/bin")), Path::new("/data"), None)
            .expect_err("nothing there")
            .to_string();
        assert!(error.contains("/nowhere/bin") && error.contains("install"), "{error}");
    }

    #[test]
    fn an_existing_cluster_needs_its_own_version() {
        let error = Programs::find(None, Path::new("/data"), Some(9)).expect_err("too old");
        assert!(matches!(error, EmbeddedError::OtherVersion { wanted: 9, .. }), "{error}");
    }
}
