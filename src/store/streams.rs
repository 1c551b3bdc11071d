//! Heads and folded states of streams, receipts and reservations: what commands and the sync feed
//! need at once, kept in the same transaction as the events.

use aggregates::{Purpose, StreamId, UserId};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Store;
use super::member::Op;
use super::read::ReadError;

/// Where a stream stands, with its sealed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHead {
    pub stream: StreamId,
    pub user: UserId,
    /// Of its last event; the wire's `version`.
    pub sequence: i64,
    /// Of its last event in the whole log.
    pub position: i64,
    pub committed_ms: i64,
    pub op: Op,
    pub origin: Option<Uuid>,
    /// Version of the fold that made the state.
    pub state_version: i32,
    sealed: Option<Vec<u8>>,
}

/// A stream's head with its state opened; JSON of the aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHead {
    pub head: StreamHead,
    /// None where the stream keeps no state.
    pub state: Option<Vec<u8>>,
}

/// How far a person's data has moved, by class of reader. All 0 for a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserHead {
    /// Changing health batches so far: the watermark on the wire.
    pub health_seq: i64,
    /// Health batches received so far, changing or not.
    pub received_seq: i64,
    pub pos_health: i64,
    pub pos_session: i64,
    pub pos_other: i64,
}

/// What an earlier request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    pub hmac: Vec<u8>,
    pub content_hmac: Option<Vec<u8>>,
    pub outcome: String,
    /// Of the last event of its member; none where nothing was appended.
    pub position: Option<i64>,
    pub created_ms: i64,
}

/// Who holds a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub hmac: Vec<u8>,
    pub user: UserId,
    /// None: the marker of an erased identity.
    pub stream: Option<StreamId>,
}

pub(crate) const HEADS: &str = "SELECT s.aggregate_type, s.aggregate_id, s.user_id, s.sequence, \
     s.position, s.committed_ms, s.op, s.origin, s.state_version, s.state_sealed \
     FROM unnest($1::text[], $2::text[]) AS w(type, id) \
     JOIN streams s ON s.aggregate_type = w.type AND s.aggregate_id = w.id WHERE s.sequence > 0";
pub(crate) const FEED: &str = "SELECT aggregate_type, aggregate_id, user_id, sequence, \
     position, committed_ms, op, origin, state_version, state_sealed FROM streams \
     WHERE user_id = $1 AND aggregate_type = $2 AND position > $3 AND position <= $4 \
     ORDER BY position LIMIT $5";
pub(crate) const RECENT: &str = "SELECT aggregate_type, aggregate_id, user_id, sequence, \
     position, committed_ms, op, origin, state_version, state_sealed FROM streams \
     WHERE user_id = $1 AND aggregate_type = $2 AND sequence > 0 ORDER BY position DESC LIMIT $3";
pub(crate) const RECEIPTS: &str = "SELECT hmac, content_hmac, outcome, position, created_ms \
     FROM receipts WHERE user_id = $1 AND scope = $2 AND hmac = ANY ($3)";
pub(crate) const HOLDERS: &str = "SELECT hmac, user_id, aggregate_type, aggregate_id \
     FROM reservations WHERE scope = $1 AND hmac = ANY ($2)";
pub(crate) const USER_HEAD: &str = "SELECT health_seq, received_seq, pos_health, pos_session, \
     pos_other FROM user_heads WHERE user_id = $1";
pub(crate) const PEOPLE: &str = "SELECT count(*) FROM user_heads";
pub(crate) const COMMITTED_AT: &str = "SELECT committed_ms FROM events WHERE position = $1";

impl StreamHead {
    pub(super) fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            stream: StreamId { aggregate_type: row.try_get(0)?, aggregate_id: row.try_get(1)? },
            user: UserId(row.try_get(2)?),
            sequence: row.try_get(3)?,
            position: row.try_get(4)?,
            committed_ms: row.try_get(5)?,
            op: Op::from_code(row.try_get(6)?),
            origin: row.try_get(7)?,
            state_version: row.try_get(8)?,
            sealed: row.try_get(9)?,
        })
    }
}

