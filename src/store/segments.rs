//! Packed samples of one person, in ranges of start times.
//!
//! What is stored of a segment in the clear is its span, its size and a keyed fold of each record
//! id; everything else is compressed and sealed. Decisions about samples are made on unpacked
//! segments in the `aggregates` crate, under the person's lane.

use std::collections::BTreeSet;

use aggregates::segment::{self, Change, LoadedSegment, SegmentWrite};
use aggregates::{Purpose, UserId};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::Store;
use super::append::SealedSegment;
use super::read::ReadError;
use super::seal::Sealer;
use crate::ids;
use crate::keys::{HealthHashes, SubjectKey};
use crate::sealing::Aad;

/// Starts further apart than this are looked up as separate ranges, in ms.
const CLUSTER_GAP_MS: i64 = 2 * 60 * 60 * 1000;
/// All metrics of a person share one lane; the column leaves room to part them.
const LANE: i16 = 0;

// The covering segment of a start is the last one that begins at or before it. `ORDER BY … LIMIT 1`
// is an index look-up; a `max()` in a comparison degrades into a filter as segments grow in number.
// Of a sealed segment that ends before the range begins only the bounds are of interest.
pub(crate) const COVERING: &str = "SELECT s.lo_ms, s.segment_id, s.version, s.ids_version, \
     CASE WHEN s.hi_ms >= q.a OR s.n < $4 THEN s.cols_sealed END, \
     CASE WHEN s.hi_ms >= q.a OR s.n < $4 THEN s.ids_sealed END, s.hi_ms \
     FROM unnest($2::bigint[], $3::bigint[]) q(a, b) \
     CROSS JOIN LATERAL ( \
       (SELECT * FROM health_segments h WHERE h.user_id = $1 AND h.lane = 0 AND h.lo_ms <= q.a \
         ORDER BY h.lo_ms DESC LIMIT 1) \
       UNION ALL \
       (SELECT * FROM health_segments h WHERE h.user_id = $1 AND h.lane = 0 \
         AND h.lo_ms > q.a AND h.lo_ms <= q.b)) s ORDER BY s.lo_ms";
pub(crate) const ALL: &str = "SELECT lo_ms, segment_id, version, ids_version, cols_sealed, \
     ids_sealed FROM health_segments WHERE user_id = $1 AND lane = 0 AND lo_ms > $2 \
     ORDER BY lo_ms LIMIT $3";
pub(crate) const BEFORE: &str = "SELECT lo_ms, segment_id, version, ids_version, cols_sealed, \
     ids_sealed FROM health_segments WHERE user_id = $1 AND lane = 0 AND lo_ms <= $2 \
     AND hi_ms >= $3 ORDER BY lo_ms DESC LIMIT $4";
pub(crate) const FOLDS: &str =
    "SELECT lo_ms, folds FROM health_segments WHERE user_id = $1 AND lane = 0";
pub(crate) const SPANS: &str = "SELECT lo_ms, hi_ms, n, folds FROM health_segments \
     WHERE user_id = $1 AND lane = 0 ORDER BY lo_ms";
pub(crate) const STANDING: &str = "SELECT coalesce(max(health_seq), 0), \
     coalesce(max(received_seq), 0), \
     EXISTS (SELECT 1 FROM health_tombstones WHERE user_id = $1) \
     FROM user_heads WHERE user_id = $1";
pub(crate) const ALL_TOMBSTONES: &str = "SELECT hmac FROM health_tombstones WHERE user_id = $1";
pub(crate) const TOMBSTONES: &str =
    "SELECT hmac FROM health_tombstones WHERE user_id = $1 AND hmac = ANY ($2)";

/// Opens segments of one person.
pub struct Segments<'a> {
    user: UserId,
    key: &'a SubjectKey,
}

impl<'a> Segments<'a> {
    /// With the person's health key.
    pub fn new(user: UserId, key: &'a SubjectKey) -> Self {
        Self { user, key }
    }

    /// The segments that cover the given starts (ms since the Unix epoch), in order.
    ///
    /// # Errors
    /// [`ReadError`] where the database does not answer or a segment is damaged.
    pub async fn covering(
        &self,
        connection: &mut PgConnection,
        starts: &BTreeSet<i64>,
    ) -> Result<Vec<LoadedSegment>, ReadError> {
        let (from, to): (Vec<i64>, Vec<i64>) = clusters(starts).into_iter().unzip();
        let rows = sqlx::query(COVERING)
            .bind(self.user.0)
            .bind(from)
            .bind(to)
            .bind(i32::try_from(segment::SEAL).unwrap_or(i32::MAX))
            .fetch_all(connection)
            .await?;
        let segments = rows.iter().map(|row| match row.try_get::<Option<&[u8]>, _>(4)? {
            Some(_) => self.open(row),
            None => Ok(LoadedSegment::closed(
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(0)?,
                row.try_get(6)?,
            )),
        });
        Ok(once_each(segments.collect::<Result<_, ReadError>>()?))
    }

