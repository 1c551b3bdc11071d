//! Whether this process can serve, by named conditions.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::state::{Check, Readiness};
use crate::app::App;

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
            let keys =
                tokio::time::timeout(PATIENCE, app.store.sealer().keyring().check_master()).await;
            let keys = keys.map_or_else(
                |_| Err("no answer".to_owned()),
                |checked| checked.map_err(|error| error.to_string()),
            );
            vec![check("log", log), check("keys", keys)]
        })
    }
}

fn check<T>(name: &str, result: Result<T, String>) -> Check {
    Check { name: name.to_owned(), ok: result.is_ok(), detail: result.err() }
}
