//! The hash of one stored event: a leaf of the transparency log.
//!
//! It covers the bytes as they are stored, so that anyone with the row can recompute it, also after
//! the person's keys are gone. `committed_ms` and the position are outside: the one is assigned
//! under the log's lock, the other is the leaf's index plus one.
//!
//! ```text
//! leaf = SHA-256(
//!     0x00                                      one byte, as in RFC 6962: a leaf, not a node
//!   ‖ u32 16               ‖ event id           the UUID's 16 bytes
//!   ‖ u32 length           ‖ aggregate type     UTF-8
//!   ‖ u32 length           ‖ aggregate id       UTF-8
//!   ‖ i64 sequence
//!   ‖ u32 length           ‖ event type         UTF-8
//!   ‖ u32 length           ‖ event version      UTF-8, decimal digits
//!   ‖ u32 16               ‖ user id            the UUID's 16 bytes
//!   ‖ i64 recorded at                           ms since the Unix epoch
//!   ‖ SHA-256(payload)                          32 bytes, of the stored JSON text in UTF-8
//!   ‖ SHA-256(metadata)                         32 bytes, of the stored JSON text in UTF-8
//!   ‖ SHA-256(sealed)                           32 bytes; no sealed part counts as zero bytes
//! )
//! ```
//!
//! Lengths (`u32`) count bytes, not characters; lengths and integers are big-endian, integers in
//! two's complement. In SQL these are `int4send(octet_length(..))`, `int8send(..)`,
//! `uuid_send(..)`, `convert_to(.., 'UTF8')` and `sha256(..)`.

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use aggregates::UserId;

use super::fields::Fields;

/// A leaf's SHA-256.
pub type LeafHash = [u8; 32];

/// The stored columns that a leaf covers.
#[derive(Clone, Copy, Debug)]
pub struct LeafInput<'a> {
    pub event_id: Uuid,
    pub aggregate_type: &'a str,
    pub aggregate_id: &'a str,
    /// Place in its stream, from 1.
    pub sequence: i64,
    pub event_type: &'a str,
    /// As stored: an integer in decimal digits.
    pub event_version: &'a str,
    pub user: UserId,
    /// When the command was handled, in ms since the Unix epoch.
    pub recorded_at_ms: i64,
    /// The text of the column `payload`, byte for byte.
    pub payload: &'a str,
    /// The text of the column `metadata`, byte for byte.
    pub metadata: &'a str,
    /// The column `sealed`; empty where it is null.
    pub sealed: &'a [u8],
}

impl LeafInput<'_> {
    /// The leaf hash; see the module for its layout.
    pub fn hash(&self) -> LeafHash {
        let bytes = Fields::starting(&[0])
            .uuid(self.event_id)
            .text(self.aggregate_type)
            .text(self.aggregate_id)
            .integer(self.sequence)
            .text(self.event_type)
            .text(self.event_version)
            .uuid(self.user.0)
            .integer(self.recorded_at_ms)
            .fixed(&sha256(self.payload.as_bytes()))
            .fixed(&sha256(self.metadata.as_bytes()))
            .fixed(&sha256(self.sealed));
        sha256(bytes.as_ref())
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
