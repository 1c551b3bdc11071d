//! What is kept beside the events in the same transaction: receipts, reservations, heads and keys.
//!
//! Each check is one query for rows that must not exist, in one snapshot: appends may go on.

use serde::Serialize;
use sqlx::Row;

use super::Faults;
use crate::store::{ReadError, Store};

/// Kind of fault, what it means, and the query for it; `$1` is how many rows are wanted. A row is
/// a place in the log, or null, and an id.
pub(crate) const CHECKS: [(&str, &str, &str); 8] = [
    (
        "head",
        "an event lies behind the head of the log",
        "SELECT position, user_id::text FROM events \
         WHERE position > (SELECT h.position FROM log_head h) ORDER BY position LIMIT $1",
    ),
    (
        "receipt",
        "a receipt points behind the head of the log",
        "SELECT position, user_id::text FROM receipts \
         WHERE position < 1 OR position > (SELECT h.position FROM log_head h) LIMIT $1",
    ),
    (
        "receipt",
        "a receipt points at somebody else's event",
        "SELECT r.position, r.user_id::text FROM receipts r \
         JOIN events e ON e.position = r.position WHERE e.user_id <> r.user_id LIMIT $1",
    ),
    (
        // Streams of a destroyed key are removed; names they held stay taken.
        "reservation",
        "a name is held by a stream that does not exist",
        "SELECT NULL::bigint, v.scope || ' ' || v.aggregate_id FROM reservations v \
         WHERE v.aggregate_id IS NOT NULL \
         AND NOT EXISTS (SELECT FROM streams s WHERE s.aggregate_type = v.aggregate_type \
                         AND s.aggregate_id = v.aggregate_id AND s.sequence > 0) \
         AND NOT EXISTS (SELECT FROM subjects j WHERE j.user_id = v.user_id AND j.status > 1) \
         LIMIT $1",
    ),
    (
        "stream_head",
        "a stream has a head and no event there",
        "SELECT s.position, s.aggregate_type || '/' || s.aggregate_id FROM streams s \
         WHERE NOT EXISTS (SELECT FROM events e WHERE e.aggregate_type = s.aggregate_type \
                           AND e.aggregate_id = s.aggregate_id AND e.sequence = s.sequence \
                           AND e.position = s.position) LIMIT $1",
    ),
    (
        "user_head",
        "a person's head points behind the head of the log",
        "SELECT greatest(pos_health, pos_session, pos_other), user_id::text FROM user_heads \
         WHERE greatest(pos_health, pos_session, pos_other) \
               > (SELECT h.position FROM log_head h) LIMIT $1",
    ),
    (
        // A batch that changed nothing moves nobody: `pos_health` may lag behind such batches.
        "user_head",
        "a person's head is not where their events end",
        "SELECT coalesce(l.everybody, u.pos_other), coalesce(l.user_id, u.user_id)::text \
         FROM (SELECT e.user_id, max(e.position) AS everybody, \
                      max(e.position) FILTER (WHERE e.aggregate_type = 'health_batch') AS health, \
                      max(e.position) FILTER (WHERE e.aggregate_type = 'session') AS session, \
                      max(e.position) FILTER (WHERE e.aggregate_type = 'subject') AS subject, \
                      max(e.position) FILTER (WHERE e.aggregate_type \
                          NOT IN ('health_batch', 'session', 'subject')) AS other \
                 FROM events e GROUP BY e.user_id) l \
         FULL JOIN user_heads u ON u.user_id = l.user_id \
         WHERE u.user_id IS NULL OR l.user_id IS NULL \
            OR u.pos_session <> coalesce(greatest(l.session, l.subject), 0) \
            OR u.pos_other <> coalesce(greatest(l.other, l.subject), 0) \
            OR u.pos_health < coalesce(l.subject, 0) \
            OR u.pos_health > coalesce(greatest(l.health, l.subject), 0) LIMIT $1",
    ),
    (
        "subject",
        "the state of a person's key is not what the log says",
        "SELECT NULL::bigint, j.user_id::text || ' ' || j.purpose FROM subjects j \
         LEFT JOIN LATERAL (SELECT e.event_type FROM events e \
              WHERE e.aggregate_type = 'subject' AND e.aggregate_id = j.user_id::text \
                AND e.payload ->> 'key_id' = j.key_id::text \
              ORDER BY e.sequence DESC LIMIT 1) l ON true \
         WHERE CASE WHEN j.status > 1 THEN 'subject.key_destroyed' ELSE 'subject.key_created' END \
               IS DISTINCT FROM l.event_type LIMIT $1",
    ),
];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BookkeepingReport {
    pub checks: u64,
    /// Of each check at most so many faults as are kept are counted.
    #[serde(flatten)]
    pub faults: Faults,
}

/// Checks receipts, reservations, heads and key states against the log.
///
/// # Errors
/// Where the database does not answer.
pub async fn verify_bookkeeping(
    store: &Store,
    keep: usize,
) -> Result<BookkeepingReport, ReadError> {
    let mut faults = Faults::keeping(keep);
    // Whole tables are read, which may rightly take long.
    let mut transaction = store.pool().begin().await?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    for (kind, meaning, query) in CHECKS {
        let rows = sqlx::query(query)
            .bind(i64::try_from(keep.max(1)).unwrap_or(i64::MAX))
            .fetch_all(&mut *transaction)
            .await?;
        for row in rows {
            let position: Option<i64> = row.try_get(0)?;
            let id: String = row.try_get(1)?;
            faults.add(position, kind, format!("{meaning}: {id}"));
        }
    }
    transaction.rollback().await?;
    Ok(BookkeepingReport { checks: CHECKS.len() as u64, faults })
}
