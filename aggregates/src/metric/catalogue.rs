//! The catalogue as data. Append at the end; ordinals are stored and never reused.

use rust_decimal::Decimal;

use super::DailyAggregation::{AvgMax, AvgMinMax, DurationPerCode, Last, StoodHours, Sum};
use super::Group::{Activity, Body, Environment, Mindfulness, Sleep, VitalSigns};
use super::ValueKind::{Category, Cumulative, Interval, Scalar};
use super::{DailyAggregation, Definition, Group, Micro, Unit, ValueKind};

/// Raised with every change of the catalogue; recorded in each batch's event.
pub const CATALOGUE_VERSION: u32 = 2;

/// A positive decimal from its digits and the number of those behind the point.
const fn decimal(digits: u32, scale: u32) -> Decimal {
    Decimal::from_parts(digits, 0, 0, false, scale)
}

const fn negative(digits: u32, scale: u32) -> Decimal {
    Decimal::from_parts(digits, 0, 0, true, scale)
}

/// `value × factor ÷ divisor`.
const fn ratio(name: &'static str, factor: Decimal, divisor: u32) -> Unit {
    Unit { name, shift: Decimal::ZERO, factor, divisor: decimal(divisor, 0) }
}

/// `value × factor`.
const fn times(name: &'static str, digits: u32, scale: u32) -> Unit {
    ratio(name, decimal(digits, scale), 1)
}

/// The canonical unit or another name for it.
const fn same(name: &'static str) -> Unit {
    times(name, 1, 0)
}

/// `(value + shift) × factor ÷ divisor`.
const fn shifted(name: &'static str, shift: Decimal, factor: u32, divisor: u32) -> Unit {
    Unit { name, shift, factor: decimal(factor, 0), divisor: decimal(divisor, 0) }
}

const RATE: &[Unit] = &[same("bpm"), same("count/min")];
const MILLISECONDS: &[Unit] = &[same("ms"), times("s", 1000, 0)];
const PERCENT: &[Unit] = &[same("%"), times("fraction", 100, 0)];
const BREATHS: &[Unit] = &[same("breaths/min"), same("count/min")];
const TEMPERATURE: &[Unit] = &[
    same("°C"),
    same("degC"),
    shifted("°F", negative(32, 0), 5, 9),
    shifted("degF", negative(32, 0), 5, 9),
    shifted("K", negative(27_315, 2), 1, 1),
];
const COUNT: &[Unit] = &[same("count")];
const STEPS: &[Unit] = &[same("count"), same("steps")];
const DISTANCE: &[Unit] =
    &[same("m"), times("km", 1000, 0), times("mi", 1_609_344, 3), times("ft", 3_048, 4)];
const ENERGY: &[Unit] = &[
    same("kcal"),
    same("Cal"),
    times("cal", 1, 3),
    ratio("kJ", decimal(1000, 0), 4_184),
    ratio("J", decimal(1, 0), 4_184),
];
const MINUTES: &[Unit] = &[same("min"), ratio("s", decimal(1, 0), 60), times("h", 60, 0)];
const MASS: &[Unit] =
    &[same("kg"), times("g", 1, 3), times("lb", 45_359_237, 8), times("st", 635_029_318, 8)];
const LENGTH: &[Unit] =
    &[same("cm"), times("m", 100, 0), times("in", 254, 2), times("ft", 3_048, 2)];
const BODY_MASS_INDEX: &[Unit] = &[same("kg/m²"), same("kg/m^2"), same("count")];
/// HealthKit writes the second form.
const OXYGEN_UPTAKE: &[Unit] = &[same("mL/kg/min"), same("mL/min·kg")];
const SOUND: &[Unit] = &[same("dB"), same("dBASPL")];
const SLEEP_STAGES: &[&str] = &["awake", "light", "deep", "rem", "unknown"];

