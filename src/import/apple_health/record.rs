//! From one `Record` element to the samples it stands for.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, Utc};
use serde_json::Value;

use super::Malformed;
use super::identity::{Fields, Identities, stable_device};
use super::metrics::{Reading, kind_of, reading, sleep_stage};
use crate::client::wire::{Sample, ValueKind, wire_time};

/// The producer's name on the wire.
pub const SOURCE_ID: &str = "apple_healthkit";

/// The attributes of a `Record` that matter here, unescaped.
#[derive(Debug, Default)]
pub(super) struct RawRecord {
    pub(super) hk_type: String,
    pub(super) source_name: String,
    pub(super) source_version: String,
    pub(super) device: String,
    pub(super) unit: String,
    pub(super) start: String,
    pub(super) end: String,
    pub(super) value: String,
    pub(super) user_entered: bool,
}

/// What a record came to.
pub(super) enum Outcome {
    /// One sample, and the intervals derived from it if it is a stage of sleep.
    Samples { samples: Vec<Sample>, repeated: bool },
    /// A HealthKit type, or a code of it, outside the catalogue.
    Unknown,
}

impl RawRecord {
    /// The samples of the record.
    pub(super) fn samples(&self, identities: &mut Identities) -> Result<Outcome, Malformed> {
        if self.hk_type.is_empty() {
            return Err(Malformed::Type);
        }
        let Some(reading) = reading(&self.hk_type) else { return Ok(Outcome::Unknown) };
        let (start, end) = (date(&self.start)?, date(&self.end)?);
        if start > end {
            return Err(Malformed::Order);
        }
        if start.timestamp_millis() < 0 {
            return Err(Malformed::Date);
        }
        let seconds = (end - start).num_seconds();
        let mut derived: &[&str] = &[];
        let (metric, value, unit) = match reading {
            Reading::Quantity { metric } => {
                if self.unit.is_empty() {
                    return Err(Malformed::Unit);
                }
                (metric, Content::Number(number(&self.value)?), self.unit.as_str())
            }
            Reading::Fraction { metric } => {
                let fraction = number(&self.value)?;
                (metric, Content::Number(micro(fraction * 100.0)), "%")
            }
            Reading::StandHour => {
                let stood = match self.value.as_str() {
                    "HKCategoryValueAppleStandHourStood" => 1.0,
                    "HKCategoryValueAppleStandHourIdle" => 0.0,
                    _ => return Ok(Outcome::Unknown),
                };
                ("stand_hours", Content::Number(stood), "count")
            }
            Reading::Minutes { metric } => (metric, Content::Number(minutes(seconds)), "min"),
            Reading::Sleep => {
                let Some((stage, adds_to)) = sleep_stage(&self.value) else {
                    return Ok(Outcome::Unknown);
                };
                derived = adds_to;
                ("sleep_stage", Content::Code(stage), "")
            }
        };
        let Some(kind) = kind_of(metric) else { return Ok(Outcome::Unknown) };
        let (id, occurrence) = identities.id(&Fields {
            hk_type: &self.hk_type,
            source: &self.source_name,
            device: &self.device,
            start_ms: start.timestamp_millis(),
            end_ms: end.timestamp_millis(),
            value: &self.value,
        });
        let (value, category_code) = match value {
            Content::Number(number) => (Some(number), None),
            Content::Code(code) => (None, Some(code.to_owned())),
        };
        let sample = Sample {
            source_id: SOURCE_ID.into(),
            source_record_id: id.to_string(),
            metric_code: metric.into(),
            value_kind: kind,
            value,
            unit: value.map(|_| unit.to_owned()),
            category_code,
            start_at: wire_time(start.with_timezone(&Utc)),
            end_at: wire_time(end.with_timezone(&Utc)),
            duration_seconds: Some(seconds),
            timezone_offset_minutes: offset_minutes(&start),
            metadata: self.metadata(),
        };
        // A stage without length adds to no duration.
        let derived = if seconds == 0 { &[] } else { derived };
        let intervals = derived.iter().map(|code| Sample {
            source_record_id: format!("{id}|{code}"),
            metric_code: (*code).into(),
            value_kind: ValueKind::IntervalNum,
            value: Some(minutes(seconds)),
            unit: Some("min".into()),
            category_code: None,
            ..sample.clone()
        });
        let mut samples: Vec<Sample> = intervals.collect();
        samples.insert(0, sample);
        Ok(Outcome::Samples { samples, repeated: occurrence > 0 })
    }

    fn metadata(&self) -> Option<BTreeMap<String, Value>> {
        let mut metadata = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                // Far below the API's limit of 4,096 bytes for all of it.
                let value: String = value.chars().take(128).collect();
                metadata.insert(key.to_owned(), Value::from(value));
            }
        };
        // The export has no bundle ids; the source's display name is all it says.
        put("sourceAppId", &self.source_name);
        put("sourceAppVersion", &self.source_version);
        for part in stable_device(&self.device).split(", ") {
            match part.split_once(':') {
                Some(("manufacturer", value)) => put("deviceManufacturer", value),
                Some(("model", value)) => put("deviceModel", value),
                _ => {}
            }
        }
        let category = self.hk_type.starts_with("HKCategory");
        put(if category { "hkCategoryType" } else { "hkQuantityType" }, &self.hk_type);
        if self.user_entered {
            metadata.insert("isManualEntry".into(), Value::Bool(true));
        }
        Some(metadata)
    }
}

enum Content {
    Number(f64),
    Code(&'static str),
}

/// `2018-09-10 02:28:55 -0700`
fn date(text: &str) -> Result<DateTime<FixedOffset>, Malformed> {
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S %z").map_err(|_| Malformed::Date)
}

/// Minutes east of UTC, if within what the API takes; seconds of an offset have no place there.
fn offset_minutes(at: &DateTime<FixedOffset>) -> Option<i32> {
    let minutes = at.offset().local_minus_utc() / 60;
    (-720..=840).contains(&minutes).then_some(minutes)
}

fn number(text: &str) -> Result<f64, Malformed> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(Malformed::Value),
    }
}

fn minutes(seconds: i64) -> f64 {
    micro(seconds as f64 / 60.0)
}

/// Rounded to six decimals, the precision the server keeps.
fn micro(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
