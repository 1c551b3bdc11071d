//! Which session a consumption belongs to.

use uuid::Uuid;

use crate::entity::EntityState;
use crate::entity::time::parse_instant;
use crate::session::{Dose, Session, Status};

/// A session of the person, as far as attaching needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub session_id: Uuid,
    pub status: Status,
    /// Bounds in ms since the Unix epoch, both included; the end of an open session is its idle
    /// deadline.
    pub start_ms: i64,
    pub end_ms: i64,
}

impl Candidate {
    /// The candidate a session is, unless it is deleted.
    pub fn of(session_id: Uuid, session: &Session) -> Option<Self> {
        let derived = session.derived();
        session.entity.is_live().then(|| Self {
            session_id,
            status: session.status(),
            start_ms: derived.start_ms,
            end_ms: session.end_ms(),
        })
    }
}

/// The session whose stretch contains the time; of several the one that started last, then the one
/// with the larger id. A completed session takes late entries, a cancelled one takes none.
pub fn session_for(at_ms: i64, candidates: impl IntoIterator<Item = Candidate>) -> Option<Uuid> {
    candidates
        .into_iter()
        .filter(|candidate| candidate.status != Status::Cancelled)
        .filter(|candidate| (candidate.start_ms..=candidate.end_ms).contains(&at_ms))
        .max_by_key(|candidate| (candidate.start_ms, candidate.session_id))
        .map(|candidate| candidate.session_id)
}

/// What its session needs to know of a consumption; `None` before it was created.
pub fn dose_of(consumption: &EntityState) -> Option<Dose> {
    Some(Dose {
        at_ms: consumption.text("timestamp").and_then(parse_instant)?,
        duration_ms: consumption.fields.get("durationMs")?.as_i64()?,
        product_id: consumption.text("productId").map(str::to_owned),
    })
}