    /// The segments that hold any of these record ids, whatever their start, and perhaps others:
    /// folds may collide, so callers compare in full.
    ///
    /// # Errors
    /// As [`covering`](Self::covering).
    pub async fn holding(
        &self,
        connection: &mut PgConnection,
        record_ids: &BTreeSet<&str>,
    ) -> Result<Vec<LoadedSegment>, ReadError> {
        if record_ids.is_empty() {
            return Ok(Vec::new());
        }
        let hashes = self.hashes()?;
        let wanted: BTreeSet<[u8; 4]> =
            record_ids.iter().map(|id| hashes.fold(id).to_le_bytes()).collect();
        let rows = sqlx::query(FOLDS).bind(self.user.0).fetch_all(&mut *connection).await?;
        let mut hits = BTreeSet::new();
        for row in rows {
            let folds: Vec<u8> = row.try_get(1)?;
            if folds.chunks_exact(4).any(|fold| wanted.contains(fold)) {
                hits.insert(row.try_get::<i64, _>(0)?);
            }
        }
        if hits.is_empty() {
            return Ok(Vec::new());
        }
        self.covering(connection, &hits).await
    }

    /// A page of all segments, in order, beginning after `after_lo_ms`.
    ///
    /// # Errors
    /// As [`covering`](Self::covering).
    pub async fn page(
        &self,
        connection: &mut PgConnection,
        after_lo_ms: i64,
        limit: i64,
    ) -> Result<Vec<LoadedSegment>, ReadError> {
        let rows = sqlx::query(ALL)
            .bind(self.user.0)
            .bind(after_lo_ms)
            .bind(limit)
            .fetch_all(connection)
            .await?;
        self.open_all(&rows)
    }

    /// Segments that may hold starts in `from_ms..=upto_ms`, newest first.
    ///
    /// # Errors
    /// As [`covering`](Self::covering).
    pub async fn newest(
        &self,
        connection: &mut PgConnection,
        from_ms: i64,
        upto_ms: i64,
        limit: i64,
    ) -> Result<Vec<LoadedSegment>, ReadError> {
        let rows = sqlx::query(BEFORE)
            .bind(self.user.0)
            .bind(upto_ms)
            .bind(from_ms)
            .bind(limit)
            .fetch_all(connection)
            .await?;
        self.open_all(&rows)
    }

    fn hashes(&self) -> Result<&HealthHashes, ReadError> {
        Ok(self.key.health_hashes()?)
    }

    fn open_all(&self, rows: &[PgRow]) -> Result<Vec<LoadedSegment>, ReadError> {
        rows.iter().map(|row| self.open(row)).collect()
    }

    fn open(&self, row: &PgRow) -> Result<LoadedSegment, ReadError> {
        let lo_ms = row.try_get(0)?;
        let segment_id: Uuid = row.try_get(1)?;
        let version: i32 = row.try_get(2)?;
        let ids_version: i32 = row.try_get(3)?;
        let cols = self.open_column(segment_id, version, "cols", row.try_get(4)?)?;
        let ids = self.open_column(segment_id, ids_version, "ids", row.try_get(5)?)?;
        LoadedSegment::unpack(segment_id, version, lo_ms, &cols, &ids)
            .map_err(|_| damaged("does not unpack"))
    }

