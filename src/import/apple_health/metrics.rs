//! Which HealthKit types become which metrics of the catalogue.

use aggregates::metric::{self, Metric};

use crate::client::wire::ValueKind;

/// How one HealthKit type reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// A number in the record's own unit; the server converts it.
    Quantity { metric: &'static str },
    /// A `%` quantity, which HealthKit keeps as a fraction of one.
    Fraction { metric: &'static str },
    /// One for an hour with standing, zero for an idle one.
    StandHour,
    /// A category whose duration is what counts, in minutes.
    Minutes { metric: &'static str },
    /// A stage of sleep.
    Sleep,
}

/// The reading of a HealthKit type, if the catalogue has a metric for it.
pub(super) fn reading(hk_type: &str) -> Option<Reading> {
    let short = hk_type
        .strip_prefix("HKQuantityTypeIdentifier")
        .or_else(|| hk_type.strip_prefix("HKCategoryTypeIdentifier"))?;
    let metric = match short {
        "HeartRate" => "heart_rate",
        "HeartRateVariabilitySDNN" => "heart_rate_variability",
        "RestingHeartRate" => "resting_heart_rate",
        "RespiratoryRate" => "respiratory_rate",
        "BodyTemperature" => "body_temperature",
        "StepCount" => "steps",
        "DistanceWalkingRunning" => "distance_walking_running",
        "FlightsClimbed" => "flights_climbed",
        "ActiveEnergyBurned" => "active_energy_burned",
        "BasalEnergyBurned" => "basal_energy_burned",
        "AppleExerciseTime" => "exercise_minutes",
        "BodyMass" => "weight",
        "Height" => "height",
        "BodyMassIndex" => "body_mass_index",
        "LeanBodyMass" => "lean_body_mass",
        "WaistCircumference" => "waist_circumference",
        "EnvironmentalAudioExposure" => "audio_exposure",
        "VO2Max" => "vo2_max",
        "OxygenSaturation" => return Some(Reading::Fraction { metric: "blood_oxygen" }),
        "BodyFatPercentage" => return Some(Reading::Fraction { metric: "body_fat_percentage" }),
        "AppleStandHour" => return Some(Reading::StandHour),
        "MindfulSession" => return Some(Reading::Minutes { metric: "mindful_minutes" }),
        "SleepAnalysis" => return Some(Reading::Sleep),
        _ => return None,
    };
    Some(Reading::Quantity { metric })
}

/// How the samples of a metric combine, if the catalogue has it.
pub(super) fn kind_of(metric: &str) -> Option<ValueKind> {
    Some(match Metric::parse(metric)?.kind() {
        metric::ValueKind::Scalar => ValueKind::ScalarNum,
        metric::ValueKind::Cumulative => ValueKind::CumulativeNum,
        metric::ValueKind::Interval => ValueKind::IntervalNum,
        metric::ValueKind::Category => ValueKind::Category,
    })
}

/// The stage of a sleep record and the duration metrics that its length adds to.
pub(super) fn sleep_stage(value: &str) -> Option<(&'static str, &'static [&'static str])> {
    Some(match value.strip_prefix("HKCategoryValueSleepAnalysis")? {
        "InBed" => ("unknown", &["time_in_bed"]),
        // Exports from before stages existed say `Asleep`.
        "AsleepUnspecified" | "Asleep" => ("unknown", &["sleep_duration"]),
        "Awake" => ("awake", &["sleep_awake"]),
        "AsleepCore" => ("light", &["sleep_duration", "sleep_light"]),
        "AsleepDeep" => ("deep", &["sleep_duration", "sleep_deep"]),
        "AsleepREM" => ("rem", &["sleep_duration", "sleep_rem"]),
        _ => return None,
    })
}
