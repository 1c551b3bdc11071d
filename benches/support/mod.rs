//! What the benches share.
//!
//! Every comparison runs both sides in one process on one Postgres, in turns: the machine's mood
//! then hits both alike, and the ratio survives what the absolute numbers do not.

#![allow(dead_code, reason = "each bench uses its own part of the support")]
#![allow(clippy::expect_used, reason = "a bench that cannot run fails by panicking")]

pub mod load;
pub mod ours;
pub mod peers;
pub mod report;
pub mod script;
pub mod server;
pub mod stats;
pub mod world;

use std::future::Future;
use std::time::Duration;

/// Shortens everything to a smoke test of one or two minutes.
const QUICK: &str = "TIDEMARK_BENCH_QUICK";

/// How much a bench does.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub quick: bool,
}

impl Scale {
    /// Quick if the environment or an argument `--quick` says so.
    pub fn of_process() -> Self {
        let asked = std::env::var_os(QUICK).is_some_and(|value| !value.is_empty() && value != "0");
        Self { quick: asked || std::env::args().any(|argument| argument == "--quick") }
    }

    pub fn pick<T>(self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How often each side has its turn.
    pub fn pairs(self) -> usize {
        self.pick(3, 7)
    }

    /// How long a turn lasts.
    pub fn turn(self) -> Duration {
        self.pick(Duration::from_millis(1500), Duration::from_secs(4))
    }

    /// A turn before the first, that nobody counts: connections, plans and caches.
    pub fn warm_up(self) -> Duration {
        self.turn() / 3
    }
}

/// Runs a bench on the runtime that the server uses.
pub fn run(bench: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(bench);
}
