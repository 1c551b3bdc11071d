//! What a session's consumptions say about it.

use std::collections::BTreeMap;

use super::state::Session;
use crate::entity::time::parse_instant;

/// A session without activity for this long is over.
pub const IDLE_TIMEOUT_MS: i64 = 60 * 60 * 1000;

/// The values a client never sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    pub event_count: i64,
    pub total_duration_ms: i64,
    /// Rounded down; 0 without consumptions.
    pub avg_event_duration_ms: i64,
    /// The first consumption, or the start as given, in ms since the Unix epoch.
    pub start_ms: i64,
    /// The last consumption, or the start.
    pub last_activity_ms: i64,
    /// When an open session is over if nothing more happens.
    pub idle_deadline_ms: i64,
    /// The most used product, on a tie the one used last; else the one the person chose.
    pub primary_product_id: Option<String>,
}

impl Session {
    /// Computes the derived values afresh from the attached consumptions.
    pub fn derived(&self) -> Derived {
        let given_start =
            self.entity.text("sessionStartTimestamp").and_then(parse_instant).unwrap_or(0);
        let times = || self.doses.values().map(|dose| dose.at_ms);
        let start_ms = times().min().unwrap_or(given_start);
        let last_activity_ms = times().max().unwrap_or(given_start);
        let event_count = i64::try_from(self.doses.len()).unwrap_or(i64::MAX);
        let total_duration_ms =
            self.doses.values().fold(0, |total: i64, dose| total.saturating_add(dose.duration_ms));
        Derived {
            event_count,
            total_duration_ms,
            avg_event_duration_ms: total_duration_ms.checked_div(event_count).unwrap_or(0),
            start_ms,
            last_activity_ms,
            idle_deadline_ms: last_activity_ms.saturating_add(IDLE_TIMEOUT_MS),
            primary_product_id: self
                .most_used_product()
                .or_else(|| self.entity.text("primaryProductId").map(str::to_owned)),
        }
    }

    /// The product most consumptions name, on a tie the one consumed last, then the larger id.
    pub(super) fn most_used_product(&self) -> Option<String> {
        let mut uses: BTreeMap<&str, (usize, i64)> = BTreeMap::new();
        for dose in self.doses.values() {
            if let Some(product) = dose.product_id.as_deref() {
                let (count, last) = uses.entry(product).or_insert((0, i64::MIN));
                *count += 1;
                *last = (*last).max(dose.at_ms);
            }
        }
        let best =
            uses.into_iter().max_by_key(|(product, (count, last))| (*count, *last, *product));
        best.map(|(product, _)| product.to_owned())
    }

    /// When the session ended or, while it is open, will end by idling.
    pub fn end_ms(&self) -> i64 {
        self.ended_at_ms.unwrap_or_else(|| self.derived().idle_deadline_ms)
    }

    /// The end an idle session had, if its deadline has passed.
    pub fn idle_end(&self, now_ms: i64) -> Option<i64> {
        let deadline = self.derived().idle_deadline_ms;
        (self.is_open() && deadline <= now_ms).then_some(deadline)
    }
}
