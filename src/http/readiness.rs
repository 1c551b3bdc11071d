//! Whether this process can serve, by named conditions.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::state::{Check, Readiness};
use crate::app::App;
use crate::postgres::space;
use crate::read_models::ReadModel;

/// A database that has not answered by then counts as down.
const PATIENCE: Duration = Duration::from_secs(2);

/// The conditions of the running system.
pub struct SystemReadiness(pub Arc<OnceLock<Arc<App>>>);

impl Readiness for SystemReadiness {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let Some(app) = self.0.get() else {
                let detail = Some("the system is still starting".to_owned());
                return vec![Check { name: "started".to_owned(), ok: false, detail }];
            };
            let log = tokio::time::timeout(PATIENCE, app.store.head()).await;
            let log = log.map_or_else(
                |_| Err("no answer".to_owned()),
                |head| head.map_err(|error| error.to_string()),
            );
            let disk = tokio::time::timeout(PATIENCE, space::check(app.store.pool())).await;
            let disk = disk.map_or_else(
                |_| Err("no answer".to_owned()),
                |checked| checked.map_err(|error| error.to_string()),
            );
            let keys =
                tokio::time::timeout(PATIENCE, app.store.sealer().keyring().check_master()).await;
            let keys = keys.map_or_else(
                |_| Err("no answer".to_owned()),
                |checked| checked.map_err(|error| error.to_string()),
            );
            let projectors = tokio::time::timeout(PATIENCE, projectors(app)).await;
            let projectors = projectors.unwrap_or_else(|_| Err("no answer".to_owned()));
            vec![
                check("log", log),
                check("disk", disk),
                check("keys", keys),
                projectors_check(projectors),
            ]
        })
    }
}

/// One line on each live read model; an error where one has none.
async fn projectors(app: &App) -> Result<String, String> {
    let head = app.store.head().await.map_err(|error| error.to_string())?.position;
    let listed = app.generations().await.map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    for model in ReadModel::ALL {
        let name = model.spec().name;
        let live = listed.iter().find(|one| one.projector == name && one.state == "live");
        let live = live.ok_or_else(|| format!("{name} has not been built yet"))?;
        let lag = (head - live.position).max(0);
        lines.push(format!("{name}: {lag} behind, {} parked", live.parked));
    }
    Ok(lines.join("; "))
}

/// Lag and parked people are told but do not make the server unready: it answers, and says of
/// every row how fresh it is.
fn projectors_check(result: Result<String, String>) -> Check {
    let ok = result.is_ok();
    let detail = match result {
        Ok(detail) | Err(detail) => detail,
    };
    Check { name: "projectors".to_owned(), ok, detail: Some(detail) }
}

fn check<T>(name: &str, result: Result<T, String>) -> Check {
    Check { name: name.to_owned(), ok: result.is_ok(), detail: result.err() }
}
