//! The one place that reads the wall clock.
//!
//! Everything in Tidemark counts time in whole milliseconds since the Unix epoch: what is written
//! is then exactly what is read back, whatever a database or a JSON parser keeps of a fraction.

use chrono::{DateTime, SubsecRound, Utc};

/// Now, in ms since the Unix epoch.
pub fn now_ms() -> i64 {
    now().timestamp_millis()
}

/// Now, cut to whole milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_no_fraction_of_a_millisecond() {
        assert_eq!(now().timestamp_subsec_nanos() % 1_000_000, 0);
        assert!(now_ms() > 1_700_000_000_000);
    }
}
