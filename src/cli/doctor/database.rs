//! What the databases say: schema, roles and what they are refused, durability, keys.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

use super::Check;
use crate::cli::report;
use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::keys::master::FILE_NAME as MASTER_KEY_FILE;
use crate::keys::{CacheLimits, Keyring, Masters, PostgresKeyStore};
use crate::postgres::{self, Databases, PoolSettings};
use crate::store::STORAGE_FORMAT;

/// A clock may be off by so much before it is worth a word.
const SKEW_MS: i64 = 2_000;
/// SQLSTATE of a missing privilege.
const REFUSED: &str = "42501";

/// What a role must be refused. Privileges are checked before the first row is sought, so that
/// nothing is touched even where one is not refused.
const FORBIDDEN: [(&str, &[&str]); 2] = [
    (
        "tidemark_app",
        &[
            "DELETE FROM events WHERE false",
            "UPDATE events SET event_type = event_type WHERE false",
            "INSERT INTO events SELECT * FROM events WHERE false",
            "UPDATE streams SET sequence = sequence WHERE false",
            "DELETE FROM receipts WHERE false",
            "UPDATE log_head SET position = position WHERE false",
            "UPDATE subjects SET status = status WHERE false",
        ],
    ),
    (
        "tidemark_interop",
        &[
            "DELETE FROM events WHERE false",
            "UPDATE events SET event_type = event_type WHERE false",
            "SELECT sealed FROM events WHERE false",
            "SELECT state_sealed FROM streams WHERE false",
            "SELECT position FROM log_head WHERE false",
        ],
    ),
];

const TRIGGERS: [&str; 3] = ["events_append_only", "events_no_truncate", "events_from_postgres_es"];

/// All checks of the databases.
pub(super) async fn checks(config: &Config, databases: &Databases) -> Vec<Check> {
    let mut checks = match log_checks(&databases.log).await {
        Ok(checks) => checks,
        Err(error) => {
            let detail = report::one_line(&error.into());
            vec![Check::fail("log", detail, "see the database's own log")]
        }
    };
    checks.push(apart(config, databases));
    checks.push(keys(config, databases).await);
    checks
}

async fn log_checks(options: &PgConnectOptions) -> Result<Vec<Check>, sqlx::Error> {
    let settings = PoolSettings::background("tidemark-doctor", 1);
    let mut connection = PgConnection::connect_with(&settings.apply(options)).await?;
    let db = &mut connection;
    let mut checks = vec![migrations(db).await?];
    checks.extend(durability(db).await?);
    checks.push(clocks(db).await?);
    let there: bool = sqlx::query_scalar("SELECT to_regclass('log_head') IS NOT NULL")
        .fetch_one(&mut *db)
        .await?;
    if there {
        checks.push(head(db).await?);
        checks.push(triggers(db).await?);
        for (role, forbidden) in FORBIDDEN {
            checks.push(privileges(db, role, forbidden).await?);
        }
    }
    connection.close().await?;
    Ok(checks)
}

async fn migrations(db: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let name = "schema";
    let there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *db)
        .await?;
    if !there {
        return Ok(Check::warn(name, "the database is empty", "tidemark migrate"));
    }
    let applied: Vec<(i64, bool)> =
        sqlx::query_as("SELECT version, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(db)
            .await?;
    Ok(compare_migrations(&applied, &postgres::migrate::versions()))
}

fn compare_migrations(applied: &[(i64, bool)], known: &[i64]) -> Check {
    let name = "schema";
    if let Some((version, _)) = applied.iter().find(|(_, success)| !success) {
        let detail = format!("migration {version} failed half-way");
        return Check::fail(name, detail, "restore a backup, or finish it by hand");
    }
    if let Some((version, _)) = applied.iter().find(|(version, _)| !known.contains(version)) {
        let detail = format!("migration {version} is from a newer program");
        return Check::fail(name, detail, "run the program version that made it");
    }
    match known.len() - applied.len() {
        0 => Check::ok(name, format!("all {} migrations are applied", known.len())),
        missing => {
            Check::warn(name, format!("{missing} migrations are missing"), "tidemark migrate")
        }
    }
}

async fn durability(db: &mut PgConnection) -> Result<Vec<Check>, sqlx::Error> {
    let hint = "turn it on: an answered request must survive a crash";
    let mut checks = Vec::new();
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut *db).await?;
        checks.push(match value.as_str() {
            "off" => Check::fail(name, value, hint),
            _ => Check::ok(name, value),
        });
    }
    Ok(checks)
}

async fn clocks(db: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let theirs: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(db)
            .await?;
    let off = theirs - clock::now_ms();
    let detail = format!("the database's clock is {} ms from ours", off.abs());
    Ok(match off.abs() {
        ..=SKEW_MS => Check::ok("clocks", detail),
        _ => Check::warn("clocks", detail, "synchronise both with a time server"),
    })
}

async fn head(db: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let row = sqlx::query("SELECT storage_format, position, committed_ms FROM log_head")
        .fetch_one(db)
        .await?;
    let (format, position, committed): (i32, i64, i64) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if format != STORAGE_FORMAT {
        let detail = format!("storage format {format}, this program reads {STORAGE_FORMAT}");
        return Ok(Check::fail("log", detail, "run the program version that wrote it"));
    }
    if committed > clock::now_ms() + SKEW_MS {
        let detail = format!("its last commit was at {}, in the future", report::time(committed));
        let hint = "times stand still until then: set the clock, then wait";
        return Ok(Check::warn("log", detail, hint));
    }
    Ok(Check::ok("log", format!("storage format {format}, position {position}")))
}

