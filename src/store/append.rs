//! The call of `append()`: sealed members in, outcomes out.

use aggregates::StreamId;
use sqlx::postgres::PgConnection;
use sqlx::{Postgres, query::Query};
use uuid::Uuid;

use super::member::{
    Claim, Op, Outcome, PrivacyGuard, Receipt, Reservation, SubjectChange, SubjectChangeKind,
};

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

/// What the database said of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RawOutcome {
    Final(Outcome),
    /// Somebody else holds a stream row right now.
    Deferred,
}

pub(crate) const APPEND: &str = "SELECT member, outcome, first_position, last_position, committed_ms \
     FROM append($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,\
     $23,$24,$25,$26,$27,$28,$29,$30,$31,$32,$33,$34,$35,$36,$37,$38,$39,$40,$41,$42,$43,$44,$45,\
     $46,$47,$48,$49,$50,$51,$52,$53,$54,$55,$56,$57,$58,$59,$60,$61,$62,$63,$64,$65,$66,$67)";

/// Columns of the call, one vector an array parameter. Filled member by member.
#[derive(Default)]
struct Columns {
    s_member: Vec<i32>,
    s_type: Vec<String>,
    s_id: Vec<String>,
    s_user: Vec<Uuid>,
    s_expected: Vec<i64>,
    s_events: Vec<i32>,
    s_op: Vec<i16>,
    s_origin: Vec<Option<Uuid>>,
    s_state_version: Vec<i32>,
    s_state: Vec<Option<Vec<u8>>>,
    e_stream: Vec<i32>,
    e_offset: Vec<i32>,
    e_id: Vec<Uuid>,
    e_type: Vec<&'static str>,
    e_version: Vec<String>,
    e_recorded: Vec<i64>,
    e_payload: Vec<String>,
    e_metadata: Vec<String>,
    e_sealed: Vec<Option<Vec<u8>>>,
    e_leaf: Vec<Vec<u8>>,
    e_class: Vec<i16>,
    r_member: Vec<i32>,
    r_user: Vec<Uuid>,
    r_scope: Vec<&'static str>,
    r_hmac: Vec<Vec<u8>>,
    r_content: Vec<Option<Vec<u8>>>,
    r_outcome: Vec<String>,
    v_member: Vec<i32>,
    v_action: Vec<i16>,
    v_scope: Vec<&'static str>,
    v_hmac: Vec<Vec<u8>>,
    v_key: Vec<Option<Uuid>>,
    v_user: Vec<Uuid>,
    v_type: Vec<String>,
    v_id: Vec<String>,
    v_from: Vec<Option<String>>,
    k_member: Vec<i32>,
    k_user: Vec<Uuid>,
    k_purpose: Vec<&'static str>,
    k_key: Vec<Uuid>,
    k_privacy: Vec<Option<i64>>,
    c_member: Vec<i32>,
    c_user: Vec<Uuid>,
    c_purpose: Vec<&'static str>,
    c_key: Vec<Uuid>,
    c_commitment: Vec<Vec<u8>>,
    c_status: Vec<i16>,
}

