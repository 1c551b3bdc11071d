//! `tidemark keys`: which master keys wrap what, and the rotation of these and of the lookup key.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::output::{Progress, Table, Terminal};
use super::report;
use crate::app::App;
use crate::config::Config;
use crate::keys::rotate::BATCH;
use crate::keys::{Keyring, MasterState, ServerKeyName};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Which master keys wrap what, and the generations of the lookup key
    Status {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Wrap everything anew under a new master key, while servers run; after a crash, run it again
    Rotate {
        /// Keys wrapped anew in one transaction
        #[arg(long, value_name = "N", default_value_t = BATCH,
              value_parser = clap::value_parser!(i64).range(1..=10_000))]
        batch: i64,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Begin a new generation of the key of pseudonyms; people move to it when they come back
    RotateLookup {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Serialize)]
struct Status {
    master_keys: Vec<Master>,
    lookup_keys: Vec<Generation>,
}

#[derive(Debug, Serialize)]
struct Master {
    id: String,
    state: &'static str,
    /// Whether this process knows it.
    at_hand: bool,
    subject_keys: i64,
    server_keys: i64,
}

#[derive(Debug, Serialize)]
struct Generation {
    key_id: Uuid,
    generation: i32,
    age_s: i64,
    /// Names held under it: identities, user names, markers of erased accounts.
    names: i64,
}

pub(super) async fn run(config: &Config, action: &Action) -> anyhow::Result<ExitCode> {
    let app = App::beside(config).await?;
    let done = match action {
        Action::Status { json } => status(&app, *json).await,
        Action::Rotate { batch, json } => rotate(&app, *batch, *json).await,
        Action::RotateLookup { json } => rotate_lookup(&app, *json).await,
    };
    app.stop().await;
    done
}

async fn status(app: &App, json: bool) -> anyhow::Result<ExitCode> {
    let keyring = app.store.sealer().keyring();
    let status =
        Status { master_keys: masters(keyring).await?, lookup_keys: generations(app).await? };
    if json {
        report::json(&status)?;
    } else {
        report::text(&render(&status, Terminal::of_stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn masters(keyring: &Keyring) -> anyhow::Result<Vec<Master>> {
    let at_hand = keyring.masters().ids();
    let wrapped = keyring.store().wrapped().await?;
    let masters = keyring.store().masters().await?.into_iter().map(|master| {
        let counts = wrapped.iter().find(|wrapped| wrapped.kek_id == master.kek_id);
        Master {
            state: master.state.as_str(),
            at_hand: at_hand.contains(&master.kek_id),
            subject_keys: counts.map_or(0, |counts| counts.subject_keys),
            server_keys: counts.map_or(0, |counts| counts.server_keys),
            id: master.kek_id,
        }
    });
    Ok(masters.collect())
}

async fn generations(app: &App) -> anyhow::Result<Vec<Generation>> {
    let counted: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT key_id, count(*) FROM reservations WHERE key_id IS NOT NULL GROUP BY 1",
    )
    .fetch_all(app.store.pool())
    .await?;
    let names: BTreeMap<Uuid, i64> = counted.into_iter().collect();
    let keys = app.store.sealer().keyring().store().server_keys(ServerKeyName::Lookup).await?;
    let generation = |key: crate::keys::StoredServerKey| Generation {
        key_id: key.key_id,
        generation: key.generation,
        age_s: key.age_ms / 1000,
        names: names.get(&key.key_id).copied().unwrap_or(0),
    };
    Ok(keys.into_iter().map(generation).collect())
}

fn render(status: &Status, terminal: Terminal) -> String {
    let mut masters = Table::new(["master key", "state", "at hand", "#people's keys", "#own keys"]);
    for key in &status.master_keys {
        masters.row([
            key.id.clone(),
            key.state.to_owned(),
            if key.at_hand { "yes" } else { "no" }.to_owned(),
            key.subject_keys.to_string(),
            key.server_keys.to_string(),
        ]);
    }
    let mut lookup = Table::new(["lookup key", "#generation", "#age in s", "#names"]);
    for key in &status.lookup_keys {
        lookup.row([
            key.key_id.to_string(),
            key.generation.to_string(),
            key.age_s.to_string(),
            key.names.to_string(),
        ]);
    }
    format!("{}\n{}", masters.render(terminal), lookup.render(terminal))
}

/// Goes on where an earlier rotation was broken off; otherwise begins one.
async fn rotate(app: &App, batch: i64, json: bool) -> anyhow::Result<ExitCode> {
    let keyring = app.store.sealer().keyring();
    let known = keyring.store().masters().await?;
    let in_state = |state| known.iter().find(move |master| master.state == state);
    // Retired, but still in the file: all that was left to do was to move them.
    let at_hand = keyring.masters().ids();
    let retired = known.iter().filter(|master| master.state == MasterState::Retired);
    let mut spent: Vec<String> = retired.map(|master| master.kek_id.clone()).collect();
    spent.retain(|id| keyring.masters().is_file() && at_hand.contains(id));
    let mut kept: Vec<PathBuf> = match spent.len() {
        0 => Vec::new(),
        // The current key is not at hand; the rotation will say so.
        all if all == at_hand.len() => Vec::new(),
        _ => keyring.masters().set_aside(&spent)?,
    };
    let newest = keyring.masters().newest().map(|key| key.id().to_owned());
    let begun = !spent.is_empty()
        || in_state(MasterState::Accepted).is_some()
        || in_state(MasterState::Current).map(|master| &master.kek_id) != newest.as_ref();
    if !begun {
        let id = keyring.masters().add_new()?;
        tracing::info!(master_key = id, "a new master key was made");
    }
    let total: i64 = keyring.store().wrapped().await?.iter().map(|it| it.subject_keys).sum();
    let progress = Progress::items(total.unsigned_abs(), "wrapping anew");
    let mut rotated = keyring.rotate_master(batch, |seen| progress.set(seen)).await?;
    drop(progress);
    if !rotated.retired.is_empty() && keyring.masters().is_file() {
        kept.extend(keyring.masters().set_aside(&rotated.retired)?);
    }
    rotated.retired.extend(spent);
    if json {
        report::json(&json!({
            "rewrapped": rotated.rewrapped,
            "retired": rotated.retired,
            "damaged": rotated.damaged,
            "kept": kept,
        }))?;
    } else {
        report::text(&told(&rotated, &kept))?;
    }
    Ok(if rotated.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(rotated: &crate::keys::rotate::Rotated, kept: &[PathBuf]) -> String {
    let mut text = format!("{} keys wrapped anew.\n", rotated.rewrapped);
    for id in &rotated.retired {
        text += &format!("Master key {id} is retired: no server needs it any more.\n");
    }
    if !rotated.retired.is_empty() {
        text += "Backups of the key store from before now still need it: keep it in the vault\n\
                 until they have expired, and take it out of TIDEMARK_MASTER_KEY.\n";
    }
    for path in kept {
        text += &format!("It was moved to {}.\n", path.display());
    }
    for key in &rotated.damaged {
        text += &format!("Key {key} is damaged: restore the key store, then rotate again.\n");
    }
    text
}

async fn rotate_lookup(app: &App, json: bool) -> anyhow::Result<ExitCode> {
    let generation = app.store.sealer().keyring().rotate_lookup().await?;
    if json {
        report::json(&json!({ "generation": generation }))?;
    } else {
        report::text(&format!(
            "Generation {generation} of the lookup key was made. Servers use it in ten minutes; \
             people move to it when they come back.\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
