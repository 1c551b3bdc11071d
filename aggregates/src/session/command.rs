//! What can be asked of a session.

use uuid::Uuid;

use super::state::Dose;
use crate::entity::Fields;

/// An intent. Field maps are normalised by the session contract.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionCommand {
    /// Begins the session; a repetition changes nothing.
    Start {
        fields: Fields,
    },
    /// Sets fields other than the status.
    Update {
        fields: Fields,
        /// The `updatedAt` the caller read, in ms; more than 1 ms off is refused.
        last_known_updated_at_ms: Option<i64>,
    },
    Pause,
    Resume,
    /// Completes it, with what the person says at the end: summary, rating, notes, `wouldRepeat`.
    End {
        fields: Fields,
    },
    Cancel,
    /// Completes it because another session starts.
    Replace,
    /// Completes it as of its idle deadline, which must have passed.
    EndIdle {
        ended_at_ms: i64,
    },
    Delete,
    /// Makes a consumption part of it; one that already is gets its dose replaced.
    AttachConsumption {
        consumption_id: Uuid,
        dose: Dose,
    },
    /// Follows an edit of an attached consumption.
    ConsumptionChanged {
        consumption_id: Uuid,
        dose: Dose,
    },
    DetachConsumption {
        consumption_id: Uuid,
    },
}