    fn open_column(
        &self,
        segment_id: Uuid,
        version: i32,
        column: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, ReadError> {
        let aad = Aad::segment(self.user, segment_id, i64::from(version), column);
        self.key.sealing().open(&aad, sealed).map_err(|_| damaged("does not open"))
    }

    /// The rows to write for planned changes.
    ///
    /// # Errors
    /// [`ReadError`] where sealing fails.
    pub(crate) fn seal(&self, writes: &[SegmentWrite]) -> Result<Vec<SealedSegment>, ReadError> {
        let hashes = self.hashes()?;
        writes.iter().map(|write| self.seal_one(hashes, write)).collect()
    }

    fn seal_one(
        &self,
        hashes: &HealthHashes,
        write: &SegmentWrite,
    ) -> Result<SealedSegment, ReadError> {
        let (segment_id, old_version) = write.segment.unwrap_or_else(|| (ids::new_id(), 0));
        let version = if write.change == Change::Move { old_version } else { old_version + 1 };
        let new_ids = matches!(write.change, Change::Insert | Change::Both);
        let (mut cols, mut record_ids, mut folds) = (None, None, None);
        if write.change != Change::Move {
            let packed = segment::pack(&write.samples);
            cols = Some(self.seal_column(segment_id, version, "cols", &packed.cols)?);
            if new_ids {
                record_ids = Some(self.seal_column(segment_id, version, "ids", &packed.ids)?);
                folds = Some(segment::pack_folds(&write.samples, &|id| hashes.fold(id)));
            }
        }
        Ok(SealedSegment {
            old_lo_ms: write.old_lo_ms,
            lane: LANE,
            lo_ms: write.lo_ms,
            hi_ms: write.hi_ms(),
            n: i32::try_from(write.samples.len()).unwrap_or(i32::MAX),
            segment_id,
            version,
            format: i16::from(segment::FORMAT),
            folds,
            cols,
            ids: record_ids,
        })
    }

    fn seal_column(
        &self,
        segment_id: Uuid,
        version: i32,
        column: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, ReadError> {
        let aad = Aad::segment(self.user, segment_id, i64::from(version), column);
        self.key.sealing().seal(&aad, plain).map_err(|_| damaged("does not seal"))
    }
}

/// Puts segments in order, each once: two ranges may lie in one segment, of which one needs its
/// samples and the other does not.
pub(crate) fn once_each(mut segments: Vec<LoadedSegment>) -> Vec<LoadedSegment> {
    segments.sort_by_key(|segment| (segment.lo_ms, segment.closed_ms));
    segments.dedup_by_key(|segment| segment.lo_ms);
    segments
}

/// Where a person stands as an upload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Changing health batches so far.
    pub health_seq: i64,
    /// Health batches received so far.
    pub received_seq: i64,
    /// Whether there is any tombstone. They are written under the person's lane only, so that who
    /// holds the lane may rely on it.
    pub has_tombstones: bool,
}

/// Reads where a person stands.
///
/// # Errors
/// Where the database does not answer.
pub async fn standing(connection: &mut PgConnection, user: UserId) -> Result<Standing, ReadError> {
    let row = sqlx::query(STANDING).bind(user.0).fetch_one(connection).await?;
    Ok(Standing {
        health_seq: row.try_get(0)?,
        received_seq: row.try_get(1)?,
        has_tombstones: row.try_get(2)?,
    })
}

/// Which of the given tombstone hashes exist.
///
/// # Errors
/// Where the database does not answer.
pub async fn tombstones(
    connection: &mut PgConnection,
    user: UserId,
    hmacs: &[Vec<u8>],
) -> Result<BTreeSet<Vec<u8>>, ReadError> {
    if hmacs.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = sqlx::query(TOMBSTONES).bind(user.0).bind(hmacs).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(Into::into)
}

/// What is in the clear beside one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub lo_ms: i64,
    /// Greatest start in it.
    pub hi_ms: i64,
    pub n: i32,
    /// Four keyed bytes a record id.
    pub folds: Vec<u8>,
}

/// The clear side of all segments of a person, in order.
///
/// # Errors
/// Where the database does not answer.
pub async fn spans(connection: &mut PgConnection, user: UserId) -> Result<Vec<Span>, ReadError> {
    let rows = sqlx::query(SPANS).bind(user.0).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(Span {
                lo_ms: row.try_get(0)?,
                hi_ms: row.try_get(1)?,
                n: row.try_get(2)?,
                folds: row.try_get(3)?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Into::into)
}

/// The hashes of all tombstones of a person.
///
/// # Errors
/// Where the database does not answer.
pub async fn all_tombstones(
    connection: &mut PgConnection,
    user: UserId,
) -> Result<BTreeSet<Vec<u8>>, ReadError> {
    let rows = sqlx::query(ALL_TOMBSTONES).bind(user.0).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(Into::into)
}

impl Store {
    /// The person's health key, for segments and sample ids.
    ///
    /// # Errors
    /// [`ReadError::Key`] where it is gone.
    pub async fn health_key(&self, user: UserId) -> Result<std::sync::Arc<SubjectKey>, ReadError> {
        Sealer::key(self.sealer(), user, Purpose::Health).await
    }
}

fn damaged(what: &str) -> ReadError {
    ReadError::Corrupt { position: 0, reason: format!("a segment {what}") }
}

/// Ranges that hold all the starts, split where two neighbours lie far apart.
fn clusters(starts: &BTreeSet<i64>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &start in starts {
        match ranges.last_mut() {
            Some((_, end)) if start - *end <= CLUSTER_GAP_MS => *end = start,
            _ => ranges.push((start, start)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_far_apart_are_separate_ranges() {
        let hour = 60 * 60 * 1000;
        let starts = BTreeSet::from([0, hour, 3 * hour, 9 * hour]);
        assert_eq!(clusters(&starts), vec![(0, 3 * hour), (9 * hour, 9 * hour)]);
        assert_eq!(clusters(&BTreeSet::new()), vec![]);
    }
}
