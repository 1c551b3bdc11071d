//! Wall-clock time in the one form the API writes it.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

/// Now, as `2026-01-02T03:04:05.678Z`.
pub fn now_iso() -> String {
    iso_ms(DateTime::<Utc>::from(SystemTime::now()))
}

/// `time` as `2026-01-02T03:04:05.678Z`.
pub fn iso_ms(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
