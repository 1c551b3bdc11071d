//! One stored health sample.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::metric::{Metric, Micro};

/// Whitelisted facts about a sample's origin.
pub type Metadata = BTreeMap<String, serde_json::Value>;

/// Most local dates a sample may touch. Thirty-one days, the longest sample, touch 32.
const MAX_DATES: usize = 32;

/// What makes a sample the same sample, within one person. Ordered by time first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub start_ms: i64,
    pub source_id: Arc<str>,
    /// Lower case.
    pub record_id: Arc<str>,
}

/// Where the offset of a sample came from, by rising authority.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OffsetSource {
    #[default]
    None,
    /// The upload's header: where the phone was when it sent the sample.
    Request,
    /// The sample itself.
    Sample,
}

/// What the client knows about the order of a record's versions. Compared in field order; a known
/// part beats an unknown one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision {
    pub record_version: Option<i64>,
    pub modified_ms: Option<i64>,
}

/// A sample as stored: values in canonical units, times in ms since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub key: Key,
    pub metric: Metric,
    pub end_ms: i64,
    /// Set for every kind but categories.
    pub value: Option<Micro>,
    /// Number of the category code; see [`Metric::category_code`].
    pub category: Option<u8>,
    pub duration_s: Option<u32>,
    /// Minutes east of UTC, −720..=840; resolved once, when the sample was stored.
    pub offset_min: Option<i16>,
    pub offset_source: OffsetSource,
    /// The platform's device identifier.
    pub device_id: Option<Arc<str>>,
    pub external_uuid: Option<Arc<str>>,
    pub metadata: Option<Arc<Metadata>>,
    pub revision: Revision,
    /// `received_seq` of the batch that last wrote the sample.
    pub batch_seq: i64,
    pub created_ms: i64,
    /// Set once the sample is deleted, and never unset.
    pub deleted_ms: Option<i64>,
}

impl Sample {
    pub fn is_active(&self) -> bool {
        self.deleted_ms.is_none()
    }

    /// The local date at the start: the day a daily rollup counts the sample on.
    pub fn local_date(&self) -> NaiveDate {
        local_date(self.key.start_ms, self.offset_min)
    }

    /// Every local date the sample overlaps, at its own offset.
    pub fn local_dates(&self) -> impl Iterator<Item = NaiveDate> {
        let first = self.local_date();
        dates_between(first, local_date(self.last_ms(), self.offset_min))
    }

    /// Every night the sample may belong to. A night is named by the local date on which its noon
    /// to noon window begins.
    pub fn nights(&self) -> impl Iterator<Item = NaiveDate> {
        let shifted = Some(self.offset_min.unwrap_or(0) - 720);
        dates_between(local_date(self.key.start_ms, shifted), local_date(self.last_ms(), shifted))
    }

    /// The last instant the sample covers: intervals are half-open.
    fn last_ms(&self) -> i64 {
        self.key.start_ms.max(self.end_ms.saturating_sub(1))
    }
}

fn local_date(at_ms: i64, offset_min: Option<i16>) -> NaiveDate {
    let local = at_ms.saturating_add(i64::from(offset_min.unwrap_or(0)) * 60_000);
    DateTime::from_timestamp_millis(local).unwrap_or_default().date_naive()
}

fn dates_between(first: NaiveDate, last: NaiveDate) -> impl Iterator<Item = NaiveDate> {
    std::iter::successors(Some(first), |date| date.checked_add_days(Days::new(1)))
        .take_while(move |date| *date <= last)
        .take(MAX_DATES)
}
