//! Instants between text and milliseconds.

use chrono::{DateTime, Datelike, NaiveDateTime, SecondsFormat};

/// Milliseconds since the Unix epoch of an RFC 3339 instant with any offset, or of the
/// `YYYY-MM-DD HH:MM:SS` that SQLite writes, which is UTC. Finer digits are cut off. `None` for
/// anything else and for years outside 1900 to 9999.
pub fn parse_instant(text: &str) -> Option<i64> {
    let instant =
        DateTime::parse_from_rfc3339(text).map(|instant| instant.to_utc()).or_else(|_| {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map(|naive| naive.and_utc())
        });
    let instant = instant.ok()?;
    (1900..=9999).contains(&instant.year()).then(|| instant.timestamp_millis())
}

/// RFC 3339 in UTC with milliseconds and a `Z`, as the wire has it.
pub fn format_instant(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}
