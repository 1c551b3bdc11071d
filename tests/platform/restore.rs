//! Dumps of the log and of the key store, taken and restored as the documentation says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use tidemark::postgres::{Cluster, create_database_if_missing};
use tokio::sync::watch;

use crate::crash::people::{Person, Shared};
use crate::crash::{audit, begin, finish};
use crate::dice::Dice;
use crate::served::{Client, Served, command, command_on, url};
use crate::support::{DataDir, TestDatabase, connect, database, empty_database, skip};

const PEOPLE: usize = 3;

/// A program of Postgres, beside the ones that tests run on or wherever the shell finds it.
fn program(name: &str) -> Command {
    let chosen = std::env::var_os("TIDEMARK_POSTGRES_BIN").map(PathBuf::from);
    let beside = chosen.map(|directory| directory.join(name)).filter(|program| program.is_file());
    Command::new(beside.unwrap_or_else(|| name.into()))
}

fn done(output: std::io::Result<Output>) {
    let output = output.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The command of docs/operations.md.
fn dump_log(options: &PgConnectOptions, file: &Path) {
    let mut dump = program("pg_dump");
    dump.args(["--format=custom", "--exclude-schema=p_*", "--exclude-table=live.*"]);
    dump.arg("--exclude-table-data=projector.*").arg("--file").arg(file);
    done(dump.arg(url(options)).output());
}

fn dump_keys(options: &PgConnectOptions, file: &Path) {
    done(
        program("pg_dump").args(["--format=custom", "--file"]).arg(file).arg(url(options)).output(),
    );
}

fn restore(file: &Path, options: &PgConnectOptions) {
    let mut restore = program("pg_restore");
    done(restore.args(["--exit-on-error", "--dbname"]).arg(url(options)).arg(file).output());
}

/// What the tests are about: one log with its people, and dumps taken at several moments.
struct Original {
    directory: DataDir,
    people: Vec<Person>,
    /// Came after the first dump of the keys.
    late: Client,
    /// Erased between the first and the second dump of the log.
    gone: Client,
    gone_id: String,
}

impl Original {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().with_file_name(name)
    }

    async fn make() -> Self {
        let directory = DataDir::new();
        let (data_dir, database) = (directory.path(), database().await);
        let (log, keys) = (&database.log, &database.keys);
        let server = Served::start_as(program_on(&data_dir, &database));
        let mut dice = Dice::new(3);
        let people = (0..PEOPLE)
            .map(|n| server.client(&data_dir, &format!("person-{n}")))
            .map(|client| Person::new(client, Dice::new(dice.next())))
            .collect::<Vec<_>>();
        let gone = server.client(&data_dir, "gone");
        let gone_id = me(&gone, &server.base).await.1["data"]["id"].as_str().unwrap().to_owned();
        let people = write(people, &server.base).await;
        let late = server.client(&data_dir, "late");
        let this = Self { directory, people, late, gone, gone_id };

        dump_keys(keys, &this.file("keys.early"));
        assert_eq!(me(&this.late, &server.base).await.0, 200);
        dump_log(log, &this.file("log"));
        dump_keys(keys, &this.file("keys"));
        let erase = ["erase", &this.gone_id, "--yes"];
        done(program_on(&data_dir, &database).args(erase).output());
        dump_log(log, &this.file("log.erased"));
        dump_keys(keys, &this.file("keys.erased"));
        server.stop();
        this
    }

    /// Databases restored from these dumps, and the program that serves them.
    async fn restored(&self, log: &str, keys: &str) -> (TestDatabase, Command) {
        let database = empty_database().await;
        roles(&database.log).await;
        restore(&self.file(log), &database.log);
        restore(&self.file(keys), &database.keys);
        let program = self.program_on(&database);
        (database, program)
    }

    fn program_on(&self, database: &TestDatabase) -> Command {
        program_on(&self.directory.path(), database)
    }
}

/// With the master key of the data directory.
fn program_on(data_dir: &Path, database: &TestDatabase) -> Command {
    let mut program = command_on(data_dir, database);
    program.env_remove("TIDEMARK_MASTER_KEY");
    program
}

/// Roles belong to the cluster and so are in no dump of a database.
async fn roles(options: &PgConnectOptions) {
    let mut db = connect(options).await;
    for role in ["tidemark_app", "tidemark_interop"] {
        // Another log in the cluster may have made them.
        let _ = sqlx::query(&format!("CREATE ROLE {role} NOLOGIN")).execute(&mut db).await;
    }
}

async fn write(people: Vec<Person>, base: &str) -> Vec<Person> {
    let bases = watch::Sender::new(vec![base.to_owned()]);
    let shared = Arc::new(Shared::new(bases.subscribe()));
    let writing = begin(people.into_iter(), &shared);
    shared.until_answered(5 * PEOPLE as u64).await;
    finish(writing, &shared).await
}

async fn me(client: &Client, base: &str) -> (u16, Value) {
    let answer = client.at(base).send(reqwest::Method::GET, "/api/v1/users/me", None).await;
    let answer = answer.expect("an answer");
    (answer.status, answer.body)
}

