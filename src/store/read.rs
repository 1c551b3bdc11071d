//! Reading the log: one stream, all of it, one person's part.
//!
//! A page is one statement: it sees positions without gaps, because positions become visible in
//! order. Upcasting happens here and nowhere else, before a payload is given its type.

use aggregates::upcast::UpcastError;
use aggregates::{StreamId, UserId};
use sqlx::PgPool;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::page::RowSeal;

/// Events of one page at most; larger pages gain little and hold more in memory.
pub const PAGE: i64 = 2000;

/// A row of `events` as stored.
#[derive(Clone, Debug)]
pub struct RawEvent {
    pub position: i64,
    pub committed_ms: i64,
    pub event_id: Uuid,
    pub stream: StreamId,
    pub sequence: i64,
    pub user: UserId,
    pub event_type: String,
    pub event_version: String,
    pub recorded_at_ms: i64,
    pub payload: String,
    pub metadata: String,
    pub sealed: Option<Vec<u8>>,
    pub leaf: Vec<u8>,
}

/// The same, lent by whoever holds the bytes.
#[derive(Clone, Copy, Debug)]
pub struct EventRow<'a> {
    pub position: i64,
    pub committed_ms: i64,
    pub event_id: Uuid,
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    pub sequence: i64,
    pub user: UserId,
    pub event_type: &'a str,
    pub event_version: &'a str,
    pub recorded_at_ms: i64,
    pub payload: &'a str,
    pub metadata: &'a str,
    pub sealed: Option<&'a [u8]>,
    /// Empty where it was not asked for.
    pub leaf: &'a [u8],
}

impl<'a> EventRow<'a> {
    pub(crate) fn seal(&self) -> RowSeal<'a> {
        let Self { position, user, payload, sealed, .. } = *self;
        RowSeal { position, user, payload, sealed: sealed.is_some() }
    }
}

/// Which events of the log a reader wants. Empty lists mean all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub event_types: Vec<String>,
    pub aggregate_types: Vec<String>,
    pub user: Option<UserId>,
}

impl Filter {
    /// Whether the events that pass are found without reading those that do not.
    pub(super) fn goes_by_index(&self) -> bool {
        self.event_types.is_empty() && self.aggregate_types.is_empty()
    }
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log is not reachable")]
    Database(#[from] sqlx::Error),
    /// The stored bytes do not open or do not decode: evidence of damage, never skipped silently.
    #[error("event at position {position} cannot be read: {reason}")]
    Corrupt { position: i64, reason: String },
    /// A type or a version that this program does not know. A newer one wrote it.
    #[error("event at position {position} needs a newer program")]
    Newer { position: i64, source: UpcastError },
    #[error("a key could not be used")]
    Key(#[from] crate::keys::KeyError),
}

pub(crate) const READ_ALL: &str = "SELECT position, committed_ms, event_id, aggregate_type, \
     aggregate_id, sequence, user_id, event_type, event_version, recorded_at, payload::text, \
     metadata::text, sealed, leaf_hash FROM events \
     WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3";
pub(crate) const READ_USER: &str = "SELECT position, committed_ms, event_id, aggregate_type, \
     aggregate_id, sequence, user_id, event_type, event_version, recorded_at, payload::text, \
     metadata::text, sealed, leaf_hash FROM events \
     WHERE user_id = $4 AND position > $1 AND position <= $2 ORDER BY position LIMIT $3";
pub(crate) const READ_STREAM: &str = "SELECT position, committed_ms, event_id, aggregate_type, \
     aggregate_id, sequence, user_id, event_type, event_version, recorded_at, payload::text, \
     metadata::text, sealed, leaf_hash FROM events \
     WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence > $3 AND sequence <= $4 \
     ORDER BY sequence LIMIT $5";
pub(crate) const READ_FILTERED: &str = "SELECT position, committed_ms, event_id, aggregate_type, \
     aggregate_id, sequence, user_id, event_type, event_version, recorded_at, payload::text, \
     metadata::text, sealed, leaf_hash FROM events \
     WHERE position > $1 AND position <= $2 \
       AND (cardinality($4::text[]) = 0 OR event_type = ANY ($4)) \
       AND (cardinality($5::text[]) = 0 OR aggregate_type = ANY ($5)) \
       AND ($6::uuid IS NULL OR user_id = $6) \
     ORDER BY position LIMIT $3";
pub(crate) const HEAD: &str = "SELECT log_id, storage_format, epoch, position, committed_ms \
     FROM log_head";

impl RawEvent {
    /// The row as one lends it.
    pub fn row(&self) -> EventRow<'_> {
        EventRow {
            position: self.position,
            committed_ms: self.committed_ms,
            event_id: self.event_id,
            aggregate_type: &self.stream.aggregate_type,
            aggregate_id: &self.stream.aggregate_id,
            sequence: self.sequence,
            user: self.user,
            event_type: &self.event_type,
            event_version: &self.event_version,
            recorded_at_ms: self.recorded_at_ms,
            payload: &self.payload,
            metadata: &self.metadata,
            sealed: self.sealed.as_deref(),
            leaf: &self.leaf,
        }
    }

    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let recorded_at: chrono::DateTime<chrono::Utc> = row.try_get(9)?;
        Ok(Self {
            position: row.try_get(0)?,
            committed_ms: row.try_get(1)?,
            event_id: row.try_get(2)?,
            stream: StreamId { aggregate_type: row.try_get(3)?, aggregate_id: row.try_get(4)? },
            sequence: row.try_get(5)?,
            user: UserId(row.try_get(6)?),
            event_type: row.try_get(7)?,
            event_version: row.try_get(8)?,
            recorded_at_ms: recorded_at.timestamp_millis(),
            payload: row.try_get(10)?,
            metadata: row.try_get(11)?,
            sealed: row.try_get(12)?,
            leaf: row.try_get(13)?,
        })
    }
}