impl Columns {
    fn push(&mut self, number: i32, member: SealedMember) {
        for stream in member.streams {
            self.push_stream(number, stream);
        }
        for receipt in member.receipts {
            self.r_member.push(number);
            self.r_user.push(receipt.user.0);
            self.r_scope.push(receipt.scope);
            self.r_hmac.push(receipt.hmac);
            self.r_content.push(receipt.content_hmac);
            self.r_outcome.push(receipt.outcome);
        }
        for reservation in member.reservations {
            let (action, stream, from) = match reservation.action {
                Claim::Take(stream) => (1, stream, None),
                Claim::Release(stream) => (2, stream, None),
                Claim::Pass { from, to } => (3, to, Some(from.aggregate_id)),
            };
            self.v_member.push(number);
            self.v_action.push(action);
            self.v_scope.push(reservation.scope);
            self.v_hmac.push(reservation.hmac);
            self.v_key.push(reservation.key_id);
            self.v_user.push(reservation.user.0);
            self.v_type.push(stream.aggregate_type);
            self.v_id.push(stream.aggregate_id);
            self.v_from.push(from);
        }
        for key in &member.keys {
            let privacy = member
                .privacy
                .filter(|guard| guard.user.0 == key.user && guard.purpose.as_str() == key.purpose);
            self.k_member.push(number);
            self.k_user.push(key.user);
            self.k_purpose.push(key.purpose);
            self.k_key.push(key.key_id);
            self.k_privacy.push(privacy.map(|guard| guard.version));
        }
        for change in member.subject_changes {
            let SubjectChange { user, purpose, kind } = change;
            let (key, commitment, status) = match kind {
                SubjectChangeKind::Created { key_id, commitment } => {
                    (key_id, commitment.as_bytes().to_vec(), 1)
                }
                SubjectChangeKind::Destroyed => (Uuid::nil(), Vec::new(), 2),
                SubjectChangeKind::RulesChanged => (Uuid::nil(), Vec::new(), 0),
            };
            self.c_member.push(number);
            self.c_user.push(user.0);
            self.c_purpose.push(purpose.as_str());
            self.c_key.push(key);
            self.c_commitment.push(commitment);
            self.c_status.push(status);
        }
    }

    fn push_stream(&mut self, number: i32, stream: SealedStream) {
        self.s_member.push(number);
        self.s_type.push(stream.stream.aggregate_type);
        self.s_id.push(stream.stream.aggregate_id);
        self.s_user.push(stream.user);
        self.s_expected.push(stream.expected);
        self.s_events.push(index(stream.events.len()));
        self.s_op.push(stream.op.code());
        self.s_origin.push(stream.origin);
        self.s_state_version.push(stream.state_version);
        self.s_state.push(stream.state);
        let entry = index(self.s_member.len());
        for (nth, event) in stream.events.into_iter().enumerate() {
            self.e_stream.push(entry);
            self.e_offset.push(index(nth + 1));
            self.e_id.push(event.event_id);
            self.e_type.push(event.event_type);
            self.e_version.push(event.event_version.to_string());
            self.e_recorded.push(event.recorded_at_ms);
            self.e_payload.push(event.payload);
            self.e_metadata.push(event.metadata);
            self.e_sealed.push(event.sealed);
            self.e_leaf.push(event.leaf.to_vec());
            self.e_class.push(event.class as i16);
        }
    }
}

/// Counts within one call stay far below `i32::MAX`: the limits of a call see to that.
fn index(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

type PgQuery<'q> = Query<'q, Postgres, sqlx::postgres::PgArguments>;

fn bind_members(columns: Columns, wait: bool, members: i32) -> PgQuery<'static> {
    let c = columns;
    sqlx::query(APPEND)
        .bind(wait)
        .bind(members)
        .bind(c.s_member)
        .bind(c.s_type)
        .bind(c.s_id)
        .bind(c.s_user)
        .bind(c.s_expected)
        .bind(c.s_events)
        .bind(c.s_op)
        .bind(c.s_origin)
        .bind(c.s_state_version)
        .bind(c.s_state)
        .bind(c.e_stream)
        .bind(c.e_offset)
        .bind(c.e_id)
        .bind(c.e_type)
        .bind(c.e_version)
        .bind(c.e_recorded)
        .bind(c.e_payload)
        .bind(c.e_metadata)
        .bind(c.e_sealed)
        .bind(c.e_leaf)
        .bind(c.e_class)
        .bind(c.r_member)
        .bind(c.r_user)
        .bind(c.r_scope)
        .bind(c.r_hmac)
        .bind(c.r_content)
        .bind(c.r_outcome)
        .bind(c.v_member)
        .bind(c.v_action)
        .bind(c.v_scope)
        .bind(c.v_hmac)
        .bind(c.v_key)
        .bind(c.v_user)
        .bind(c.v_type)
        .bind(c.v_id)
        .bind(c.v_from)
        .bind(c.k_member)
        .bind(c.k_user)
        .bind(c.k_purpose)
        .bind(c.k_key)
        .bind(c.k_privacy)
        .bind(c.c_member)
        .bind(c.c_user)
        .bind(c.c_purpose)
        .bind(c.c_key)
        .bind(c.c_commitment)
        .bind(c.c_status)
}

