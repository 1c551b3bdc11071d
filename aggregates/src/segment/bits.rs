//! Columns of integers in as many bits as they need.

/// Appends each value's lowest `width` bits, at most 64, from the lowest bit up.
pub(super) fn put_bits(out: &mut Vec<u8>, width: u32, values: impl Iterator<Item = u64>) {
    let (mut waiting, mut filled) = (0u128, 0);
    for value in values {
        waiting |= u128::from(value) << filled;
        filled += width;
        while filled >= 8 {
            out.push(waiting.to_le_bytes()[0]);
            waiting >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(waiting.to_le_bytes()[0]);
    }
}

/// Values of `width` bits, at most 64; zeros after the last.
pub(super) fn bits(bytes: &[u8], width: u8) -> impl Iterator<Item = u64> {
    let mask = u128::from(u64::MAX.checked_shr(64 - u32::from(width)).unwrap_or(0));
    let (mut waiting, mut filled) = (0u128, 0u8);
    let mut bytes = bytes.iter();
    std::iter::repeat_with(move || {
        while filled < width {
            waiting |= u128::from(bytes.next().copied().unwrap_or(0)) << filled;
            filled += 8;
        }
        let value = waiting & mask;
        waiting >>= width;
        filled -= width;
        u64::try_from(value).unwrap_or(0)
    })
}