/// The faults that `verify all` finds, as kind and detail.
fn faults(mut program: Command) -> Vec<(String, String)> {
    let output = program.args(["verify", "all", "--json"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"));
    let parts = report["parts"].as_array().expect("parts");
    let faults = parts.iter().flat_map(|part| part["first"].as_array().expect("faults"));
    let text = |fault: &Value, name: &str| fault[name].as_str().unwrap_or_default().to_owned();
    let faults: Vec<_> = faults.map(|it| (text(it, "kind"), text(it, "detail"))).collect();
    assert_eq!(output.status.success(), faults.is_empty(), "{report}");
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_log_is_whole_and_one_that_does_not_fit_its_keys_says_so() {
    if let Err(reason) = program("pg_dump").arg("--version").output() {
        return skip("dumps, as pg_dump does not run here", &reason.to_string());
    }
    let mut original = Original::make().await;
    into_a_new_cluster(&mut original).await;
    keys_older_than_the_log(&original).await;
    log_older_than_an_erasure(&original).await;
    keys_older_than_an_erasure(&original).await;
}

/// The log's dump and a later one of the keys: everything is there and goes on.
async fn into_a_new_cluster(original: &mut Original) {
    let directory = DataDir::new();
    let data_dir = directory.path();
    let cluster = Cluster::start(&directory.config()).await.expect("a new cluster");
    let (log, keys) =
        (cluster.connect_options("tidemark"), cluster.connect_options("tidemark_keys"));
    for options in [&log, &keys] {
        create_database_if_missing(options).await.expect("created");
    }
    roles(&log).await;
    restore(&original.file("log"), &log);
    restore(&original.file("keys"), &keys);
    cluster.stop().await;
    for file in ["master.key", "dev-issuer.pk8"] {
        std::fs::copy(original.directory.path().join(file), data_dir.join(file)).expect("copied");
    }
    let server = Served::start(&data_dir);
    let people = std::mem::take(&mut original.people);
    audit::audit(&log, command(&data_dir), &server.base, &people).await;
    let as_app: bool = sqlx::query_scalar(
        "SELECT has_function_privilege('tidemark_app', oid, 'EXECUTE') \
         AND NOT has_table_privilege('tidemark_app', 'events', 'INSERT') \
         FROM pg_proc WHERE proname = 'append'",
    )
    .fetch_one(&mut connect(&log).await)
    .await
    .expect("an answer");
    assert!(as_app, "the server's role came back with its privileges");
    let people = write(people, &server.base).await;
    audit::audit(&log, command(&data_dir), &server.base, &people).await;
    original.people = people;
    server.stop();
}

/// Who came after the dump of the keys cannot be read: an alarm, and no word of an erasure.
async fn keys_older_than_the_log(original: &Original) {
    let (database, program) = original.restored("log", "keys.early").await;
    let server = Served::start_as(program);
    let (status, body) = me(&original.late, &server.base).await;
    assert_eq!((status, &body["error"]["code"]), (500, &"INTERNAL_SERVER_ERROR".into()), "{body}");
    assert_eq!(me(&original.gone, &server.base).await.0, 200, "others are served");
    let faults = faults(original.program_on(&database));
    assert!(!faults.is_empty());
    let missing = |(kind, detail): &(String, String)| kind == "key" && detail.contains("missing");
    assert!(faults.iter().any(missing), "{faults:?}");
    server.stop();
}

/// The keys of the erased are gone and the restored log does not know why.
async fn log_older_than_an_erasure(original: &Original) {
    let (database, program) = original.restored("log", "keys.erased").await;
    let server = Served::start_as(program);
    let (status, body) = me(&original.gone, &server.base).await;
    assert_eq!((status, &body["error"]["code"]), (500, &"INTERNAL_SERVER_ERROR".into()), "{body}");
    let found = faults(original.program_on(&database));
    assert!(found.iter().any(|(kind, detail)| kind == "key" && detail.contains(&original.gone_id)));
    // What the operator does.
    let erase = ["erase", &original.gone_id, "--yes"];
    done(original.program_on(&database).args(erase).output());
    // A server that knew the person hears of it within half a minute; till then it finds nothing.
    assert!([404, 410].contains(&me(&original.gone, &server.base).await.0));
    server.stop();
    assert_eq!(faults(original.program_on(&database)), []);
}

/// The keys of the erased are back: nothing is served with them, and the check names them.
async fn keys_older_than_an_erasure(original: &Original) {
    let (database, program) = original.restored("log.erased", "keys").await;
    let server = Served::start_as(program);
    assert_eq!(me(&original.gone, &server.base).await.0, 410);
    let found = faults(original.program_on(&database));
    let back = |(kind, detail): &(String, String)| {
        kind == "key" && detail.contains(&original.gone_id) && detail.contains("destroyed")
    };
    assert!(!found.is_empty() && found.iter().all(back), "{found:?}");
    let erase = ["erase", &original.gone_id, "--yes"];
    done(original.program_on(&database).args(erase).output());
    server.stop();
    assert_eq!(faults(original.program_on(&database)), []);
}
