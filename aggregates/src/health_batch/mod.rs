//! An upload of health samples and deletions.
//!
//! Protects: one row a key, no sample lost or doubled, no deletion undone, every item answered
//! exactly once, and equal requests with equal effects. One upload is one stream with one event;
//! the event holds outcomes and resolved rows, so that replay needs neither catalogue nor clock.
//!
//! The steps of one upload:
//!
//! 1. [`Batch::parse`] the body. [`BatchError`] is a 400 (503 for a newer `configVersion`).
//! 2. Take the person's lock. Look the receipt of (person, request id) up. If there is one, compare
//!    the keyed hash of [`Batch::content`]: equal means replay, which is step 8 with the stored
//!    event; different is refused as retryable.
//! 3. Load the segments that cover [`Batch::ranges`] (for each range the last one that begins at or
//!    before it, and those that begin inside it) and, for [`Batch::lossless_records`], those whose
//!    folds name one of the ids; [`crate::segment::LoadedSegment::unpack`] them; of those that are sealed and end before their
//!    range begins the bounds do ([`crate::segment::LoadedSegment::closed`]); sort by `lo_ms`. Load
//!    the tombstones of [`Batch::records`]. Give all of it to a [`Context`].
//! 4. [`HealthBatch::decide`] gives exactly one [`HealthBatchEvent::Applied`], or a refusal of the
//!    whole batch.
//! 5. [`crate::segment::plan`] with the context's segments and [`Applied::rows`] gives the segments
//!    to write, to be applied in their order; [`crate::segment::pack`] and
//!    [`crate::segment::pack_folds`] make their bytes. Nothing changed means nothing to write.
//! 6. Insert [`Applied::tombstoned`].
//! 7. Append the event to a new stream, together with the receipt, the segments, the tombstones and
//!    `facts.health_seq`: one commit. A conflict starts again at step 2.
//! 8. [`render`] the answer from the event and the parsed request. Outcomes are stored in the
//!    batch's canonical order, so any permutation of the request finds its own.
//!
//! [`Samples`] folds the same events from zero and holds the same rows as the segments.

mod aggregate;
mod blob;
mod canonical;
mod context;
mod decide;
mod event;
mod fold;
mod instant;
mod item;
mod outcome;
mod render;
mod validate;
mod wire;

pub use aggregate::{HealthBatch, HealthBatchCommand, HealthBatchError};
pub use context::Context;
pub use decide::decide;
pub use event::{
    Affected, Applied, Correction, Counts, Facts, HealthBatchEvent, RefusalReason, RefusedRange,
    Tombstone,
};
pub use fold::Samples;
pub use outcome::{DeletionOutcome, Failure, SampleOutcome, Stage};
pub use render::{Accepted, Answer, Data, Deleted, Deletions, Metrics, Moment, Refused, render};
pub use wire::{
    Batch, BatchError, CONFIG_VERSION, DeletionItem, MAX_ITEMS, SampleContent, SampleItem,
};

/// `aggregate_type` of a batch's stream; its id is random.
pub const TYPE: &str = "health_batch";

#[cfg(test)]
mod tests;
