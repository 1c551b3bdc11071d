//! Reading bytes with a line count and a limit on what one XML token may hold.

use std::io::{self, BufRead, Read};

/// The most bytes of one tag, text, comment or document type declaration. Real exports stay below
/// a tenth of it; a larger token is refused before it is in memory.
pub(super) const MAX_TOKEN: u64 = 256 * 1024;

/// A reader that counts lines and bytes and refuses tokens beyond [`MAX_TOKEN`].
#[derive(Debug)]
pub(super) struct Source<R> {
    inner: R,
    /// Newlines consumed so far.
    pub(super) newlines: u64,
    /// Bytes consumed so far.
    pub(super) bytes: u64,
    budget: u64,
}

impl<R> Source<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, newlines: 0, bytes: 0, budget: MAX_TOKEN }
    }

    /// Starts the budget of the next token.
    pub(super) fn next_token(&mut self) {
        self.budget = MAX_TOKEN;
    }

    /// Whether the current token used its budget up.
    pub(super) fn exhausted(&self) -> bool {
        self.budget == 0
    }
}

impl<R: BufRead> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buf.len());
        buf[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.budget == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "XML token too large"));
        }
        let available = self.inner.fill_buf()?;
        let n = available.len().min(usize::try_from(self.budget).unwrap_or(usize::MAX));
        Ok(&available[..n])
    }

    fn consume(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        // What is consumed was just handed out, so this only looks at the buffer again.
        if let Ok(available) = self.inner.fill_buf() {
            let taken = available.iter().take(n);
            self.newlines += taken.filter(|byte| **byte == b'\n').count() as u64;
        }
        self.bytes += n as u64;
        self.budget = self.budget.saturating_sub(n as u64);
        self.inner.consume(n);
    }
}
