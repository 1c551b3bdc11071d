//! Whether this process can serve, by named conditions.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::state::{Check, Readiness};
use crate::app::App;
use crate::auth::Verifier;
use crate::clock;
use crate::metrics::PROJECTOR_LAG_SECONDS;
use crate::postgres::space::Room;
use crate::read_models::ReadModel;

/// A database that has not answered by then counts as down.
const PATIENCE: Duration = Duration::from_secs(2);

/// The conditions of the running system.
#[derive(Clone)]
pub struct SystemReadiness {
    pub app: Arc<OnceLock<Arc<App>>>,
    pub verifier: Arc<Verifier>,
    pub room: Room,
}

/// How far a read model is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    pub projector: &'static str,
    /// In positions.
    pub lag: i64,
    /// Age of the first event it has not seen to, in seconds; 0 at the head.
    pub age_s: i64,
    /// People it failed on.
    pub parked: i64,
}

impl Readiness for SystemReadiness {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let Some(app) = self.app.get() else {
                return vec![check("started", Err("the system is still starting".to_owned()))];
            };
            let keyring = app.store.sealer().keyring();
            let fails = app.store.append_fails();
            let (log, disk, keys, projectors) = tokio::join!(
                answered(app.store.is_writable()),
                answered(self.room.check(app.store.pool(), fails)),
                answered(keyring.check_master()),
                answered(behind(app)),
            );
            let log = log.and_then(|writable| match writable {
                true => Ok(()),
                false => Err("the database is read-only or a standby".to_owned()),
            });
            let appends = match fails {
                false => Ok(()),
                true => Err("the last append failed".to_owned()),
            };
            vec![
                check("log", log),
                check("disk", disk),
                check("appends", appends),
                check("keys", keys),
                identity(&self.verifier),
                projectors_check(projectors),
            ]
        })
    }
}

/// What `question` answers in time.
async fn answered<T, E: Display>(
    question: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// How far each read model is behind; an error where one has not been built yet.
///
/// # Errors
/// What is missing, for operators.
pub async fn behind(app: &App) -> Result<Vec<Behind>, String> {
    let head = app.store.head().await.map_err(|error| error.to_string())?.position;
    let listed = app.generations().await.map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for model in ReadModel::ALL {
        let name = model.spec().name;
        let live = listed.iter().find(|one| one.projector == name && one.state == "live");
        let live = live.ok_or_else(|| format!("{name} has not been built yet"))?;
        let lag = (head - live.position).max(0);
        let mut age_s = 0;
        if lag > 0 {
            let next = app.store.committed_at(live.position + 1).await;
            let at = next.map_err(|error| error.to_string())?;
            age_s = at.map_or(0, |at| (clock::now_ms() - at).max(0) / 1000);
        }
        metrics::gauge!(PROJECTOR_LAG_SECONDS, "name" => name).set(age_s as f64);
        all.push(Behind { projector: name, lag, age_s, parked: live.parked });
    }
    Ok(all)
}

/// Lag and parked people are told but do not make the server unready: it answers, and says of
/// every row how fresh it is.
fn projectors_check(result: Result<Vec<Behind>, String>) -> Check {
    let ok = result.is_ok();
    let detail = result.map_or_else(
        |error| error,
        |all| {
            let line =
                |it: &Behind| format!("{}: {} behind, {} parked", it.projector, it.lag, it.parked);
            all.iter().map(line).collect::<Vec<_>>().join("; ")
        },
    );
    Check { name: "projectors".to_owned(), ok, detail: Some(detail) }
}

/// Whether the tokens of some issuer can be verified: one provider that is away is no reason to turn
/// the others' people away. It is told, as is a set that is merely not young.
fn identity(verifier: &Verifier) -> Check {
    let all = verifier.health();
    let told = all.iter().filter_map(|set| {
        let failure = set.failure.as_ref();
        let cause = failure.map_or("not fetched yet", String::as_str);
        let age = set.age.map(|age| age.as_secs());
        (failure.is_some() || !set.usable).then(|| match age {
            Some(age) => format!("{}: {cause}; keys are {age} s old", set.issuer),
            None => format!("{}: {cause}; no keys", set.issuer),
        })
    });
    let told: Vec<String> = told.collect();
    Check {
        name: "identity".to_owned(),
        ok: verifier.is_usable(),
        detail: (!told.is_empty()).then(|| told.join("; ")),
    }
}

fn check(name: &str, result: Result<(), String>) -> Check {
    Check { name: name.to_owned(), ok: result.is_ok(), detail: result.err() }
}
