//! Padmé padding: how long a plaintext becomes so that its length tells little.
//!
//! Lengths are rounded up until only the leading bits differ: at most log log n bits of a length
//! remain visible and the overhead stays below 12 %, falling as blobs grow. From Nikitin et al.,
//! "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs" (2019), §4.

/// The padded length of `length` bytes: never smaller, and a fixed point of itself.
pub fn padded_len(length: usize) -> usize {
    let Some(exponent) = length.checked_ilog2() else { return length };
    let Some(kept) = exponent.checked_ilog2() else { return length };
    // Of the `exponent` bits after the leading one, the first `kept + 1` may vary.
    let cleared = exponent.saturating_sub(kept + 1);
    let mask = (1_usize << cleared) - 1;
    length.saturating_add(mask) & !mask
}