fn bind_health(query: PgQuery<'static>, health: Option<HealthWrites>) -> PgQuery<'static> {
    let mut w_member: Vec<i32> = Vec::new();
    let mut w_user = Vec::new();
    let mut w_seq = Vec::new();
    let mut w_changed = Vec::new();
    let mut segments = Vec::new();
    let mut tombstones = Vec::new();
    let mut user = Uuid::nil();
    if let Some(health) = health {
        w_member.push(1);
        w_user.push(health.user);
        w_seq.push(health.seq);
        w_changed.push(health.changed);
        segments = health.segments;
        tombstones = health.tombstones;
        user = health.user;
    }
    let column = segments.len();
    let mut lanes = Vec::with_capacity(column);
    let mut old_los = Vec::with_capacity(column);
    let mut los = Vec::with_capacity(column);
    let mut his = Vec::with_capacity(column);
    let mut ns = Vec::with_capacity(column);
    let mut ids = Vec::with_capacity(column);
    let mut versions = Vec::with_capacity(column);
    let mut formats = Vec::with_capacity(column);
    let mut folds = Vec::with_capacity(column);
    let mut cols = Vec::with_capacity(column);
    let mut record_ids = Vec::with_capacity(column);
    for segment in segments {
        lanes.push(segment.lane);
        old_los.push(segment.old_lo_ms);
        los.push(segment.lo_ms);
        his.push(segment.hi_ms);
        ns.push(segment.n);
        ids.push(segment.segment_id);
        versions.push(segment.version);
        formats.push(segment.format);
        folds.push(segment.folds);
        cols.push(segment.cols);
        record_ids.push(segment.ids);
    }
    query
        .bind(w_member)
        .bind(w_user)
        .bind(w_seq)
        .bind(w_changed)
        .bind(vec![user; column])
        .bind(lanes)
        .bind(old_los)
        .bind(los)
        .bind(his)
        .bind(ns)
        .bind(ids)
        .bind(versions)
        .bind(formats)
        .bind(folds)
        .bind(cols)
        .bind(record_ids)
        .bind(vec![user; tombstones.len()])
        .bind(tombstones)
}

/// SQLSTATE of a lost append whose samples were already written; see the function's text.
const LOST: &str = "TM001";

/// Runs one call. Without `wait`, members whose streams are locked elsewhere come back as
/// [`RawOutcome::Deferred`]. `health` goes with the first and only member.
pub(crate) async fn call(
    connection: &mut PgConnection,
    members: Vec<SealedMember>,
    wait: bool,
    health: Option<HealthWrites>,
) -> Result<Vec<RawOutcome>, sqlx::Error> {
    let count = members.len();
    let mut columns = Columns::default();
    for (nth, member) in members.into_iter().enumerate() {
        columns.push(index(nth + 1), member);
    }
    let query = bind_health(bind_members(columns, wait, index(count)), health);
    let rows = match query.fetch_all(connection).await {
        Ok(rows) => rows,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOST) => {
            let code = error
                .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                .and_then(|error| error.detail())
                .and_then(|detail| detail.parse().ok())
                .unwrap_or(1);
            return Ok(vec![outcome(code, 0, 0, 0); count]);
        }
        Err(error) => return Err(error),
    };
    rows.iter()
        .map(|row| {
            use sqlx::Row;
            Ok(outcome(
                row.try_get(1)?,
                row.try_get::<Option<i64>, _>(2)?.unwrap_or(0),
                row.try_get::<Option<i64>, _>(3)?.unwrap_or(0),
                row.try_get(4)?,
            ))
        })
        .collect()
}

fn outcome(code: i16, first: i64, last: i64, committed_ms: i64) -> RawOutcome {
    RawOutcome::Final(match code {
        0 => Outcome::Appended { first, last, committed_ms },
        2 => return RawOutcome::Deferred,
        3 => Outcome::Duplicate,
        4 => Outcome::Reserved,
        5 => Outcome::Refused,
        _ => Outcome::Conflict,
    })
}
