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

#[cfg(test)]
mod tests {
    use uuid::uuid;

    use super::*;

    const EVENT: LeafInput<'static> = LeafInput {
        event_id: uuid!("01890a5d-ac96-774b-bcce-b302099a8057"),
        aggregate_type: "session",
        aggregate_id: "99999999-8888-4777-8666-555555555555",
        sequence: 7,
        event_type: "session.started",
        event_version: "1",
        user: UserId(uuid!("11111111-2222-4333-8444-555555555555")),
        recorded_at_ms: 1_700_000_000_123,
        payload: r#"{"v":1,"k":"naïve"}"#,
        metadata: "{}",
        sealed: &[1, 2, 3],
    };

    /// Computed outside this program from the layout above. A change breaks every proof.
    #[test]
    fn layout_never_changes() {
        assert_eq!(
            hex::encode(EVENT.hash()),
            "4c7d964c0ed930718d48925a57b6742b3f0957b25dae8ee3c2c2e74763eba095"
        );
        assert_eq!(
            hex::encode(LeafInput { sealed: &[], ..EVENT }.hash()),
            "f7ecdc9aa3ee50cb9b90bb8116706dd89b8cf6007ec96ef27edd80770f40fa7e"
        );
    }

    #[test]
    fn every_column_counts() {
        let other = Uuid::nil();
        let changed = [
            LeafInput { event_id: other, ..EVENT },
            LeafInput { aggregate_type: "goal", ..EVENT },
            LeafInput { aggregate_id: "x", ..EVENT },
            LeafInput { sequence: 8, ..EVENT },
            LeafInput { event_type: "session.ended", ..EVENT },
            LeafInput { event_version: "2", ..EVENT },
            LeafInput { user: UserId(other), ..EVENT },
            LeafInput { recorded_at_ms: 0, ..EVENT },
            LeafInput { payload: "{}", ..EVENT },
            LeafInput { metadata: "", ..EVENT },
            LeafInput { sealed: &[1, 2], ..EVENT },
        ];
        for event in changed {
            assert_ne!(event.hash(), EVENT.hash(), "{event:?}");
        }
    }

    #[test]
    fn neighbouring_columns_do_not_run_together() {
        let one = LeafInput { aggregate_type: "ab", aggregate_id: "c", ..EVENT };
        let two = LeafInput { aggregate_type: "a", aggregate_id: "bc", ..EVENT };
        assert_ne!(one.hash(), two.hash());
    }
}
