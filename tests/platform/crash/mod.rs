//! Whatever is killed, and whenever: what was answered is there, once, and all that follows from
//! the log still follows.
//!
//! In a round people write while something dies at a random moment. They repeat, byte for byte,
//! whatever was not answered, as phones do. When all of it is answered, everything is audited.
//!
//! `TIDEMARK_CRASH_ROUNDS` says how many rounds, `TIDEMARK_CRASH_SEED` which ones: the same seed
//! gives the same faults and the same requests, though not the same interleaving.

pub mod audit;
mod faults;
pub mod people;
mod two_servers;

use std::sync::Arc;
use std::time::Duration;

use tidemark::postgres::Cluster;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::faults::Fault;
use self::people::{Person, Shared};
use crate::dice::Dice;
use crate::served::{Served, command};
use crate::support::{DataDir, embedded_config};

/// People who write at once.
const PEOPLE: usize = 6;
/// Rounds unless the environment says otherwise: each fault comes up once.
const ROUNDS: u64 = Fault::ALL.len() as u64;
/// Rounds on one log. An audit reads all of it, so a new one is begun now and then.
const ROUNDS_A_LOG: u64 = 20;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_nothing_answered_is_lost_or_doubled() {
    let rounds = number("TIDEMARK_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("TIDEMARK_CRASH_SEED")
        .unwrap_or_else(|| tidemark::clock::now_ms().unsigned_abs() % 1_000_000);
    println!("TIDEMARK_CRASH_ROUNDS={rounds} TIDEMARK_CRASH_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut round = 0;
    while round < rounds {
        let last = rounds.min(round + ROUNDS_A_LOG);
        let mut log = Log::start(&mut dice).await;
        while round < last {
            round += 1;
            let fault = Fault::nth(round, &mut dice);
            println!("round {round}: {fault:?}");
            log.round(fault, &mut dice).await;
        }
        log.end();
    }
}

/// One data directory, its server and the people who use it.
struct Log {
    directory: DataDir,
    server: Option<Served>,
    bases: watch::Sender<Vec<String>>,
    shared: Arc<Shared>,
    people: Vec<Person>,
}

impl Log {
    async fn start(dice: &mut Dice) -> Self {
        let directory = DataDir::new();
        let server = Served::start(&directory.path());
        let bases = watch::Sender::new(vec![server.base.clone()]);
        let shared = Arc::new(Shared::new(bases.subscribe()));
        let mut people = Vec::new();
        for n in 0..PEOPLE {
            let client = server.client(&directory.path(), &format!("person-{n}"));
            people.push(Person::new(client, Dice::new(dice.next())));
        }
        Self { directory, server: Some(server), bases, shared, people }
    }

    /// Some writing, a fault in the midst of it, some more writing, and the audit.
    async fn round(&mut self, fault: Fault, dice: &mut Dice) {
        let writing = begin(self.people.drain(..), &self.shared);
        self.shared.until_begun(dice.between(1, 4 * PEOPLE as u64)).await;
        // Somewhere within what has just begun.
        tokio::time::sleep(Duration::from_micros(dice.below(8_000))).await;
        fault.strike(&self.directory.path(), &mut self.server, dice).await;
        if self.server.is_none() {
            let server = Served::start(&self.directory.path());
            self.bases.send_replace(vec![server.base.clone()]);
            self.server = Some(server);
            faults::end_leases(&self.directory.path()).await;
        }
        // Where the server lives it recovers without anybody's help.
        self.shared.until_answered(2 * PEOPLE as u64).await;
        self.people = finish(writing, &self.shared).await;
        let base = self.bases.borrow()[0].clone();
        let data_dir = self.directory.path();
        let log = Cluster::beside(&embedded_config(&data_dir), "tidemark").expect("a socket");
        audit::audit(&log, command(&data_dir), &base, &self.people).await;
    }

    fn end(mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// Lets everybody write.
pub fn begin(
    people: impl Iterator<Item = Person>,
    shared: &Arc<Shared>,
) -> Vec<JoinHandle<Person>> {
    shared.go_on();
    people.map(|person| tokio::spawn(person.write(Arc::clone(shared)))).collect()
}

/// Nobody begins anything new; whatever is unanswered is repeated until it is answered.
pub async fn finish(writing: Vec<JoinHandle<Person>>, shared: &Shared) -> Vec<Person> {
    shared.stop();
    let mut people = Vec::new();
    for person in writing {
        people.push(person.await.expect("the person finishes"));
    }
    people
}
