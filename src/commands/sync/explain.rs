//! How an entity became what it is: every change, and how every conflict was decided.

use aggregates::entity::find_contract;
use aggregates::entity::time::format_instant;
use aggregates::sync::desk::EntityKey;
use aggregates::sync::{edit_of, resolution_of};
use aggregates::{Content, UserId};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::facts::Teller;
use super::names::Names;
use crate::commands::CommandError;
use crate::store::Store;
use aggregates::sync::desk::{AliasKey, Fact, Need};

/// Events shown at most: the latest.
const SHOWN: i64 = 500;

/// The history of one entity.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub entity_type: &'static str,
    pub id: Uuid,
    pub version: i64,
    pub deleted: bool,
    /// Oldest first; at most the latest 500.
    pub changes: Vec<ExplainedChange>,
}

/// One change of it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedChange {
    /// The version it made.
    pub version: i64,
    /// The event: `session.ended`.
    pub event: String,
    /// Where it stands in the whole log.
    pub position: i64,
    pub committed_at: String,
    /// When the person made the edit, as far as their device told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<String>,
    /// The installation it was made on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Uuid>,
    /// Present where the edit met another: per field the base, both sides, the result, the policy
    /// and whose value won.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Value>,
}

/// Explains the entity a client knows by `id`, its own id or the server's.
///
/// # Errors
/// [`CommandError::NotFound`] where the person has no such entity.
pub async fn explain(
    store: &Store,
    user: UserId,
    entity_type: &str,
    id: &str,
) -> Result<Explanation, CommandError> {
    let contract = find_contract(entity_type).ok_or(CommandError::NotFound)?;
    let names = Names::of(store, user).await?;
    let teller = Teller { store, user, names: &names };
    let need = Need::Alias(AliasKey::new(contract, id));
    let facts = teller.tell(&[need].into()).await?;
    let by_alias = facts.iter().find_map(|fact| match fact {
        Fact::Alias(_, holders) => holders.first().copied(),
        _ => None,
    });
    let key = by_alias
        .filter(|key| key.contract().entity_type == contract.entity_type)
        .or_else(|| Some(EntityKey::new(contract, Uuid::try_parse(id).ok()?)))
        .ok_or(CommandError::NotFound)?;
    let heads = store.heads(&[key.stream()]).await?;
    let head = heads.into_iter().find(|head| head.user == user).ok_or(CommandError::NotFound)?;
    let after = (head.sequence - SHOWN).max(0);
    let events = store.stream(&key.stream(), after, head.sequence, SHOWN).await?;
    let changes = events
        .into_iter()
        .map(|recorded| {
            let event = match &recorded.content {
                Content::Open { event, .. } => Some(event.as_ref()),
                Content::Shredded => None,
            };
            let edit = event.and_then(edit_of);
            ExplainedChange {
                version: recorded.sequence,
                event: recorded.event_type,
                position: recorded.position,
                committed_at: format_instant(recorded.committed_ms),
                edited_at: edit.map(|edit| format_instant(edit.edited_at_ms)),
                origin: edit.and_then(|edit| edit.origin),
                resolution: event.and_then(resolution_of).map(|resolution| json!(resolution)),
            }
        })
        .collect();
    Ok(Explanation {
        entity_type: contract.entity_type,
        id: key.id,
        version: head.sequence,
        deleted: head.op == crate::store::Op::Delete,
        changes,
    })
}
