//! A call's arguments: arrays of the composite types that `append()` takes, one a table.
//!
//! Field order is the types' own. Everything is borrowed from the sealed members: a call copies
//! its bytes once, into the message.

use chrono::{DateTime, Utc};
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::PgRecordEncoder;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Postgres, Type};
use uuid::Uuid;

use super::append::{Class, HealthWrites, SealedEvent, SealedMember, SealedSegment, SealedStream};
use super::member::{Claim, Receipt, Reservation, SubjectChange, SubjectChangeKind};

/// A value of a composite type of the log's schema.
pub(super) trait Composite {
    const TYPE: &'static str;

    /// Writes the fields, in the type's order.
    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError>;
}

/// Makes an argument of a [`Composite`].
pub(super) struct Row<T>(pub T);

impl<T: Composite> Type<Postgres> for Row<T> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name(T::TYPE)
    }
}

impl<T: Composite> PgHasArrayType for Row<T> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of(T::TYPE)
    }
}

impl<T: Composite> Encode<'_, Postgres> for Row<T> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut encoder = PgRecordEncoder::new(buffer);
        self.0.fields(&mut encoder)?;
        encoder.finish();
        Ok(IsNull::No)
    }
}

/// All rows of a call but the samples.
#[derive(Default)]
pub(super) struct Rows<'a> {
    /// How many events each member has.
    pub events_of: Vec<i32>,
    pub streams: Vec<Row<StreamRow<'a>>>,
    pub events: Vec<Row<EventRow<'a>>>,
    pub receipts: Vec<Row<ReceiptRow<'a>>>,
    pub reach: Vec<Row<ReachRow>>,
    pub keys: Vec<Row<KeyRow>>,
    pub reservations: Vec<Row<ReservationRow<'a>>>,
    pub key_changes: Vec<Row<KeyChangeRow>>,
}

pub(super) struct StreamRow<'a> {
    member: i32,
    aggregate_type: &'a str,
    aggregate_id: &'a str,
    user_id: Uuid,
    expected: i64,
    sequence: i64,
    nth: i64,
    op: i16,
    origin: Option<Uuid>,
    state_version: i32,
    state_sealed: Option<&'a [u8]>,
}

impl Composite for StreamRow<'_> {
    const TYPE: &'static str = "append_stream";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.member)?
            .encode(self.aggregate_type)?
            .encode(self.aggregate_id)?
            .encode(self.user_id)?
            .encode(self.expected)?
            .encode(self.sequence)?
            .encode(self.nth)?
            .encode(self.op)?
            .encode(self.origin)?
            .encode(self.state_version)?
            .encode(self.state_sealed)?;
        Ok(())
    }
}

pub(super) struct EventRow<'a> {
    member: i32,
    nth: i64,
    aggregate_type: &'a str,
    aggregate_id: &'a str,
    sequence: i64,
    event_type: &'a str,
    event_version: String,
    payload: &'a str,
    metadata: &'a str,
    event_id: Uuid,
    user_id: Uuid,
    recorded_at: DateTime<Utc>,
    sealed: Option<&'a [u8]>,
    leaf_hash: &'a [u8],
}

impl Composite for EventRow<'_> {
    const TYPE: &'static str = "append_event";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.member)?
            .encode(self.nth)?
            .encode(self.aggregate_type)?
            .encode(self.aggregate_id)?
            .encode(self.sequence)?
            .encode(self.event_type)?
            .encode(&self.event_version)?
            .encode(self.payload)?
            .encode(self.metadata)?
            .encode(self.event_id)?
            .encode(self.user_id)?
            .encode(self.recorded_at)?
            .encode(self.sealed)?
            .encode(self.leaf_hash)?;
        Ok(())
    }
}

pub(super) struct ReceiptRow<'a> {
    member: i32,
    nth: Option<i64>,
    user_id: Uuid,
    scope: &'a str,
    hmac: &'a [u8],
    content_hmac: Option<&'a [u8]>,
    outcome: &'a str,
}

impl Composite for ReceiptRow<'_> {
    const TYPE: &'static str = "append_receipt";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.member)?
            .encode(self.nth)?
            .encode(self.user_id)?
            .encode(self.scope)?
            .encode(self.hmac)?
            .encode(self.content_hmac)?
            .encode(self.outcome)?;
        Ok(())
    }
}

pub(super) struct ReachRow {
    member: i32,
    user_id: Uuid,
    health: Option<i64>,
    session: Option<i64>,
    other: Option<i64>,
}

impl Composite for ReachRow {
    const TYPE: &'static str = "append_reach";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.member)?
            .encode(self.user_id)?
            .encode(self.health)?
            .encode(self.session)?
            .encode(self.other)?;
        Ok(())
    }
}

