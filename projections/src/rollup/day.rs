//! From the samples of one day to its row.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aggregates::metric::{Metric, Micro, ValueKind};
use aggregates::segment::Sample;
use chrono::{Days, NaiveDate, NaiveTime};

use crate::freshness::Stored;

/// Offsets from UTC in minutes that occur on Earth: UTC−12 to UTC+14.
const OFFSET_RANGE_MIN: (i64, i64) = (-720, 840);
const MS_PER_MIN: i64 = 60_000;
const MICRO: i128 = 1_000_000;

/// Which row of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayKey {
    pub metric: Metric,
    /// The local date on which the samples start.
    pub day: NaiveDate,
}

impl DayKey {
    /// The one row a sample belongs to; `None` for categories, which do not add up.
    pub fn of(sample: &Sample) -> Option<Self> {
        let numeric = sample.metric.kind() != ValueKind::Category;
        numeric.then(|| Self { metric: sample.metric, day: sample.local_date() })
    }
}

/// What the rollup needs of a sample that is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub value: Micro,
    /// In ms since the Unix epoch.
    pub start_ms: i64,
    /// Minutes east of UTC, where known.
    pub offset_min: Option<i16>,
}

impl Reading {
    /// The reading of a sample; `None` if it is deleted or has no value.
    pub fn of(sample: &Sample) -> Option<Self> {
        let value = sample.value.filter(|_| sample.is_active())?;
        Some(Self { value, start_ms: sample.key.start_ms, offset_min: sample.offset_min })
    }
}

/// One day of one metric. Sums are exact integers, so that they do not depend on the order of
/// addition and an incremental result equals a rebuilt one to the last digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayRow {
    pub key: DayKey,
    /// Readings with a value.
    pub count: i64,
    /// Σ value in 10⁻⁶ units; `None` when empty.
    pub sum_micro: Option<i128>,
    /// Smallest and largest value; `None` when empty, and for counters.
    pub min: Option<Micro>,
    pub max: Option<Micro>,
    /// Σ value² in 10⁻⁶ units², rounded half up once at the end; scalars only.
    pub sum_sq_micro: Option<i128>,
    /// The day's most frequent offset, on a tie the latest reading's; `None` where none is known.
    pub offset_min: Option<i16>,
}

impl DayRow {
    /// What the row says of itself.
    pub fn status(&self) -> Stored {
        if self.count == 0 { Stored::NoData } else { Stored::Ready }
    }

    /// The mean value, in units; `None` when empty and for counters, where it means nothing.
    /// Computed exactly, rounded half to even to six places; the sums behind it stay exact.
    pub fn average(&self) -> Option<f64> {
        if self.key.metric.kind() == ValueKind::Cumulative {
            return None;
        }
        let count = i128::from(self.count);
        let sum = self.sum_micro.filter(|_| count > 0)?;
        let (below, rest) = (sum.div_euclid(count), sum.rem_euclid(count));
        let up = match (2 * rest).cmp(&count) {
            Ordering::Less => false,
            Ordering::Equal => below % 2 != 0,
            Ordering::Greater => true,
        };
        Some((below + i128::from(up)) as f64 / MICRO as f64)
    }
}

/// The instants `[from, to)` that can belong to a local day of `first..=last`, whatever the offset.
pub fn range_ms(first: NaiveDate, last: NaiveDate) -> (i64, i64) {
    let (west, east) = OFFSET_RANGE_MIN;
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
    let after = last.checked_add_days(Days::new(1)).unwrap_or(last);
    (midnight(first) - east * MS_PER_MIN, midnight(after) - west * MS_PER_MIN)
}

/// The row of one day from its readings, in any order.
pub fn compute(key: DayKey, readings: impl IntoIterator<Item = Reading>) -> DayRow {
    let mut count = 0;
    let (mut sum, mut sum_sq) = (0i128, 0i128);
    let (mut min, mut max) = (None, None);
    // Offset → (how often, latest start).
    let mut offsets: BTreeMap<i16, (u32, i64)> = BTreeMap::new();
    for reading in readings {
        let value = i128::from(reading.value.0);
        count += 1;
        sum += value;
        sum_sq = sum_sq.saturating_add(value * value);
        min = Some(min.map_or(reading.value, |least: Micro| least.min(reading.value)));
        max = Some(max.map_or(reading.value, |most: Micro| most.max(reading.value)));
        if let Some(offset) = reading.offset_min {
            let seen = offsets.entry(offset).or_insert((0, i64::MIN));
            *seen = (seen.0 + 1, seen.1.max(reading.start_ms));
        }
    }
    let kind = key.metric.kind();
    let some = |value: i128| (count > 0).then_some(value);
    DayRow {
        key,
        count,
        sum_micro: some(sum),
        min: min.filter(|_| kind != ValueKind::Cumulative),
        max: max.filter(|_| kind != ValueKind::Cumulative),
        sum_sq_micro: some((sum_sq.saturating_add(MICRO / 2)) / MICRO)
            .filter(|_| kind == ValueKind::Scalar),
        // Two offsets still tie if readings begin in the same instant; then the eastern one is
        // taken, so that the order of arrival never shows.
        offset_min: offsets
            .into_iter()
            .max_by_key(|(offset, (times, latest))| (*times, *latest, *offset))
            .map(|(offset, _)| offset),
    }
}
