//! Looks at the conditions of readiness while nobody asks, and says once what changed.
//!
//! One line when a condition ceases to hold, with what to do, and one when it holds again: a request
//! that fails says so a thousand times, and that is no way to hear of trouble. The same conditions
//! are shown by `/readyz` and, as numbers, by `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::app::App;
use crate::auth::{JwksHealth, Verifier};
use crate::http::readiness::{Behind, SystemReadiness, behind};
use crate::http::state::{Check, Readiness};
use crate::metrics::CHECK_OK;

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// A read model that is further behind is worth a line.
const LATE_S: i64 = 60;

/// What to do when a condition does not hold: its name, what is wrong, and the way out.
pub const ACTIONS: [(&str, &str, &str); 7] = [
    (
        "log",
        "the log's database cannot be used",
        "bring Postgres back, or let it be the primary again; phones keep their data and repeat",
    ),
    (
        "disk",
        "the log's disk is full",
        "make room where Postgres keeps its data: retired generations and write-ahead log take most",
    ),
    (
        "appends",
        "the log answers but takes nothing",
        "look for a full disk and for locks on its server; the line `append failed` has the cause",
    ),
    (
        "keys",
        "the key store cannot be used",
        "bring it back, or give this process the master key that is named",
    ),
    (
        "identity",
        "no identity provider's tokens can be verified",
        "see that this host reaches the key sets' addresses",
    ),
    (
        "projectors",
        "a read model cannot be served",
        "see `tidemark projectors list`; a first build ends by itself",
    ),
    ("started", "the system is starting", "wait"),
];

/// What was last seen.
#[derive(Default)]
struct Seen {
    /// Conditions that do not hold, and since when.
    broken: BTreeMap<String, Instant>,
    /// Issuers without usable keys.
    keyless: BTreeSet<String>,
    late: BTreeMap<&'static str, i64>,
    parked: BTreeMap<&'static str, i64>,
}

/// Starts watching; ends when the returned task is aborted.
pub fn start(readiness: SystemReadiness, verifier: Arc<Verifier>, app: Arc<App>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut seen = Seen::default();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            verifier.tend().await;
            seen.issuers(&verifier.health());
            seen.conditions(&readiness.checks().await);
            if let Ok(Ok(all)) = tokio::time::timeout(EVERY, behind(&app)).await {
                seen.read_models(&all);
            }
        }
    })
}

impl Seen {
    fn conditions(&mut self, checks: &[Check]) {
        for check in checks {
            metrics::gauge!(CHECK_OK, "check" => check.name.clone()).set(if check.ok {
                1.0
            } else {
                0.0
            });
            match (check.ok, self.broken.get(&check.name)) {
                (false, None) => {
                    let found = ACTIONS.iter().find(|(name, ..)| *name == check.name);
                    let (_, wrong, action) =
                        found.unwrap_or(&("", "a condition does not hold", ""));
                    let detail = check.detail.as_deref().unwrap_or_default();
                    tracing::error!(check = check.name, detail, action, "{wrong}");
                    self.broken.insert(check.name.clone(), Instant::now());
                }
                (true, Some(since)) => {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(check = check.name, seconds, "the condition holds again");
                    self.broken.remove(&check.name);
                }
                _ => {}
            }
        }
    }

    /// One issuer without keys leaves the server ready for the others.
    fn issuers(&mut self, all: &[JwksHealth]) {
        for JwksHealth { issuer, failure, usable, .. } in all {
            if *usable {
                if self.keyless.remove(issuer) {
                    tracing::info!(issuer, "an identity provider's tokens are verified again");
                }
            } else if self.keyless.insert(issuer.clone()) {
                tracing::error!(
                    issuer,
                    cause = failure,
                    action = "see that this host reaches the key set's address",
                    "tokens of an identity provider cannot be verified"
                );
            }
        }
    }

    fn read_models(&mut self, all: &[Behind]) {
        for Behind { projector, lag, age_s, parked } in all {
            let was = self.parked.insert(projector, *parked).unwrap_or(0);
            if *parked > was {
                tracing::error!(
                    projector,
                    parked,
                    action =
                        "see `tidemark projectors list`; fix the cause, then `projectors retry`",
                    "a read model is parked for people whose data it failed on"
                );
            } else if *parked == 0 && was > 0 {
                tracing::info!(projector, "a read model is parked for nobody any more");
            }
            let late = *age_s >= LATE_S;
            let was = self.late.insert(projector, *age_s).is_some_and(|age_s| age_s >= LATE_S);
            if late && !was {
                tracing::warn!(
                    projector,
                    lag,
                    age_s,
                    action = "see whether projecting fails or another process holds its lease",
                    "a read model falls behind the log"
                );
            } else if !late && was {
                tracing::info!(projector, lag, "a read model has caught up");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_model_that_falls_behind_or_is_parked_is_remembered() {
        let mut seen = Seen::default();
        let behind = |age_s, parked| [Behind { projector: "entities", lag: 9, age_s, parked }];
        seen.read_models(&behind(LATE_S, 2));
        assert_eq!((seen.late["entities"], seen.parked["entities"]), (LATE_S, 2));
        seen.read_models(&behind(0, 0));
        assert_eq!((seen.late["entities"], seen.parked["entities"]), (0, 0));
    }

    #[test]
    fn an_issuer_without_keys_is_remembered_until_it_has_some() {
        let mut seen = Seen::default();
        let health = |usable| {
            let issuer = "https://id.example".to_owned();
            [JwksHealth { issuer, age: None, failure: None, usable }]
        };
        seen.issuers(&health(false));
        assert!(seen.keyless.contains("https://id.example"));
        seen.issuers(&health(true));
        assert!(seen.keyless.is_empty());
    }

    #[test]
    fn a_change_is_told_once_and_remembered() {
        let mut seen = Seen::default();
        let check = |ok| [Check { name: "log".to_owned(), ok, detail: None }];
        seen.conditions(&check(true));
        assert!(seen.broken.is_empty());
        seen.conditions(&check(false));
        let since = seen.broken["log"];
        seen.conditions(&check(false));
        assert_eq!(seen.broken["log"], since, "the second look says nothing");
        seen.conditions(&check(true));
        assert!(seen.broken.is_empty());
    }
}
