//! How commands report: JSON as it is, errors and times in one form.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

/// Prints one JSON value on one line.
///
/// # Errors
/// Where standard output is gone.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    io::stdout().lock().write_all(&line)
}

/// Prints text as it is.
///
/// # Errors
/// Where standard output is gone.
pub(super) fn text(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// A time in ms since the Unix epoch, as people and programs read it.
pub(super) fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// An error and its causes on one line; a cause that its effect already tells is left out.
pub(super) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = anyhow::anyhow!("disk\nfull").context("could not write").context("no backup");
        assert_eq!(one_line(&error), "no backup: could not write: disk full");
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
