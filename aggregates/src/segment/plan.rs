//! Which segments change when rows change.
//!
//! A segment takes samples until it holds [`SEAL`]; what comes after the last or before the first
//! sample of a sealed segment starts a new one, so that an upload in time order writes every
//! sample once. What falls inside is merged, and a segment above [`MAX`] is split evenly. There is
//! no background compaction.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::bytes::Malformed;
use super::codec::unpack;
use super::sample::{Key, Sample};

/// From this size on a segment is not merged with samples outside its own span.
pub const SEAL: usize = 128;
/// Above this size a merged segment is split; more only where one start holds more samples.
pub const MAX: usize = 1024;

/// A segment as read from the database and unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedSegment {
    pub segment_id: Uuid,
    pub version: i32,
    /// Where the segment begins; it ends where the person's next one begins.
    pub lo_ms: i64,
    /// In key order; not read where [`closed_ms`](Self::closed_ms) is set.
    pub samples: Vec<Sample>,
    /// Set where the samples did not have to be read: there are at least [`SEAL`], the greatest
    /// start among them is this, and every row of the upload that belongs here begins later.
    pub closed_ms: Option<i64>,
}

/// What a write does to the stored row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new segment.
    Insert,
    /// Only `lo_ms` changes; the packed bytes stay.
    Move,
    /// `cols` and perhaps `lo_ms` change; record ids and folds stay.
    Cols,
    /// Everything changes.
    Both,
}

impl LoadedSegment {
    /// A segment from its opened columns.
    ///
    /// # Errors
    /// [`Malformed`] where the bytes are damaged, or where the samples are not in strict key order
    /// from `lo_ms` on: looking a key up relies on both.
    pub fn unpack(
        segment_id: Uuid,
        version: i32,
        lo_ms: i64,
        cols: &[u8],
        ids: &[u8],
    ) -> Result<Self, Malformed> {
        let samples = unpack(cols, ids)?;
        let ordered = samples.windows(2).all(|pair| pair[0].key < pair[1].key);
        if !ordered || samples.first().is_some_and(|first| first.key.start_ms < lo_ms) {
            return Err(Malformed("segment is out of order"));
        }
        Ok(Self { segment_id, version, lo_ms, samples, closed_ms: None })
    }

    /// A segment of at least [`SEAL`] samples that all begin before every row of the upload that
    /// belongs here, the last one at `hi_ms`: whatever they are, the rows are new.
    pub fn closed(segment_id: Uuid, version: i32, lo_ms: i64, hi_ms: i64) -> Self {
        Self { segment_id, version, lo_ms, samples: Vec::new(), closed_ms: Some(hi_ms) }
    }
}

/// One row to write. Changes of existing segments come first, in the order in which they must be
/// applied: a new segment may take over the `lo_ms` an old one just left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentWrite {
    pub change: Change,
    /// Id and version as loaded; `None` for new segments.
    pub segment: Option<(Uuid, i32)>,
    /// `lo_ms` as loaded: the stored row's key.
    pub old_lo_ms: Option<i64>,
    pub lo_ms: i64,
    /// Everything the segment holds afterwards.
    pub samples: Vec<Sample>,
}

impl SegmentWrite {
    /// The greatest start, for the row's `hi_ms`.
    pub fn hi_ms(&self) -> i64 {
        self.samples.last().map_or(self.lo_ms, |sample| sample.key.start_ms)
    }
}

/// The sample with this key among segments in the order of their `lo_ms`.
pub fn find<'a>(segments: &'a [LoadedSegment], key: &Key) -> Option<&'a Sample> {
    let segment = &segments[covering(segments, key.start_ms)?];
    let place = segment.samples.binary_search_by(|sample| sample.key.cmp(key)).ok()?;
    Some(&segment.samples[place])
}

/// The index of the segment that holds this start: the last one that begins at or before it.
fn covering(segments: &[LoadedSegment], start_ms: i64) -> Option<usize> {
    segments.partition_point(|segment| segment.lo_ms <= start_ms).checked_sub(1)
}

