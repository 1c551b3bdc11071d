//! Configuration: read once from flags and environment, checked, and then immutable.
//!
//! No other module reads the environment. Every setting has a default that works on a fresh machine.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use crate::keys::CacheLimits;
use crate::postgres::EmbeddedConfig;

mod identity;

pub use identity::{IdentityConfig, IdentityError, IssuerConfig, JwksSource};

/// What is logged unless somebody says otherwise.
pub const DEFAULT_FILTER: &str = "info,sqlx=warn,sqlx_core=error";

/// The flags and variables as given, to be flattened into the command line.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Directory of the private Postgres cluster and everything else Tidemark keeps on disk
    #[arg(long, env = "TIDEMARK_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// Use this Postgres database instead of a private cluster
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,

    /// Database of the key store [default: the log database's name with "_keys", same server]
    #[arg(
        long,
        env = "TIDEMARK_KEYS_URL",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    pub keys_url: Option<String>,

    /// Directory with the Postgres programs initdb and postgres, for the private cluster
    #[arg(long, env = "TIDEMARK_POSTGRES_BIN", value_name = "DIR", global = true)]
    pub postgres_bin: Option<PathBuf>,

    /// Master key that wraps all others, 64 hex digits; during a rotation the new one, a comma, and
    /// the old one [default: a file in the data directory]
    #[arg(
        long,
        env = "TIDEMARK_MASTER_KEY",
        value_name = "KEY",
        hide_env_values = true,
        global = true
    )]
    pub master_key: Option<String>,

    /// Unwrapped keys of people kept in memory at most
    #[arg(
        long,
        env = "TIDEMARK_KEY_CACHE",
        value_name = "N",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000),
        global = true
    )]
    pub key_cache: u64,

    /// Seconds after which an unwrapped key leaves memory, used or not
    #[arg(
        long,
        env = "TIDEMARK_KEY_CACHE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        global = true
    )]
    pub key_cache_seconds: u64,

    /// JSON Web Key Set of the identity provider: a file, or the https address where it is published
    /// [default: a development issuer of our own]
    #[arg(long, env = "TIDEMARK_JWKS", value_name = "FILE|URL", global = true)]
    pub jwks: Option<String>,

    /// `iss` claim of the identity provider's tokens
    #[arg(long, env = "TIDEMARK_ISSUER", value_name = "URL", global = true)]
    pub issuer: Option<String>,

    /// Accepted `aud` or `client_id` claims, separated by commas
    #[arg(
        long,
        env = "TIDEMARK_AUDIENCE",
        value_name = "NAMES",
        value_delimiter = ',',
        global = true
    )]
    pub audience: Vec<String>,

    /// File that names several identity providers, instead of the three settings above
    #[arg(long, env = "TIDEMARK_ISSUERS", value_name = "FILE", global = true)]
    pub issuers: Option<PathBuf>,

    /// Requests a person may make in 15 minutes; 0 sets no limit [default: 500, of them 200 for sync
    /// and health; no limit with the development issuer]
    #[arg(long, env = "TIDEMARK_RATE_LIMIT", value_name = "N", global = true)]
    pub rate_limit: Option<u32>,

    /// Address and port of the HTTP API
    #[arg(
        long,
        env = "TIDEMARK_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8480",
        global = true
    )]
    pub listen: SocketAddr,

    /// What to log, as tracing directives like "info,tidemark=debug"
    #[arg(
        long,
        env = "TIDEMARK_LOG",
        value_name = "FILTER",
        default_value = DEFAULT_FILTER,
        global = true
    )]
    pub log: String,

    /// Form of the log lines
    #[arg(
        long,
        env = "TIDEMARK_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: LogFormat,
}

/// The checked configuration of one process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Keys of our own, and the private cluster if there is one.
    pub data_dir: PathBuf,
    pub database: DatabaseConfig,
    /// Wraps all other keys; none stands for the file in the data directory.
    pub master_key: Option<Redacted>,
    /// How many unwrapped keys stay in memory, and for how long.
    pub key_cache: CacheLimits,
    /// Whose tokens are accepted; none stands for the development issuer.
    pub identity: Option<IdentityConfig>,
    pub http: HttpConfig,
    pub log: LogConfig,
}

/// Where the log and the keys live.
#[derive(Clone, Debug)]
pub enum DatabaseConfig {
    /// A private cluster in the data directory.
    Embedded(EmbeddedConfig),
    /// Databases that somebody else runs.
    External { log: Box<PgConnectOptions>, keys: Option<Box<PgConnectOptions>> },
}

/// A secret that never prints.
#[derive(Clone)]
pub struct Redacted(String);