async fn triggers(db: &mut PgConnection) -> Result<Check, sqlx::Error> {
    let enabled: Vec<String> = sqlx::query_scalar(
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'events'::regclass \
         AND tgenabled IN ('O', 'A') AND tgname = ANY ($1)",
    )
    .bind(TRIGGERS.map(str::to_owned).to_vec())
    .fetch_all(db)
    .await?;
    let missing: Vec<&str> =
        TRIGGERS.into_iter().filter(|name| !enabled.iter().any(|e| e == name)).collect();
    Ok(match missing.as_slice() {
        [] => Check::ok("triggers", "the log refuses changes, whoever makes them"),
        _ => {
            let detail = format!("missing or disabled: {}", missing.join(", "));
            Check::fail("triggers", detail, "find out who did it, then tidemark verify log")
        }
    })
}

/// Tries what the role must not be able to do, in transactions that are rolled back.
async fn privileges(
    db: &mut PgConnection,
    role: &'static str,
    forbidden: &[&str],
) -> Result<Check, sqlx::Error> {
    let usable: Option<bool> = sqlx::query_scalar(
        "SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = $1",
    )
    .bind(role)
    .fetch_optional(&mut *db)
    .await?;
    if usable != Some(true) {
        let detail = match usable {
            None => "the role does not exist",
            Some(_) => "the role may not be taken",
        };
        let hint = "create it, or grant it to the connecting user: only triggers guard the log";
        return Ok(Check::warn(role, detail, hint));
    }
    let mut allowed = Vec::new();
    for statement in forbidden {
        let mut transaction = db.begin().await?;
        sqlx::query(&format!("SET LOCAL ROLE {role}")).execute(&mut *transaction).await?;
        let tried = sqlx::query(statement).execute(&mut *transaction).await;
        transaction.rollback().await?;
        match tried {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(REFUSED) => {}
            Err(sqlx::Error::Io(error)) => return Err(error.into()),
            _ => allowed.push(*statement),
        }
    }
    Ok(match allowed.as_slice() {
        [] => Check::ok(role, format!("{} forbidden statements are refused", forbidden.len())),
        [first, ..] => Check::fail(
            role,
            format!("{} forbidden statements are allowed, such as {first}", allowed.len()),
            "revoke what was granted beyond the migrations",
        ),
    })
}

/// A backup of the log must not hold the keys to it.
fn apart(config: &Config, databases: &Databases) -> Check {
    let name = "key store";
    let (log, keys) = (&databases.log, &databases.keys);
    let server =
        |o: &PgConnectOptions| (o.get_host().to_owned(), o.get_port(), o.get_socket().cloned());
    let same_server = server(log) == server(keys);
    let database = |o: &PgConnectOptions| o.get_database().unwrap_or_default().to_owned();
    if same_server && database(log) == database(keys) {
        let hint = "set TIDEMARK_KEYS_URL to another database";
        return Check::fail(name, "it lies in the log's own database", hint);
    }
    match (&config.database, same_server) {
        (DatabaseConfig::Embedded(_), _) => {
            Check::ok(name, "a database of its own in the private cluster (development grade)")
        }
        (_, false) => Check::ok(name, "on a server of its own"),
        (_, true) => Check::warn(
            name,
            "a database of its own on the log's server",
            "set TIDEMARK_KEYS_URL to another server, and back it up apart",
        ),
    }
}

/// Whether the master key opens what is stored. Nothing is made where nothing is there.
async fn keys(config: &Config, databases: &Databases) -> Check {
    let name = "keys";
    let configured = config.master_key.as_ref().map(crate::config::Redacted::expose);
    let missing = configured.is_none() && !config.data_dir.join(MASTER_KEY_FILE).exists();
    let pool = postgres::pool(&databases.keys, &PoolSettings::interactive("tidemark-doctor", 1));
    let check = async {
        let stored: bool = sqlx::query_scalar("SELECT to_regclass('subject_keys') IS NOT NULL")
            .fetch_one(&pool)
            .await?;
        if !stored {
            return Ok(Check::ok(name, "none yet"));
        }
        if missing {
            let hint = "restore the master key file: without it nothing personal can be read";
            return Ok(Check::fail(name, "there are keys and no master key", hint));
        }
        let masters = Masters::obtain(configured, &config.data_dir)?;
        let store = PostgresKeyStore::open(pool.clone()).await?;
        let keyring = Keyring::new(Arc::new(store), masters, CacheLimits::default());
        keyring.check_master().await?;
        Ok(Check::ok(name, "the master key opens what is stored"))
    };
    let checked: anyhow::Result<Check> = check.await;
    pool.close().await;
    checked.unwrap_or_else(|error| {
        let hint = "restore the master key or the key store that belong to this log";
        Check::fail(name, report::one_line(&error), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn migrations_are_compared_both_ways() {
        let state = |applied: &[(i64, bool)]| compare_migrations(applied, &[1, 2]).state;
        assert_eq!(state(&[(1, true), (2, true)]), State::Ok);
        assert_eq!(state(&[(1, true)]), State::Warn);
        assert_eq!(state(&[(1, true), (2, false)]), State::Fail);
        assert_eq!(state(&[(1, true), (2, true), (3, true)]), State::Fail);
    }
}
