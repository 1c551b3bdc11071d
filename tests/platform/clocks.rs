//! Clocks that jump, of the database and of the server, in running programs.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use sqlx::{Connection, PgConnection};
use tidemark::postgres::Cluster;
use tokio::sync::watch;

use crate::crash::people::{Person, Shared};
use crate::crash::{audit, begin, finish};
use crate::dice::Dice;
use crate::served::{Served, command};
use crate::support::{DataDir, embedded_config, skip};

const PEOPLE: usize = 4;
const HOUR: i64 = 3600;

/// Clocks that differ from the real one by what a file says.
struct Clocks {
    library: PathBuf,
    file: PathBuf,
}

impl Clocks {
    /// Compiles what makes programs read the file, or says why that is not possible here.
    fn make(directory: &DataDir) -> Result<Self, String> {
        if !cfg!(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")) {
            return Err("it needs Linux with the GNU C library".to_owned());
        }
        let path = |name| directory.path().with_file_name(name);
        let clocks = Self { library: path("clock.so"), file: path("clocks") };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/clock/lib.rs");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut compile = Command::new(compiler);
        compile.args(["--edition", "2024", "--crate-type", "cdylib", "-O", source, "-o"]);
        match compile.arg(&clocks.library).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => return Err(error.to_string()),
        }
        std::fs::write(&clocks.file, [0; 16]).expect("written");
        Ok(clocks)
    }

    /// Moves both clocks to so many seconds from the real time.
    fn set(&self, database: i64, server: i64) {
        let file = std::fs::File::options().write(true).open(&self.file).expect("the file");
        for (at, seconds) in [(0, database), (8, server)] {
            file.write_all_at(&seconds.to_ne_bytes(), at).expect("written");
        }
    }

    fn command(&self, directory: &DataDir) -> Command {
        let mut command = command(&directory.path());
        command.env("LD_PRELOAD", &self.library).env("TIDEMARK_TEST_CLOCK", &self.file);
        command
    }
}

/// The time the database believes in, that at which the server recorded the last event, and that
/// of the log's head.
async fn times(db: &mut PgConnection) -> (i64, i64, i64) {
    let query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
                 (extract(epoch FROM recorded_at) * 1000)::bigint, h.committed_ms \
                 FROM log_head h JOIN events USING (position)";
    sqlx::query_as(query).fetch_one(db).await.expect("times")
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_may_jump_and_nothing_goes_back() {
    let directory = DataDir::new();
    let clocks = match Clocks::make(&directory) {
        Ok(clocks) => clocks,
        Err(reason) => {
            return skip("clocks, as none can be moved here", &reason);
        }
    };
    let mut server = Served::start_as(clocks.command(&directory));
    let bases = watch::Sender::new(vec![server.base.clone()]);
    let shared = Arc::new(Shared::new(bases.subscribe()));
    let log = Cluster::beside(&embedded_config(directory.path()), "tidemark").expect("a socket");
    let mut db = PgConnection::connect_with(&log).await.expect("Postgres answers");
    let mut dice = Dice::new(8);
    let mut people = (0..PEOPLE)
        .map(|n| server.client(&directory.path(), &format!("person-{n}")))
        .map(|client| Person::new(client, Dice::new(dice.next())))
        .collect::<Vec<_>>();

    let mut head_ms = 0;
    for (database, here) in [(0, 0), (HOUR, 0), (-2 * HOUR, 0), (0, -2 * HOUR), (0, HOUR), (0, 0)] {
        let writing = begin(people.into_iter(), &shared);
        shared.until_answered(PEOPLE as u64).await;
        // In the midst of it.
        if database < 0 {
            // Its leases end by a clock that is not there any more.
            server.kill();
            clocks.set(database, here);
            server = Served::start_as(clocks.command(&directory));
            bases.send_replace(vec![server.base.clone()]);
        }
        clocks.set(database, here);
        shared.until_answered(2 * PEOPLE as u64).await;
        people = finish(writing, &shared).await;
        let (now, recorded, committed_ms) = times(&mut db).await;
        let real = tidemark::clock::now_ms();
        for (clock, offset) in [(now, database), (recorded, here)] {
            assert!((clock - real - offset * 1000).abs() < 60_000, "the clock did not move");
        }
        assert!(committed_ms >= head_ms, "the time of the log goes back");
        head_ms = committed_ms;
        if database < 0 {
            audit::audit(&log, clocks.command(&directory), &server.base, &people).await;
        }
    }
    audit::audit(&log, clocks.command(&directory), &server.base, &people).await;
    let (real, committed_ms) = (tidemark::clock::now_ms(), head_ms);
    assert!(committed_ms > real + HOUR * 900, "the log waits for the real time to pass its own");
    db.close().await.expect("closed");
    server.stop();
}
