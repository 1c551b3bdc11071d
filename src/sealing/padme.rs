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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_lengths() {
        let known = [
            (0, 0),
            (1, 1),
            (2, 2),
            (8, 8),
            (9, 10),
            (16, 16),
            (17, 18),
            (100, 104),
            (513, 544),
            (1_000, 1_024),
            (65_537, 67_584),
            (1_000_000, 1_015_808),
        ];
        for (length, padded) in known {
            assert_eq!(padded_len(length), padded, "of {length}");
        }
    }

    proptest! {
        #[test]
        fn grows_little_and_settles(length in 0_usize..100_000_000) {
            let padded = padded_len(length);
            prop_assert!(padded >= length);
            prop_assert!(padded - length <= length * 12 / 100);
            prop_assert_eq!(padded_len(padded), padded);
        }

        #[test]
        fn keeps_order(length in 0_usize..100_000_000) {
            prop_assert!(padded_len(length) <= padded_len(length + 1));
        }
    }
}