pub(super) struct KeyRow {
    member: i32,
    user_id: Uuid,
    purpose: &'static str,
    key_id: Uuid,
    privacy_version: Option<i64>,
}

impl Composite for KeyRow {
    const TYPE: &'static str = "append_key";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.member)?
            .encode(self.user_id)?
            .encode(self.purpose)?
            .encode(self.key_id)?
            .encode(self.privacy_version)?;
        Ok(())
    }
}

pub(super) struct ReservationRow<'a> {
    member: i32,
    action: i16,
    scope: &'a str,
    hmac: &'a [u8],
    key_id: Option<Uuid>,
    user_id: Uuid,
    aggregate_type: &'a str,
    aggregate_id: &'a str,
    holder: Option<&'a str>,
}

impl Composite for ReservationRow<'_> {
    const TYPE: &'static str = "append_reservation";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.member)?
            .encode(self.action)?
            .encode(self.scope)?
            .encode(self.hmac)?
            .encode(self.key_id)?
            .encode(self.user_id)?
            .encode(self.aggregate_type)?
            .encode(self.aggregate_id)?
            .encode(self.holder)?;
        Ok(())
    }
}

pub(super) struct KeyChangeRow {
    member: i32,
    user_id: Uuid,
    purpose: &'static str,
    key_id: Uuid,
    commitment: Vec<u8>,
    status: i16,
}

impl Composite for KeyChangeRow {
    const TYPE: &'static str = "append_key_change";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.member)?
            .encode(self.user_id)?
            .encode(self.purpose)?
            .encode(self.key_id)?
            .encode(&self.commitment)?
            .encode(self.status)?;
        Ok(())
    }
}

pub(super) struct SegmentRow<'a> {
    lane: i16,
    old_lo_ms: Option<i64>,
    lo_ms: i64,
    hi_ms: i64,
    n: i32,
    segment_id: Uuid,
    version: i32,
    format: i16,
    folds: Option<&'a [u8]>,
    cols_sealed: Option<&'a [u8]>,
    ids_sealed: Option<&'a [u8]>,
}

impl Composite for SegmentRow<'_> {
    const TYPE: &'static str = "append_segment";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.lane)?
            .encode(self.old_lo_ms)?
            .encode(self.lo_ms)?
            .encode(self.hi_ms)?
            .encode(self.n)?
            .encode(self.segment_id)?
            .encode(self.version)?
            .encode(self.format)?
            .encode(self.folds)?
            .encode(self.cols_sealed)?
            .encode(self.ids_sealed)?;
        Ok(())
    }
}

pub(super) struct SamplesRow<'a> {
    user_id: Uuid,
    health_seq: i64,
    changed: bool,
    segments: Vec<Row<SegmentRow<'a>>>,
    tombstones: &'a [Vec<u8>],
}

impl Composite for SamplesRow<'_> {
    const TYPE: &'static str = "append_samples";

    fn fields(&self, encoder: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        encoder
            .encode(self.user_id)?
            .encode(self.health_seq)?
            .encode(self.changed)?
            .encode(&self.segments)?
            .encode(self.tombstones)?;
        Ok(())
    }
}

