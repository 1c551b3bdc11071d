//! The catalogue of health metrics: what may be measured, in which unit, and within what range.
//!
//! A metric is stored as its ordinal, which is never reused; its code is the wire's name. Ranges
//! are deliberately wide: they catch wrong units, not unusual bodies.

mod catalogue;
mod micro;
mod normalise;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use catalogue::{CATALOGUE, CATALOGUE_VERSION};
pub use micro::Micro;
pub(crate) use micro::decimal;
pub(crate) use normalise::normalise_whole;
pub use normalise::{UnitError, normalise};

/// One metric of the catalogue; ordered by ordinal. Serialised as its code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Metric(u8);

/// How a metric's samples are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueKind {
    /// A reading at a moment: heart rate.
    Scalar,
    /// An increment of something counted: steps.
    Cumulative,
    /// An amount over an interval: energy, minutes of sleep.
    Interval,
    /// A state over an interval: sleep stage.
    Category,
}

impl ValueKind {
    /// The wire's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "SCALAR_NUM",
            Self::Cumulative => "CUMULATIVE_NUM",
            Self::Interval => "INTERVAL_NUM",
            Self::Category => "CATEGORY",
        }
    }
}

/// Groups of metrics that are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    VitalSigns,
    Activity,
    Body,
    Sleep,
    Mindfulness,
    Environment,
}

/// What one day of a metric amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DailyAggregation {
    AvgMinMax,
    AvgMax,
    Sum,
    Last,
    /// Seconds per category code.
    DurationPerCode,
    /// Hours stood. HealthKit's raw category value is 0 for stood and 1 for idle; until this is
    /// confirmed against production data, readers sum the values.
    StoodHours,
}

/// A unit the wire may use and the way from it to the canonical one:
/// `(value + shift) × factor ÷ divisor`, in exact decimals.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub name: &'static str,
    pub shift: rust_decimal::Decimal,
    pub factor: rust_decimal::Decimal,
    pub divisor: rust_decimal::Decimal,
}

/// One entry of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Stored number of the metric. Never reused.
    pub ordinal: u8,
    /// The wire's name.
    pub code: &'static str,
    pub group: Group,
    pub kind: ValueKind,
    /// The unit of stored values; `None` for categories.
    pub unit: Option<&'static str>,
    /// Units accepted on the wire, the canonical one first.
    pub units: &'static [Unit],
    /// Plausible range after conversion, both ends included.
    pub range: (Micro, Micro),
    pub daily: DailyAggregation,
    /// Category codes by their stored number. Only ever appended to.
    pub categories: &'static [&'static str],
    /// Producers send this percentage as a fraction at times: a value in (0, 1] with unit `%`
    /// whose hundredfold is plausible is a fraction.
    pub fraction: bool,
}

impl Metric {
    /// HRV as HealthKit measures it (SDNN).
    pub const HRV_SDNN: Metric = Metric(2);
    /// HRV as Health Connect measures it (RMSSD). The two are never pooled.
    pub const HRV_RMSSD: Metric = Metric(29);
    pub const HEART_RATE: Metric = Metric(1);
    pub const SLEEP_STAGE: Metric = Metric(20);

    /// All metrics, by ordinal.
    pub fn all() -> impl Iterator<Item = Metric> {
        CATALOGUE.iter().map(|entry| Metric(entry.ordinal))
    }

    /// The metric with this stored number.
    pub fn from_ordinal(ordinal: u8) -> Option<Self> {
        CATALOGUE.iter().any(|entry| entry.ordinal == ordinal).then_some(Self(ordinal))
    }

    /// The metric with this wire code.
    pub fn parse(code: &str) -> Option<Self> {
        CATALOGUE.iter().find(|entry| entry.code == code).map(|entry| Self(entry.ordinal))
    }

    /// The metric a source means by a wire code: Health Connect's `heart_rate_variability` is
    /// RMSSD, everybody else's is SDNN.
    pub fn of_source(code: &str, source_id: &str) -> Option<Self> {
        let metric = Self::parse(code)?;
        let base = source_id.split(':').next().unwrap_or_default();
        let health_connect = base == "google_health_connect" || base == "health_connect";
        Some(if metric == Self::HRV_SDNN && health_connect { Self::HRV_RMSSD } else { metric })
    }

    /// The stored number.
    pub fn ordinal(self) -> u8 {
        self.0
    }

    /// The catalogue's entry.
    pub fn definition(self) -> &'static Definition {
        // Ordinals are dense from 1 (a test holds the catalogue to it), and the field is private.
        CATALOGUE.get(usize::from(self.0) - 1).unwrap_or(&CATALOGUE[0])
    }

    /// The wire's name.
    pub fn code(self) -> &'static str {
        self.definition().code
    }

    pub fn kind(self) -> ValueKind {
        self.definition().kind
    }

    pub fn group(self) -> Group {
        self.definition().group
    }

    /// Whether the metric needs a known local time: nights are meaningless without one.
    pub fn is_sleep(self) -> bool {
        self.group() == Group::Sleep
    }

    /// The stored number of a category code.
    pub fn category_number(self, code: &str) -> Option<u8> {
        let place = self.definition().categories.iter().position(|known| *known == code)?;
        u8::try_from(place).ok()
    }

    /// The category code with this stored number.
    pub fn category_code(self, number: u8) -> Option<&'static str> {
        self.definition().categories.get(usize::from(number)).copied()
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.code().to_owned()
    }
}

impl TryFrom<String> for Metric {
    type Error = &'static str;

    fn try_from(code: String) -> Result<Self, Self::Error> {
        Self::parse(&code).ok_or("unknown metric code")
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Metric {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": 64 })
    }
}

#[cfg(test)]
mod tests;