#[expect(clippy::too_many_arguments, reason = "one row of a table")]
const fn metric(
    ordinal: u8,
    code: &'static str,
    group: Group,
    kind: ValueKind,
    units: &'static [Unit],
    range: (i64, i64),
    daily: DailyAggregation,
    fraction: bool,
) -> Definition {
    Definition {
        ordinal,
        code,
        group,
        kind,
        unit: match units {
            [canonical, ..] => Some(canonical.name),
            [] => None,
        },
        units,
        range: (Micro::whole(range.0), Micro::whole(range.1)),
        daily,
        categories: match kind {
            Category => SLEEP_STAGES,
            _ => &[],
        },
        fraction,
    }
}

/// Every metric, by ordinal from 1.
#[rustfmt::skip]
pub const CATALOGUE: &[Definition] = &[
    metric(1, "heart_rate", VitalSigns, Scalar, RATE, (20, 400), AvgMinMax, false),
    metric(2, "heart_rate_variability", VitalSigns, Scalar, MILLISECONDS, (0, 1000), AvgMinMax, false),
    metric(3, "resting_heart_rate", VitalSigns, Scalar, RATE, (20, 250), AvgMinMax, false),
    metric(4, "blood_oxygen", VitalSigns, Scalar, PERCENT, (50, 100), AvgMinMax, true),
    metric(5, "respiratory_rate", VitalSigns, Scalar, BREATHS, (1, 100), AvgMinMax, false),
    metric(6, "body_temperature", VitalSigns, Scalar, TEMPERATURE, (25, 45), AvgMinMax, false),
    metric(7, "steps", Activity, Cumulative, STEPS, (0, 200_000), Sum, false),
    metric(8, "distance_walking_running", Activity, Cumulative, DISTANCE, (0, 500_000), Sum, false),
    metric(9, "flights_climbed", Activity, Cumulative, COUNT, (0, 10_000), Sum, false),
    metric(10, "stand_hours", Activity, Cumulative, COUNT, (0, 1), StoodHours, false),
    metric(11, "active_energy_burned", Activity, Interval, ENERGY, (0, 20_000), Sum, false),
    metric(12, "basal_energy_burned", Activity, Interval, ENERGY, (0, 20_000), Sum, false),
    metric(13, "exercise_minutes", Activity, Interval, MINUTES, (0, 1440), Sum, false),
    metric(14, "weight", Body, Scalar, MASS, (1, 700), Last, false),
    metric(15, "height", Body, Scalar, LENGTH, (20, 300), Last, false),
    metric(16, "body_mass_index", Body, Scalar, BODY_MASS_INDEX, (5, 150), Last, false),
    metric(17, "body_fat_percentage", Body, Scalar, PERCENT, (1, 80), Last, true),
    metric(18, "lean_body_mass", Body, Scalar, MASS, (1, 400), Last, false),
    metric(19, "waist_circumference", Body, Scalar, LENGTH, (20, 300), Last, false),
    metric(20, "sleep_stage", Sleep, Category, &[], (0, 0), DurationPerCode, false),
    metric(21, "sleep_duration", Sleep, Interval, MINUTES, (0, 1440), Sum, false),
    metric(22, "sleep_awake", Sleep, Interval, MINUTES, (0, 1440), Sum, false),
    metric(23, "sleep_light", Sleep, Interval, MINUTES, (0, 1440), Sum, false),
    metric(24, "sleep_deep", Sleep, Interval, MINUTES, (0, 1440), Sum, false),
    metric(25, "sleep_rem", Sleep, Interval, MINUTES, (0, 1440), Sum, false),
    metric(26, "time_in_bed", Sleep, Interval, MINUTES, (0, 1440), Sum, false),
    metric(27, "mindful_minutes", Mindfulness, Interval, MINUTES, (0, 1440), Sum, false),
    metric(28, "audio_exposure", Environment, Scalar, SOUND, (0, 200), AvgMax, false),
    metric(29, "heart_rate_variability_rmssd", VitalSigns, Scalar, MILLISECONDS, (0, 1000), AvgMinMax, false),
    metric(30, "vo2_max", VitalSigns, Scalar, OXYGEN_UPTAKE, (5, 120), Last, false),
];
