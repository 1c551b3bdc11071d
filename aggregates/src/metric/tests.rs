use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;

#[test]
fn ordinals_are_dense_and_codes_unique() {
    for (place, entry) in CATALOGUE.iter().enumerate() {
        assert_eq!(usize::from(entry.ordinal), place + 1);
        assert_eq!(Metric::parse(entry.code).map(Metric::ordinal), Some(entry.ordinal));
        assert_eq!(entry.unit.is_none(), entry.kind == ValueKind::Category);
        assert_eq!(entry.categories.is_empty(), entry.kind != ValueKind::Category);
    }
    assert_eq!(Metric::HRV_SDNN.code(), "heart_rate_variability");
    assert_eq!(Metric::HRV_RMSSD.code(), "heart_rate_variability_rmssd");
    assert_eq!(Metric::HEART_RATE.code(), "heart_rate");
    assert_eq!(Metric::SLEEP_STAGE.code(), "sleep_stage");
}

/// Batches record the version they were decided under. Whoever changes the table raises it, and
/// writes down here what the new version looks like.
#[test]
fn a_changed_catalogue_has_a_new_version() {
    let text = format!("{CATALOGUE:?}");
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    assert_eq!(
        (CATALOGUE_VERSION, digest),
        (2, 16_908_800_998_592_083_216),
        "the catalogue has changed: raise CATALOGUE_VERSION and write it here with its digest"
    );
}

#[test]
fn hrv_of_health_connect_is_rmssd() {
    let resolve = |source| Metric::of_source("heart_rate_variability", source);
    assert_eq!(resolve("google_health_connect:abc"), Some(Metric::HRV_RMSSD));
    assert_eq!(resolve("apple_healthkit"), Some(Metric::HRV_SDNN));
}

fn to(metric: &str, value: &str, unit: &str) -> Result<String, UnitError> {
    let metric = Metric::parse(metric).unwrap();
    normalise(metric, value.parse().unwrap(), unit).map(|v| v.to_decimal().to_string())
}

#[test]
fn conversions_are_exact_decimals() {
    for (metric, value, unit, expected) in [
        ("body_temperature", "98.6", "°F", "37"),
        ("body_temperature", "310.15", "K", "37"),
        ("weight", "154.323583529", "lb", "70"),
        ("weight", "11", "st", "69.853225"),
        ("active_energy_burned", "4.184", "kJ", "1"),
        ("distance_walking_running", "1", "mi", "1609.344"),
        ("sleep_deep", "100", "s", "1.666667"),
        ("height", "6", "ft", "182.88"),
        ("blood_oxygen", "0.97", "%", "97"),
        ("blood_oxygen", "1", "%", "100"),
        ("blood_oxygen", "97", "%", "97"),
        ("body_fat_percentage", "0.221", "%", "22.1"),
        ("body_fat_percentage", "1", "%", "1"),
        ("vo2_max", "41.52", "mL/min·kg", "41.52"),
        ("heart_rate", "61.0000005", "bpm", "61"),
        ("heart_rate", "61.0000015", "bpm", "61.000002"),
    ] {
        assert_eq!(to(metric, value, unit).as_deref(), Ok(expected), "{metric} {value} {unit}");
    }
    assert_eq!(to("heart_rate", "60", "Hz"), Err(UnitError::Unknown));
    assert_eq!(to("heart_rate", "19.9", "bpm"), Err(UnitError::OutOfRange));
    assert_eq!(to("weight", "79000000000000000000000000000", "st"), Err(UnitError::Conversion));
}

#[test]
fn json_numbers_keep_their_decimals() {
    for (text, micros) in [
        ("61", 61_000_000),
        ("0.1", 100_000),
        ("1e2", 100_000_000),
        ("1e-30", 0),
        ("72.123456", 72_123_456),
    ] {
        let number: serde_json::Number = serde_json::from_str(text).unwrap();
        assert_eq!(Micro::from_json(&number), Some(Micro(micros)), "{text}");
    }
    let huge: serde_json::Number = serde_json::from_str("1e20").unwrap();
    assert_eq!(Micro::from_json(&huge), None);
}

fn numeric() -> impl Strategy<Value = (Metric, &'static Unit, Decimal)> {
    let pairs: Vec<(Metric, &'static Unit)> = Metric::all()
        .flat_map(|metric| metric.definition().units.iter().map(move |unit| (metric, unit)))
        .collect();
    (prop::sample::select(pairs), 0i64..400_000_000, 0u32..7)
        .prop_map(|((metric, unit), digits, scale)| (metric, unit, Decimal::new(digits, scale)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Health invariants 17 and 18.
    #[test]
    fn health_17_18_normalised_is_in_range_and_a_fixed_point((metric, unit, value) in numeric()) {
        if let Ok(stored) = normalise(metric, value, unit.name) {
            let (least, greatest) = metric.definition().range;
            prop_assert!(stored >= least && stored <= greatest);
            let canonical = metric.definition().unit.unwrap();
            prop_assert_eq!(normalise(metric, stored.to_decimal(), canonical), Ok(stored));
            if !metric.definition().fraction {
                let back = stored.to_decimal() * unit.divisor / unit.factor - unit.shift;
                let error = (back - value).abs();
                // Half a millionth of the canonical unit, seen in the sender's unit.
                let half = Decimal::new(5, 7) * unit.divisor / unit.factor + Decimal::new(1, 18);
                prop_assert!(error <= half.max(value * Decimal::new(1, 6)));
            }
        }
    }

    #[test]
    fn whole_numbers_take_the_short_way_to_the_same_value(
        (metric, unit, _) in numeric(),
        value in prop_oneof![0i64..500, any::<i64>()],
    ) {
        if let Some(short) = normalise_whole(metric, value, unit.name) {
            prop_assert_eq!(short, normalise(metric, Decimal::from(value), unit.name));
            prop_assert_eq!(metric.definition().unit, Some(unit.name));
        }
    }

    #[test]
    fn micro_survives_json(micros in -999_999_999_999_999i64..=999_999_999_999_999) {
        let value = Micro(micros);
        prop_assert_eq!(Micro::from_json(&value.to_json()), Some(value));
        prop_assert_eq!(Micro::from_decimal(value.to_decimal()), Some(value));
    }
}