/// The writes that put `rows` into the segments. `segments` are in the order of `lo_ms` and
/// include, for every row, the person's segment that covers its start.
pub fn plan(segments: &[LoadedSegment], rows: &BTreeMap<&Key, &Sample>) -> Vec<SegmentWrite> {
    let mut shares: BTreeMap<Option<usize>, Vec<&Sample>> = BTreeMap::new();
    for (key, sample) in rows {
        shares.entry(covering(segments, key.start_ms)).or_default().push(sample);
    }
    let (mut changed, mut inserted) = (Vec::new(), Vec::new());
    for (place, rows) in shares {
        match place {
            Some(place) => plan_one(&segments[place], &rows, &mut changed, &mut inserted),
            // A person's first segment begins at zero and covers every later start.
            None => insert(0, rows.into_iter().cloned().collect(), &mut inserted),
        }
    }
    changed.extend(inserted);
    changed
}

fn plan_one(
    old: &LoadedSegment,
    rows: &[&Sample],
    changed: &mut Vec<SegmentWrite>,
    inserted: &mut Vec<SegmentWrite>,
) {
    if let (Some(hi_ms), Some(first)) = (old.closed_ms, rows.first()) {
        let lo_ms = first.key.start_ms;
        debug_assert!(lo_ms > hi_ms, "a segment was not read though rows belong into it");
        insert(lo_ms, rows.iter().copied().cloned().collect(), inserted);
        return;
    }
    let mut samples = old.samples.clone();
    let (mut fresh, mut replaced) = (Vec::new(), false);
    for row in rows {
        match samples.binary_search_by(|sample| sample.key.cmp(&row.key)) {
            Ok(place) if samples[place] == **row => {}
            Ok(place) => {
                samples[place] = (*row).clone();
                replaced = true;
            }
            Err(_) => fresh.push((*row).clone()),
        }
    }
    let mut write = |change, lo_ms, samples| {
        changed.push(SegmentWrite {
            change,
            segment: Some((old.segment_id, old.version)),
            old_lo_ms: Some(old.lo_ms),
            lo_ms,
            samples,
        });
    };
    let sealed = samples.len() >= SEAL;
    let span = samples.first().map(|s| s.key.start_ms).zip(samples.last().map(|s| s.key.start_ms));
    let all = |test: &dyn Fn(i64) -> bool| fresh.iter().all(|s| test(s.key.start_ms));
    match span {
        _ if fresh.is_empty() => {
            if replaced {
                write(Change::Cols, old.lo_ms, samples);
            }
        }
        Some((_, last)) if sealed && all(&|start| start > last) => {
            if replaced {
                write(Change::Cols, old.lo_ms, samples);
            }
            let lo_ms = fresh[0].key.start_ms;
            insert(lo_ms, fresh, inserted);
        }
        Some((first, _)) if sealed && all(&|start| start < first) => {
            write(if replaced { Change::Cols } else { Change::Move }, first, samples);
            insert(old.lo_ms, fresh, inserted);
        }
        _ => {
            samples.extend(fresh);
            samples.sort_by(|a, b| a.key.cmp(&b.key));
            let mut parts = split(samples).into_iter();
            if let Some(part) = parts.next() {
                write(Change::Both, old.lo_ms, part);
            }
            inserted.extend(parts.map(|part| new_segment(part[0].key.start_ms, part)));
        }
    }
}

/// New segments for samples that begin at `lo_ms`.
fn insert(lo_ms: i64, samples: Vec<Sample>, inserted: &mut Vec<SegmentWrite>) {
    for (place, part) in split(samples).into_iter().enumerate() {
        let lo_ms = if place == 0 { lo_ms } else { part[0].key.start_ms };
        inserted.push(new_segment(lo_ms, part));
    }
}

fn new_segment(lo_ms: i64, samples: Vec<Sample>) -> SegmentWrite {
    SegmentWrite { change: Change::Insert, segment: None, old_lo_ms: None, lo_ms, samples }
}

/// Even parts of at most [`MAX`], cut only where the start changes; none of them empty.
fn split(mut samples: Vec<Sample>) -> Vec<Vec<Sample>> {
    let mut parts = Vec::new();
    while samples.len() > MAX {
        let wanted = samples.len().div_ceil(samples.len().div_ceil(MAX));
        let start = |place: usize| samples[place].key.start_ms;
        let cuts = |place: &usize| start(*place) != start(*place - 1);
        let Some(cut) =
            (1..=wanted).rev().find(cuts).or_else(|| (wanted + 1..samples.len()).find(cuts))
        else {
            break;
        };
        let rest = samples.split_off(cut);
        parts.push(std::mem::replace(&mut samples, rest));
    }
    parts.push(samples);
    parts
}
