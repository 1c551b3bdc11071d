//! What a decision needs to know besides the batch.

use std::collections::BTreeSet;

use super::event::Tombstone;
use crate::metric::Metric;
use crate::segment::LoadedSegment;

/// Facts looked up under the person's lock, and the clock.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Whether the person lets health data in at all. Deletions work regardless.
    pub uploads_allowed: bool,
    /// Metrics the person keeps out.
    pub blocked: BTreeSet<Metric>,
    /// Minutes east of UTC from the request's header, −720..=840.
    pub request_offset_min: Option<i16>,
    /// When the request arrived, in ms since the Unix epoch.
    pub received_ms: i64,
    /// When it is decided.
    pub now_ms: i64,
    /// The batch's place among the person's uploads by receipt.
    pub received_seq: i64,
    /// The person's health watermark before the batch; 0 at first.
    pub health_seq: i64,
    /// In the order of `lo_ms`: every segment that covers a start of the batch, and every segment
    /// that holds a record of a lossless deletion.
    pub segments: Vec<LoadedSegment>,
    /// Tombstones of the batch's records.
    pub tombstones: BTreeSet<Tombstone>,
}
