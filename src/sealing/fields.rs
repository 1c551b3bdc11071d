//! One unambiguous way to put several values into one byte string.
//!
//! Hashes, tags and associated data all need it: without lengths, ("ab", "c") and ("a", "bc")
//! would be the same bytes.

use uuid::Uuid;

/// Bytes that associated data and leaves rarely exceed, so that they are not moved while they grow.
const USUAL: usize = 320;

/// Writes values one after another: byte strings and texts as a 4-byte big-endian length and
/// their bytes, UUIDs as byte strings of 16, integers as 8 bytes big-endian (two's complement).
///
/// The reader knows the order of kinds from the first value, a label, so that two different lists
/// of values never give the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    /// Starts with the label that says which list of values follows.
    pub(crate) fn labelled(label: &str) -> Self {
        Self(Vec::with_capacity(USUAL)).text(label)
    }

    /// Starts with raw bytes, for formats that have a fixed first byte.
    pub(crate) fn starting(prefix: &[u8]) -> Self {
        let mut fields = Vec::with_capacity(USUAL);
        fields.extend_from_slice(prefix);
        Self(fields)
    }

    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        // Lengths beyond 4 GiB do not occur: requests, and so everything in them, are bounded far
        // below. Saturating would only make such a value hash to a value of its own.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn uuid(self, value: Uuid) -> Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn integer(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes of a length that is fixed by the format, such as a digest.
    pub(crate) fn fixed<const N: usize>(mut self, value: &[u8; N]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Fields {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
