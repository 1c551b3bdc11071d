//! A phone's changes: parsed, recognised, ordered, decided, answered.

use std::collections::BTreeMap;

use aggregates::entity::Context;
use aggregates::sync::desk::{Ack, Action, Ask};
use aggregates::sync::push::{
    Failed, PushAnswer, PushItem, Successful, ahead, order, parse, refused,
};
use aggregates::{Metadata, UserId};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::names::Names;
use super::settle::{Settled, Wish, WishReceipt, outcome_of, settle};
use crate::commands::CommandError;
use crate::commands::observe::count_replays;
use crate::metrics::{SYNC_PUSH_ITEMS, SYNC_UNKNOWN_FIELDS};
use crate::store::installations::Acknowledgement;
use crate::store::{AppendError, Store};
use crate::{clock, ids};

/// Receipts of pushed items.
const SCOPE: &str = "push";

/// The place of one item: what it is, and where its answer is found.
struct Slot {
    item: PushItem,
    receipt: Vec<u8>,
}

/// What a receipt says of an item that is done with.
#[derive(Debug, Deserialize)]
struct Remembered {
    #[serde(rename = "type")]
    entity_type: String,
    id: Uuid,
    outcome: String,
    version: i64,
}

/// Takes the items of one push from the installation the client calls `device_id`.
///
/// # Errors
/// Where the log cannot be read; nothing of the answer is known then, and what was written is found
/// again by its receipts.
pub async fn push(
    store: &Store,
    user: UserId,
    metadata: &Metadata,
    device_id: &str,
    changes: &[Value],
) -> Result<PushAnswer, CommandError> {
    let now_ms = clock::now_ms();
    let names = Names::of(store, user).await?;
    let mut answer = PushAnswer::default();
    let mut slots = Vec::new();
    for change in changes {
        match parse(change) {
            Ok(item) => {
                metrics::counter!(SYNC_UNKNOWN_FIELDS).increment(item.unknown as u64);
                let receipt = names.push_receipt(&item.echo.request_text(), &item.content());
                slots.push(Slot { item, receipt });
            }
            Err(failed) => answer.failed.push(*failed),
        }
    }
    if slots.is_empty() {
        return Ok(answer);
    }
    let device = names.device(device_id);
    let origin = store.installation(user, &device, ids::new_id(), now_ms).await?;
    let acks = store.acknowledged(user, origin).await?;

    let mut done = remembered(store, user, &slots).await?;
    let items: Vec<&PushItem> = slots.iter().map(|slot| &slot.item).collect();
    let mut wanted: Vec<usize> = Vec::new();
    for index in order(&items) {
        let receipt = &slots[index].receipt;
        let asked = wanted.iter().any(|other| slots[*other].receipt == *receipt);
        if !asked && !done.contains_key(receipt) {
            wanted.push(index);
        }
    }
    let ahead_ms = ahead(&items, now_ms);
    let wishes = wanted.iter().map(|index| {
        let edited_at_ms = slots[*index].item.edited_at(now_ms, ahead_ms);
        wish(&slots[*index], &acks, Context { now_ms, edited_at_ms, origin: Some(origin) })
    });
    let wishes = wishes.collect();
    let mut refusals: BTreeMap<Vec<u8>, Settled> = BTreeMap::new();
    for (index, settled) in wanted.iter().zip(settle(store, user, metadata, wishes).await?) {
        let receipt = slots[*index].receipt.clone();
        match settled {
            Settled::Done(applied) => {
                done.insert(receipt, outcome_of(&applied.verdict));
            }
            Settled::Before(stored) => {
                count_replays(SCOPE, 1);
                done.insert(receipt, stored.outcome);
            }
            other => {
                refusals.insert(receipt, other);
            }
        }
    }
    for Slot { item, receipt } in slots {
        if let Some(outcome) = done.get(&receipt) {
            match serde_json::from_str(outcome) {
                Ok(outcome) => {
                    let outcome: Remembered = outcome;
                    count(item.contract.entity_type, "accepted");
                    answer.successful.push(successful(item, &outcome));
                }
                Err(_) => answer.failed.push(internal(item)),
            }
        } else {
            count(item.contract.entity_type, "refused");
            answer.failed.push(failure(item, refusals.get(&receipt)));
        }
    }
    Ok(answer)
}

fn count(entity_type: &'static str, outcome: &'static str) {
    metrics::counter!(SYNC_PUSH_ITEMS, "type" => entity_type, "outcome" => outcome).increment(1);
}

/// What items were answered that are done with already, by their receipts.
async fn remembered(
    store: &Store,
    user: UserId,
    slots: &[Slot],
) -> Result<BTreeMap<Vec<u8>, String>, CommandError> {
    let hmacs: Vec<Vec<u8>> = slots.iter().map(|slot| slot.receipt.clone()).collect();
    let stored = store.receipts(user, SCOPE, &hmacs).await?;
    count_replays(SCOPE, stored.len());
    Ok(stored.into_iter().map(|receipt| (receipt.hmac, receipt.outcome)).collect())
}

fn wish(slot: &Slot, acks: &[Acknowledgement], ctx: Context) -> Wish {
    let item = &slot.item;
    let seen = acks
        .iter()
        .filter(|ack| ack.acked_ms <= ctx.edited_at_ms)
        .map(|ack| Ack { position: ack.position, head: ack.head })
        .collect();
    let ask = Ask {
        contract: item.contract,
        ids: item.ids.clone(),
        fresh_id: ids::new_id(),
        action: Action::Change { change: item.change.clone(), base: item.base(seen) },
        ctx,
        request_id: Some(item.echo.request_text()),
    };
    let hmac = slot.receipt.clone();
    Wish { ask, receipt: Some(WishReceipt { scope: SCOPE, hmac, content_hmac: None }) }
}

fn successful(item: PushItem, outcome: &Remembered) -> Successful {
    Successful {
        // An entity nobody knows is answered by the id it was asked by.
        server_id: if outcome.version == 0 {
            item.ids.first().cloned().unwrap_or_default()
        } else {
            outcome.id.to_string()
        },
        client_id: item.echo.client_id,
        entity_type: outcome.entity_type.clone(),
        request_id: item.echo.request_id,
        version: Some(outcome.version).filter(|version| *version > 0),
        outcome: outcome.outcome.clone(),
    }
}

fn failure(item: PushItem, settled: Option<&Settled>) -> Failed {
    match settled {
        Some(Settled::Refused(error)) => refused(item, error),
        Some(Settled::Failed(AppendError::TooLarge(reason))) => {
            item.echo.failed("VALIDATION_ERROR", false, *reason, None)
        }
        Some(Settled::Failed(AppendError::Unavailable)) => {
            let error = "the change could not be stored now";
            item.echo.failed("SERVICE_UNAVAILABLE", true, error, None)
        }
        Some(Settled::Busy) => item.echo.failed("CONFLICT", true, "too many changes at once", None),
        Some(Settled::Failed(_) | Settled::Done(_) | Settled::Before(_)) | None => internal(item),
    }
}

fn internal(item: PushItem) -> Failed {
    item.echo.failed("INTERNAL_SERVER_ERROR", true, "something went wrong on our side", None)
}