impl Redacted {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Redacted {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Without a use after it, the write could be optimised away.
        std::hint::black_box(&mut bytes);
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// Requests in 15 minutes, 0 for no limit. None stands for the built-in rates, which hold
    /// wherever tokens come from an identity provider.
    pub rate_limit: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Valid tracing directives.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people at a terminal.
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// Why a configuration is refused. URLs are never repeated: they hold passwords.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{variable} is not a Postgres URL (expected postgres://user:password@host:5432/database)"
    )]
    Url { variable: &'static str, source: sqlx::Error },
    #[error("{variable} names no database (end the URL with /name)")]
    NoDatabase { variable: &'static str },
    #[error("TIDEMARK_KEYS_URL without DATABASE_URL has no effect (set both, or neither)")]
    KeysAlone,
    #[error("TIDEMARK_LOG is not a filter (try \"info\" or \"info,tidemark=debug\")")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("there is no home directory to keep data in (set TIDEMARK_DATA_DIR)")]
    NoDataDirectory,
}

impl ConfigArgs {
    /// Checks everything once.
    ///
    /// # Errors
    /// [`ConfigError`] names the variable at fault and what it should look like.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        EnvFilter::builder().parse(&self.log)?;
        let data_dir = match self.data_dir {
            Some(dir) => dir,
            None => {
                default_data_dir(&Home::of_this_process()).ok_or(ConfigError::NoDataDirectory)?
            }
        };
        let database = match (present(self.database_url), present(self.keys_url)) {
            (None, Some(_)) => return Err(ConfigError::KeysAlone),
            (None, None) => DatabaseConfig::Embedded(EmbeddedConfig {
                bin_dir: self.postgres_bin,
                ..EmbeddedConfig::in_directory(data_dir.clone())
            }),
            (Some(log), keys) => DatabaseConfig::External {
                log: parse_url("DATABASE_URL", &log)?,
                keys: keys.map(|url| parse_url("TIDEMARK_KEYS_URL", &url)).transpose()?,
            },
        };
        let one = identity::One {
            jwks: present(self.jwks),
            issuer: present(self.issuer),
            audiences: self.audience,
        };
        let identity = identity::resolve(one, self.issuers.as_deref())?;
        Ok(Config {
            data_dir,
            database,
            master_key: present(self.master_key).map(Redacted),
            key_cache: CacheLimits {
                capacity: self.key_cache,
                time_to_live: Duration::from_secs(self.key_cache_seconds),
            },
            identity,
            http: HttpConfig { listen: self.listen, rate_limit: self.rate_limit },
            log: LogConfig { filter: self.log, format: self.log_format },
        })
    }
}

/// A variable set to nothing counts as unset.
fn present(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.trim().is_empty())
}

fn parse_url(variable: &'static str, url: &str) -> Result<Box<PgConnectOptions>, ConfigError> {
    let options: PgConnectOptions =
        url.parse().map_err(|source| ConfigError::Url { variable, source })?;
    match options.get_database() {
        Some(name) if !name.is_empty() => Ok(Box::new(options)),
        _ => Err(ConfigError::NoDatabase { variable }),
    }
}

/// What decides the default data directory.
struct Home {
    is_root: bool,
    is_macos: bool,
    home: Option<PathBuf>,
    xdg_data_home: Option<PathBuf>,
}

impl Home {
    fn of_this_process() -> Self {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            is_macos: cfg!(target_os = "macos"),
            home: absolute("HOME"),
            xdg_data_home: absolute("XDG_DATA_HOME"),
        }
    }
}

/// Root gets a system directory, because Postgres must drop to a user who cannot enter root's home.
fn default_data_dir(home: &Home) -> Option<PathBuf> {
    if home.is_root {
        return Some(Path::new("/var/lib/tidemark").to_owned());
    }
    if let Some(data) = &home.xdg_data_home {
        return Some(data.join("tidemark"));
    }
    let below = if home.is_macos {
        "Library/Application Support/tidemark"
    } else {
        ".local/share/tidemark"
    };
    home.home.as_ref().map(|home| home.join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ConfigArgs {
        ConfigArgs {
            data_dir: Some("/srv/tidemark".into()),
            database_url: None,
            keys_url: None,
            postgres_bin: None,
            master_key: None,
            key_cache: 10,
            key_cache_seconds: 5,
            jwks: None,
            issuer: None,
            audience: Vec::new(),
            issuers: None,
            rate_limit: None,
            listen: ([127, 0, 0, 1], 8480).into(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }

    #[test]
    fn without_a_url_the_cluster_is_ours() {
        let config = args().resolve().expect("valid");
        let DatabaseConfig::Embedded(embedded) = config.database else {
            panic!("expected the embedded cluster");
        };
        assert_eq!(embedded.data_dir, Path::new("/srv/tidemark"));
    }

    #[test]
    fn an_empty_url_counts_as_none() {
        let config = ConfigArgs { database_url: Some(" ".to_owned()), ..args() };
        assert!(matches!(config.resolve().expect("valid").database, DatabaseConfig::Embedded(_)));
    }

    #[test]
    fn a_bad_url_is_named_but_not_repeated() {
        let config = ConfigArgs { database_url: Some("mysql//secret@host".to_owned()), ..args() };
        let error = config.resolve().expect_err("refused").to_string();
        assert!(error.contains("DATABASE_URL"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_url_must_name_its_database() {
        let config = ConfigArgs { database_url: Some("postgres://app@host".to_owned()), ..args() };
        assert!(matches!(config.resolve(), Err(ConfigError::NoDatabase { .. })));
    }

    #[test]
    fn keys_alone_are_refused() {
        let config = ConfigArgs { keys_url: Some("postgres://app@host/k".to_owned()), ..args() };
        assert!(matches!(config.resolve(), Err(ConfigError::KeysAlone)));
    }

    #[test]
    fn a_bad_filter_is_refused() {
        let config = ConfigArgs { log: "tidemark=loud".to_owned(), ..args() };
        assert!(matches!(config.resolve(), Err(ConfigError::Filter(_))));
    }

    #[test]
    fn default_directories() {
        let home = |is_root, is_macos, xdg: Option<&str>| Home {
            is_root,
            is_macos,
            home: Some("/home/ada".into()),
            xdg_data_home: xdg.map(PathBuf::from),
        };
        let cases = [
            (home(true, false, None), "/var/lib/tidemark"),
            (home(false, false, None), "/home/ada/.local/share/tidemark"),
            (home(false, false, Some("/data")), "/data/tidemark"),
            (home(false, true, None), "/home/ada/Library/Application Support/tidemark"),
        ];
        for (home, expected) in cases {
            assert_eq!(default_data_dir(&home).as_deref(), Some(Path::new(expected)));
        }
    }
}