impl Store {
    /// Heads of the given streams, in no particular order; absent streams are left out.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn heads(&self, streams: &[StreamId]) -> Result<Vec<StreamHead>, ReadError> {
        Ok(self.loader.heads(streams).await?)
    }

    /// A person's streams of one type that moved after a position, in the order of their last
    /// change.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn feed(
        &self,
        user: UserId,
        aggregate_type: &str,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Vec<StreamHead>, ReadError> {
        let rows = sqlx::query(FEED)
            .bind(user.0)
            .bind(aggregate_type)
            .bind(after)
            .bind(upto)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(StreamHead::from_row).collect::<Result<_, _>>().map_err(Into::into)
    }

    /// A person's streams of one type that changed last, latest first.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn recent(
        &self,
        user: UserId,
        aggregate_type: &str,
        limit: i64,
    ) -> Result<Vec<StreamHead>, ReadError> {
        let rows = sqlx::query(RECENT)
            .bind(user.0)
            .bind(aggregate_type)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(StreamHead::from_row).collect::<Result<_, _>>().map_err(Into::into)
    }

    /// Opens a head's state.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] where it does not open, [`ReadError::Key`] where its key is gone.
    pub async fn open_head(
        &self,
        head: StreamHead,
        purpose: Purpose,
    ) -> Result<OpenHead, ReadError> {
        let state = match &head.sealed {
            Some(sealed) => Some(
                self.sealer
                    .open_state(&head.stream, head.user, head.sequence, purpose, sealed)
                    .await?,
            ),
            None => None,
        };
        Ok(OpenHead { head, state })
    }

    /// Receipts of one scope with the given hashes.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn receipts(
        &self,
        user: UserId,
        scope: &str,
        hmacs: &[Vec<u8>],
    ) -> Result<Vec<StoredReceipt>, ReadError> {
        let rows = sqlx::query(RECEIPTS)
            .bind(user.0)
            .bind(scope)
            .bind(hmacs)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredReceipt {
                    hmac: row.try_get(0)?,
                    content_hmac: row.try_get(1)?,
                    outcome: row.try_get(2)?,
                    position: row.try_get(3)?,
                    created_ms: row.try_get(4)?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(Into::into)
    }

    /// Who holds the names with the given hashes.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn holders(&self, scope: &str, hmacs: &[Vec<u8>]) -> Result<Vec<Holder>, ReadError> {
        let rows = sqlx::query(HOLDERS).bind(scope).bind(hmacs).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let aggregate_type: Option<String> = row.try_get(2)?;
                let aggregate_id: Option<String> = row.try_get(3)?;
                let stream = aggregate_type.zip(aggregate_id);
                Ok(Holder {
                    hmac: row.try_get(0)?,
                    user: UserId(row.try_get(1)?),
                    stream: stream.map(|(aggregate_type, aggregate_id)| StreamId {
                        aggregate_type,
                        aggregate_id,
                    }),
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(Into::into)
    }

    /// How far a person's data has moved.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn user_head(&self, user: UserId) -> Result<UserHead, ReadError> {
        let row = sqlx::query(USER_HEAD).bind(user.0).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(UserHead::default()) };
        Ok(UserHead {
            health_seq: row.try_get(0)?,
            received_seq: row.try_get(1)?,
            pos_health: row.try_get(2)?,
            pos_session: row.try_get(3)?,
            pos_other: row.try_get(4)?,
        })
    }

    /// The last position committed at or before a time, 0 where there is none.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn position_at(&self, committed_ms: i64) -> Result<i64, ReadError> {
        // Times never decrease with positions, so a binary search over the position index finds
        // the place in some thirty look-ups, without an index on times.
        let mut low = 0;
        let mut high = self.head().await?.position;
        while low < high {
            let middle = low + (high - low + 1) / 2;
            let at: Option<i64> =
                sqlx::query_scalar(COMMITTED_AT).bind(middle).fetch_optional(&self.pool).await?;
            if at.is_some_and(|at| at <= committed_ms) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }
}
