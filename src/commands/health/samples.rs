//! Pages of a person's samples, newest first.
//!
//! A page begins after the last row of the one before, by start and then by id. Segments never give
//! rows to segments that begin earlier, so pages taken while uploads go on hold every row that was
//! there throughout exactly once.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use aggregates::UserId;
use aggregates::metric::Metric;
use aggregates::segment::{LoadedSegment, Sample};
use uuid::Uuid;

use crate::keys::{KeyError, SampleIds};
use crate::store::segments::Segments;
use crate::store::{ReadError, Store};

/// Segments read at once: the first page mostly needs few, a rare metric many.
const FIRST_READ: i64 = 4;
const LARGEST_READ: i64 = 64;

/// Which samples are wanted.
#[derive(Clone, Copy, Debug)]
pub struct SampleRange {
    /// Earliest start, in ms since the Unix epoch.
    pub from_ms: i64,
    /// Starts lie before this.
    pub until_ms: i64,
    pub metric: Option<Metric>,
    /// Start and id of the last sample already known.
    pub after: Option<(i64, Uuid)>,
    pub limit: usize,
}

/// A page of samples with their ids, by falling start and id.
#[derive(Clone, Debug, Default)]
pub struct SamplesPage {
    pub samples: Vec<(Uuid, Sample)>,
    pub has_more: bool,
}

/// Reads one page. Nothing is left of erased health data.
///
/// # Errors
/// [`ReadError`] where the database does not answer or a segment is damaged.
pub async fn page(
    store: &Store,
    user: UserId,
    range: &SampleRange,
) -> Result<SamplesPage, ReadError> {
    let key = match store.health_key(user).await {
        Ok(key) => key,
        Err(ReadError::Key(KeyError::Shredded { .. })) => return Ok(SamplesPage::default()),
        Err(error) => return Err(error),
    };
    let hashes = key.health_hashes()?;
    let segments = Segments::new(user, &key);
    let mut connection = store.pool().acquire().await?;
    let mut collected = Collected { range, ids: hashes.sample_ids(), samples: Vec::new() };
    let mut upto_ms = range.until_ms.saturating_sub(1);
    if let Some((start_ms, _)) = range.after {
        upto_ms = upto_ms.min(start_ms);
    }
    let mut read = FIRST_READ;
    while upto_ms >= range.from_ms {
        let found = segments.newest(&mut connection, range.from_ms, upto_ms, read).await?;
        let Some(oldest) = found.last() else { break };
        upto_ms = oldest.lo_ms - 1;
        if found.iter().any(|segment| collected.take(segment).is_break()) {
            break;
        }
        read = (read * 2).min(LARGEST_READ);
    }
    let mut samples = collected.samples;
    let has_more = samples.len() > range.limit;
    samples.truncate(range.limit);
    Ok(SamplesPage { samples, has_more })
}

fn same_start(a: &Sample, b: &Sample) -> bool {
    a.key.start_ms == b.key.start_ms
}

struct Collected<'a> {
    range: &'a SampleRange,
    ids: SampleIds,
    /// One more than asked for, where there is one.
    samples: Vec<(Uuid, Sample)>,
}

impl Collected<'_> {
    /// Takes what belongs on the page; breaks once it is full. All samples of one start lie in one
    /// segment.
    fn take(&mut self, segment: &LoadedSegment) -> ControlFlow<()> {
        for rows in segment.samples.chunk_by(same_start).rev() {
            if !self.in_range(rows) {
                continue;
            }
            let mut rows: Vec<(Uuid, &Sample)> = rows
                .iter()
                .filter(|sample| self.wanted(sample))
                .map(|sample| (self.id(sample), sample))
                .filter(|(id, sample)| {
                    self.range.after.is_none_or(|after| (sample.key.start_ms, *id) < after)
                })
                .collect();
            rows.sort_by_key(|row| Reverse(row.0));
            self.samples.extend(rows.into_iter().map(|(id, sample)| (id, sample.clone())));
            if self.samples.len() > self.range.limit {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn in_range(&self, rows: &[Sample]) -> bool {
        let Some(start_ms) = rows.first().map(|sample| sample.key.start_ms) else {
            return false;
        };
        let latest = self.range.after.map_or(i64::MAX, |(start_ms, _)| start_ms);
        (self.range.from_ms..self.range.until_ms).contains(&start_ms) && start_ms <= latest
    }

    fn wanted(&self, sample: &Sample) -> bool {
        sample.is_active() && self.range.metric.is_none_or(|metric| sample.metric == metric)
    }

    fn id(&self, sample: &Sample) -> Uuid {
        let key = &sample.key;
        self.ids.of(&key.source_id, &key.record_id, key.start_ms)
    }
}
