//! Little-endian base-128 integers, run lengths and texts, and a reader that never panics.

/// Why packed bytes are not what they claim to be. Names the place, never the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packed samples are malformed: {0}")]
pub struct Malformed(pub(crate) &'static str);

impl Malformed {
    /// The place of the fault.
    pub fn reason(self) -> &'static str {
        self.0
    }
}

/// Appends a LEB128 integer.
pub(crate) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// Appends a zigzag LEB128 integer.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, zigzag(value));
}

/// Small magnitudes of both signs become small integers.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Appends a text with its length.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_unsigned(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a column as (value, run length) pairs. The reader knows the column's length.
pub(crate) fn put_runs(out: &mut Vec<u8>, column: impl IntoIterator<Item = u64>) {
    let mut current: Option<(u64, u64)> = None;
    for value in column {
        current = match current {
            Some((same, length)) if same == value => Some((same, length + 1)),
            Some((other, length)) => {
                put_unsigned(out, other);
                put_unsigned(out, length);
                Some((value, 1))
            }
            None => Some((value, 1)),
        };
    }
    if let Some((value, length)) = current {
        put_unsigned(out, value);
        put_unsigned(out, length);
    }
}

/// Reads packed bytes from front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed("truncated"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed("truncated"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed("integer too long"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("integer too long"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        self.unsigned().map(unzigzag)
    }

    /// A count of things that take at least one byte each, so that damage cannot claim memory.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.unsigned()?).map_err(|_| Malformed("count"))?;
        if count > self.rest.len() {
            return Err(Malformed("count exceeds bytes"));
        }
        Ok(count)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.count()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// A part with its length in front.
    pub(crate) fn part(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count()?;
        self.take(length)
    }

    /// A column of `n` values written by [`put_runs`].
    pub(crate) fn runs(&mut self, n: usize) -> Result<Vec<u64>, Malformed> {
        let mut column = Vec::with_capacity(n);
        while column.len() < n {
            let value = self.unsigned()?;
            let length = usize::try_from(self.unsigned()?).map_err(|_| Malformed("run length"))?;
            if length == 0 || length > n - column.len() {
                return Err(Malformed("run length"));
            }
            column.resize(column.len() + length, value);
        }
        Ok(column)
    }

    /// Refuses trailing bytes.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("trailing bytes")) }
    }
}
