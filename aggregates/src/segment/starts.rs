//! The column of start times in blocks of bits.
//!
//! Between two samples of a series lies about the same time, as a multiple of the clock's
//! resolution. Differences are therefore counted in their greatest common divisor, and of every
//! [`BLOCK`] of them only what exceeds the block's least is written, each in as many bits as the
//! block's greatest needs. A gap makes its own block wide and no other.
//!
//! ```text
//! first start (signed), divisor (unsigned), then for each block:
//! least difference (signed), width in bits (a byte), the excesses from the lowest bit up
//! ```

use super::bits::{bits, put_bits};
use super::bytes::{Malformed, Reader, put_signed, put_unsigned};

/// Differences of one block.
const BLOCK: usize = 32;

/// Appends the column. Any times in any order come back; those that rise evenly take few bits.
pub(super) fn put(out: &mut Vec<u8>, starts: &[i64]) {
    let Some(first) = starts.first() else { return };
    put_signed(out, *first);
    let mut steps: Vec<i64> = starts.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let divisor = steps.iter().fold(0, |divisor, step| gcd(divisor, step.unsigned_abs()));
    let divisor = i64::try_from(divisor).unwrap_or(1).max(1);
    put_unsigned(out, divisor.cast_unsigned());
    steps.iter_mut().for_each(|step| *step /= divisor);
    for block in steps.chunks(BLOCK) {
        let least = block.iter().copied().min().unwrap_or(0);
        let excesses = block.iter().map(|step| step.wrapping_sub(least).cast_unsigned());
        let width = 64 - excesses.clone().fold(0, |all, excess| all | excess).leading_zeros();
        put_signed(out, least);
        out.push(width.to_le_bytes()[0]);
        put_bits(out, width, excesses);
    }
}

/// The `n` times back.
pub(super) fn take(reader: &mut Reader<'_>, n: usize) -> Result<Vec<i64>, Malformed> {
    let mut starts = Vec::with_capacity(n);
    if n == 0 {
        return Ok(starts);
    }
    let mut last = reader.signed()?;
    starts.push(last);
    let divisor = i64::try_from(reader.unsigned()?).map_err(|_| Malformed("divisor"))?;
    while starts.len() < n {
        let length = (n - starts.len()).min(BLOCK);
        let least = reader.signed()?;
        let width = reader.byte()?;
        if width > 64 {
            return Err(Malformed("width"));
        }
        let bytes = reader.take((length * usize::from(width)).div_ceil(8))?;
        for excess in bits(bytes, width).take(length) {
            let step = least.wrapping_add(excess.cast_signed()).wrapping_mul(divisor);
            last = last.wrapping_add(step);
            starts.push(last);
        }
    }
    Ok(starts)
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(starts: &[i64]) -> Vec<i64> {
        let mut out = Vec::new();
        put(&mut out, starts);
        let mut reader = Reader::new(&out);
        let back = take(&mut reader, starts.len()).unwrap();
        reader.finish().unwrap();
        back
    }

    #[test]
    fn even_steps_take_no_bits_and_a_gap_widens_its_block_alone() {
        let length = |starts: &[i64]| {
            let mut out = Vec::new();
            put(&mut out, starts);
            assert_eq!(there_and_back(starts), starts);
            out.len()
        };
        let mut starts: Vec<i64> = (0..512).map(|n| 1_700_000_000_000 + n * 60_000).collect();
        // The first start, the divisor, and sixteen blocks of a least and a width.
        assert_eq!(length(&starts), 6 + 3 + 16 * 2);
        // A night without samples.
        starts[300..].iter_mut().for_each(|start| *start += 8 * 3_600_000);
        assert!(length(&starts) < 6 + 3 + 16 * 2 + 48);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_times_come_back(
            wild in prop::collection::vec(any::<i64>(), 0..70),
            tame in prop::collection::vec(0i64..100_000, 0..200),
            unit in 1i64..5000,
        ) {
            prop_assert_eq!(there_and_back(&wild), wild);
            let mut last = 1_700_000_000_000;
            let rising: Vec<i64> = tame
                .into_iter()
                .map(|step| {
                    last += step * unit;
                    last
                })
                .collect();
            prop_assert_eq!(there_and_back(&rising), rising);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, n in 0usize..300) {
            let _ = take(&mut Reader::new(&bytes), n);
        }
    }
}