/// Where the log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub log_id: Uuid,
    pub storage_format: i32,
    pub epoch: i16,
    pub position: i64,
    pub committed_ms: i64,
}

/// Reads the head row.
pub async fn head(pool: &PgPool) -> Result<Head, sqlx::Error> {
    let row = sqlx::query(HEAD).fetch_one(pool).await?;
    Ok(Head {
        log_id: row.try_get(0)?,
        storage_format: row.try_get(1)?,
        epoch: row.try_get(2)?,
        position: row.try_get(3)?,
        committed_ms: row.try_get(4)?,
    })
}

/// One page of the whole log after a position, unopened.
pub async fn raw_page(
    pool: &PgPool,
    after: i64,
    upto: i64,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<RawEvent>, sqlx::Error> {
    let plain = filter.goes_by_index();
    let rows = match filter.user {
        Some(user) if plain => {
            sqlx::query(READ_USER)
                .bind(after)
                .bind(upto)
                .bind(limit)
                .bind(user.0)
                .fetch_all(pool)
                .await?
        }
        None if plain => {
            sqlx::query(READ_ALL).bind(after).bind(upto).bind(limit).fetch_all(pool).await?
        }
        user => {
            sqlx::query(READ_FILTERED)
                .bind(after)
                .bind(upto)
                .bind(limit)
                .bind(&filter.event_types)
                .bind(&filter.aggregate_types)
                .bind(user.map(|user| user.0))
                .fetch_all(pool)
                .await?
        }
    };
    rows.iter().map(RawEvent::from_row).collect()
}

/// Events of one stream with `after < sequence <= upto`, unopened.
pub async fn raw_stream(
    pool: &PgPool,
    stream: &StreamId,
    after: i64,
    upto: i64,
    limit: i64,
) -> Result<Vec<RawEvent>, sqlx::Error> {
    let rows = sqlx::query(READ_STREAM)
        .bind(&stream.aggregate_type)
        .bind(&stream.aggregate_id)
        .bind(after)
        .bind(upto)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(RawEvent::from_row).collect()
}