impl<'a> Rows<'a> {
    /// Numbers the members' events in their order.
    pub fn of(members: &[&'a SealedMember]) -> Self {
        let mut rows = Self::default();
        for member in members {
            rows.push(member);
        }
        rows
    }

    fn push(&mut self, member: &'a SealedMember) {
        let number = index(self.events_of.len() + 1);
        let before = self.events.len();
        for stream in &member.streams {
            self.push_stream(number, stream);
        }
        self.events_of.push(index(self.events.len() - before));
        let last = (self.events.len() > before).then(|| place(self.events.len()));
        let receipts = member.receipts.iter();
        self.receipts.extend(receipts.map(|receipt| Row(ReceiptRow::of(number, last, receipt))));
        self.keys.extend(member.keys.iter().map(|key| {
            let guard = member
                .privacy
                .filter(|guard| guard.user.0 == key.user && guard.purpose.as_str() == key.purpose);
            Row(KeyRow {
                member: number,
                user_id: key.user,
                purpose: key.purpose,
                key_id: key.key_id,
                privacy_version: guard.map(|guard| guard.version),
            })
        }));
        let reservations = member.reservations.iter();
        self.reservations.extend(reservations.map(|held| Row(ReservationRow::of(number, held))));
        let changes = member.subject_changes.iter();
        self.key_changes.extend(changes.map(|change| Row(KeyChangeRow::of(number, change))));
    }

    fn push_stream(&mut self, number: i32, stream: &'a SealedStream) {
        let mut sequence = stream.expected;
        for event in &stream.events {
            sequence += 1;
            let nth = place(self.events.len() + 1);
            self.events.push(Row(EventRow::of(number, nth, sequence, stream, event)));
            self.reach(number, stream.user, event.class, nth);
        }
        self.streams.push(Row(StreamRow {
            member: number,
            aggregate_type: &stream.stream.aggregate_type,
            aggregate_id: &stream.stream.aggregate_id,
            user_id: stream.user,
            expected: stream.expected,
            sequence,
            nth: place(self.events.len()),
            op: stream.op.code(),
            origin: stream.origin,
            state_version: stream.state_version,
            state_sealed: stream.state.as_deref(),
        }));
    }

    /// Raises how far a person's readers have to look.
    fn reach(&mut self, member: i32, user_id: Uuid, class: Class, nth: i64) {
        let last = self.reach.last();
        if last.is_none_or(|Row(row)| (row.member, row.user_id) != (member, user_id)) {
            let (health, session, other) = (None, None, None);
            self.reach.push(Row(ReachRow { member, user_id, health, session, other }));
        }
        let Some(Row(row)) = self.reach.last_mut() else { return };
        let nth = Some(nth);
        match class {
            Class::Quiet => {}
            Class::Health => row.health = nth,
            Class::Session => row.session = nth,
            Class::Other => row.other = nth,
            Class::Everybody => (row.health, row.session, row.other) = (nth, nth, nth),
        }
    }
}

impl<'a> EventRow<'a> {
    fn of(
        member: i32,
        nth: i64,
        sequence: i64,
        stream: &'a SealedStream,
        event: &'a SealedEvent,
    ) -> Self {
        Self {
            member,
            nth,
            aggregate_type: &stream.stream.aggregate_type,
            aggregate_id: &stream.stream.aggregate_id,
            sequence,
            event_type: event.event_type,
            event_version: event.event_version.to_string(),
            payload: &event.payload,
            metadata: &event.metadata,
            event_id: event.event_id,
            user_id: stream.user,
            // Past the calendar's end there is nothing to record.
            recorded_at: DateTime::from_timestamp_millis(event.recorded_at_ms).unwrap_or_default(),
            sealed: event.sealed.as_deref(),
            leaf_hash: &event.leaf,
        }
    }
}

impl<'a> ReceiptRow<'a> {
    fn of(member: i32, nth: Option<i64>, receipt: &'a Receipt) -> Self {
        Self {
            member,
            nth,
            user_id: receipt.user.0,
            scope: receipt.scope,
            hmac: &receipt.hmac,
            content_hmac: receipt.content_hmac.as_deref(),
            outcome: &receipt.outcome,
        }
    }
}

impl<'a> ReservationRow<'a> {
    fn of(member: i32, held: &'a Reservation) -> Self {
        let (action, stream, holder) = match &held.action {
            Claim::Take(stream) => (1, stream, None),
            Claim::Release(stream) => (2, stream, None),
            Claim::Pass { from, to } => (3, to, Some(from.aggregate_id.as_str())),
        };
        Self {
            member,
            action,
            scope: held.scope,
            hmac: &held.hmac,
            key_id: held.key_id,
            user_id: held.user.0,
            aggregate_type: &stream.aggregate_type,
            aggregate_id: &stream.aggregate_id,
            holder,
        }
    }
}

impl KeyChangeRow {
    fn of(member: i32, change: &SubjectChange) -> Self {
        let (key_id, commitment, status) = match &change.kind {
            SubjectChangeKind::Created { key_id, commitment } => {
                (*key_id, commitment.as_bytes().to_vec(), 1)
            }
            SubjectChangeKind::Destroyed => (Uuid::nil(), Vec::new(), 2),
            SubjectChangeKind::RulesChanged => (Uuid::nil(), Vec::new(), 0),
        };
        Self {
            member,
            user_id: change.user.0,
            purpose: change.purpose.as_str(),
            key_id,
            commitment,
            status,
        }
    }
}

impl<'a> SamplesRow<'a> {
    pub fn of(health: &'a HealthWrites) -> Self {
        Self {
            user_id: health.user,
            health_seq: health.seq,
            changed: health.changed,
            segments: health.segments.iter().map(SegmentRow::of).map(Row).collect(),
            tombstones: &health.tombstones,
        }
    }
}

impl<'a> SegmentRow<'a> {
    fn of(segment: &'a SealedSegment) -> Self {
        Self {
            lane: segment.lane,
            old_lo_ms: segment.old_lo_ms,
            lo_ms: segment.lo_ms,
            hi_ms: segment.hi_ms,
            n: segment.n,
            segment_id: segment.segment_id,
            version: segment.version,
            format: segment.format,
            folds: segment.folds.as_deref(),
            cols_sealed: segment.cols.as_deref(),
            ids_sealed: segment.ids.as_deref(),
        }
    }
}

/// Counts within one call stay far below `i32::MAX`: the limits of a call see to that.
fn index(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn place(n: usize) -> i64 {
    i64::from(index(n))
}
