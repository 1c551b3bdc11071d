//! Samples, and the packed segments that hold them.
//!
//! A segment is one packed row of a person's samples over a range of start times, holding all
//! metrics, sorted by [`Key`]. Segments are disjoint and cover the time line: a segment begins at
//! its `lo_ms` and ends where the next one begins, and samples with the same start are never
//! split, so that the identity of a sample is decided in exactly one segment. Compression and
//! sealing happen outside; here are plain bytes.
//!
//! - [`pack`] and [`unpack`]: the columnar codec.
//! - [`plan`]: which segments an upload changes, from the segments loaded and the new rows.

mod bits;
mod bytes;
mod codec;
mod ids;
mod plan;
mod sample;
mod starts;

pub use bytes::Malformed;
pub(crate) use bytes::{Reader, put_runs, put_signed, put_unsigned};
pub use codec::{FORMAT, Packed, pack, pack_folds, unpack};
pub(crate) use codec::{put_dictionary, take_dictionary};
pub(crate) use ids::{pack as pack_ids, unpack as unpack_ids};
pub use plan::{Change, LoadedSegment, MAX, SEAL, SegmentWrite, find, plan};
pub use sample::{Key, Metadata, OffsetSource, Revision, Sample};

#[cfg(test)]
pub(crate) mod tests;
