//! What a change of a consumption means for its session, and the other way round.

use uuid::Uuid;

use super::attach::dose_of;
use crate::entity::{ChangeKind, EntityChange, EntityState, Fields};
use crate::session::{Session, SessionCommand};

/// The commands for the sessions concerned when a consumption goes from `before` to `after`. A
/// session that is gone or cancelled may refuse; the consumption then stands by itself.
pub fn session_effects(
    consumption_id: Uuid,
    before: &EntityState,
    after: &EntityState,
) -> Vec<(Uuid, SessionCommand)> {
    let (was, is) = (session_of(before), session_of(after));
    let mut effects = Vec::new();
    if let Some(session_id) = was.filter(|_| was != is) {
        effects.push((session_id, SessionCommand::DetachConsumption { consumption_id }));
    }
    if let (Some(session_id), Some(dose)) = (is, dose_of(after)) {
        if was != is {
            let attach = SessionCommand::AttachConsumption { consumption_id, dose };
            effects.push((session_id, attach));
        } else if dose_of(before).as_ref() != Some(&dose) {
            let changed = SessionCommand::ConsumptionChanged { consumption_id, dose };
            effects.push((session_id, changed));
        }
    }
    effects
}

/// The changes that take the consumptions of a deleted session out of it, each to be decided on
/// the stored version of its consumption.
pub fn session_deleted_effects(session: &Session) -> Vec<(Uuid, EntityChange)> {
    let detached = Fields::from([("sessionId".to_owned(), serde_json::Value::Null)]);
    session
        .doses
        .keys()
        .map(|id| (*id, EntityChange::new(ChangeKind::Update, detached.clone())))
        .collect()
}

fn session_of(consumption: &EntityState) -> Option<Uuid> {
    let session = consumption.text("sessionId").filter(|_| consumption.is_live())?;
    Uuid::parse_str(session).ok()
}
