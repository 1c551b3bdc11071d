//! The call of `append()`: sealed members in, outcomes out.

use aggregates::StreamId;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::append_rows::{Row, Rows, SamplesRow};
use super::member::{Op, Outcome, PrivacyGuard, Receipt, Reservation, SubjectChange};

/// An event ready for the table.
#[derive(Clone, Debug)]
pub(crate) struct SealedEvent {
    pub event_id: Uuid,
    pub event_type: &'static str,
    pub event_version: u32,
    pub recorded_at_ms: i64,
    pub payload: String,
    pub metadata: String,
    pub sealed: Option<Vec<u8>>,
    pub leaf: [u8; 32],
    pub class: Class,
}

/// Which readers an event concerns; decides the column of `user_heads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A batch that changed nothing: no reader has to look.
    Quiet = 0,
    Health = 1,
    Session = 2,
    Other = 3,
    /// A key's creation or destruction: every reader's rows depend on it.
    Everybody = 4,
}

impl Class {
    /// The class of an aggregate's events.
    pub fn of(aggregate_type: &str) -> Self {
        match aggregate_type {
            "health_batch" => Self::Health,
            "session" => Self::Session,
            "subject" => Self::Everybody,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SealedStream {
    pub stream: StreamId,
    pub user: Uuid,
    pub expected: i64,
    pub events: Vec<SealedEvent>,
    pub op: Op,
    pub origin: Option<Uuid>,
    pub state_version: i32,
    pub state: Option<Vec<u8>>,
}

/// A key that must still be active when the member is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequiredKey {
    pub user: Uuid,
    pub purpose: &'static str,
    pub key_id: Uuid,
}

/// A member after sealing. Its streams are in key order.
#[derive(Clone, Debug, Default)]
pub(crate) struct SealedMember {
    pub streams: Vec<SealedStream>,
    pub receipts: Vec<Receipt>,
    pub reservations: Vec<Reservation>,
    pub subject_changes: Vec<SubjectChange>,
    pub keys: Vec<RequiredKey>,
    pub privacy: Option<PrivacyGuard>,
}

impl SealedMember {
    /// Bytes that travel, for the limit of one call.
    pub fn size(&self) -> usize {
        self.streams
            .iter()
            .map(|stream| {
                let events: usize = stream
                    .events
                    .iter()
                    .map(|event| {
                        event.payload.len()
                            + event.metadata.len()
                            + event.sealed.as_ref().map_or(0, Vec::len)
                            + 160
                    })
                    .sum();
                events + stream.state.as_ref().map_or(0, Vec::len) + 160
            })
            .sum()
    }
}

/// A rewritten or new row of `health_segments`.
#[derive(Clone, Debug)]
pub(crate) struct SealedSegment {
    /// The row's present lower bound; none inserts.
    pub old_lo_ms: Option<i64>,
    pub lane: i16,
    pub lo_ms: i64,
    pub hi_ms: i64,
    pub n: i32,
    pub segment_id: Uuid,
    pub version: i32,
    pub format: i16,
    /// None keeps what the row has.
    pub folds: Option<Vec<u8>>,
    pub cols: Option<Vec<u8>>,
    pub ids: Option<Vec<u8>>,
}

/// The sample side of an append in the slow lane.
#[derive(Clone, Debug)]
pub(crate) struct HealthWrites {
    pub user: Uuid,
    /// The `health_seq` the batch was decided on.
    pub seq: i64,
    /// Whether the batch changed anything a reader can see.
    pub changed: bool,
    pub segments: Vec<SealedSegment>,
    pub tombstones: Vec<Vec<u8>>,
}

pub(crate) const APPEND: &str = "SELECT outcomes, head, committed_ms \
     FROM append($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// SQLSTATE of a lost append whose samples were already written; see the function's text.
const LOST: &str = "TM001";

/// Runs one call and answers for each member. `health` goes with the first and only member.
pub(crate) async fn call(
    connection: &mut PgConnection,
    members: &[&SealedMember],
    health: Option<&HealthWrites>,
) -> Result<Vec<Outcome>, sqlx::Error> {
    let rows = Rows::of(members);
    let query = sqlx::query(APPEND)
        .bind(&rows.events_of)
        .bind(&rows.streams)
        .bind(&rows.events)
        .bind(&rows.receipts)
        .bind(&rows.reach)
        .bind(&rows.keys)
        .bind(&rows.reservations)
        .bind(&rows.key_changes)
        .bind(health.map(|health| Row(SamplesRow::of(health))));
    let row = match query.fetch_one(connection).await {
        Ok(row) => row,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOST) => {
            let code = error
                .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                .and_then(|error| error.detail())
                .and_then(|detail| detail.parse().ok())
                .unwrap_or(1);
            return Ok(vec![lost(code); members.len()]);
        }
        Err(error) => return Err(error),
    };
    let codes: Vec<i16> = row.try_get(0)?;
    Ok(outcomes(&codes, &rows.events_of, row.try_get(1)?, row.try_get(2)?))
}

/// Positions are given in the order of the members, without a gap; losers take none.
fn outcomes(codes: &[i16], events_of: &[i32], head: i64, committed_ms: i64) -> Vec<Outcome> {
    let mut position = head;
    let members = codes.iter().zip(events_of);
    let outcomes = members.map(|(code, events)| match (*code, i64::from(*events)) {
        (0, 0) => Outcome::Appended { first: 0, last: 0, committed_ms },
        (0, events) => {
            let first = position + 1;
            position += events;
            Outcome::Appended { first, last: position, committed_ms }
        }
        (code, _) => lost(code),
    });
    outcomes.collect()
}

fn lost(code: i16) -> Outcome {
    match code {
        3 => Outcome::Duplicate,
        4 => Outcome::Reserved,
        5 => Outcome::Refused,
        _ => Outcome::Conflict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losers_take_no_positions() {
        let at = |first, last| Outcome::Appended { first, last, committed_ms: 7 };
        assert_eq!(
            outcomes(&[0, 1, 0, 3, 0], &[2, 5, 0, 1, 1], 10, 7),
            [at(11, 12), Outcome::Conflict, at(0, 0), Outcome::Duplicate, at(13, 13)]
        );
    }
}
