use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;

use super::identity::{Fields, stable_device};
use super::*;
use crate::client::wire::ValueKind;

const OURS: &str = include_str!("../../../tests/fixtures/apple-health/export.xml");

fn read(xml: &str) -> (Vec<Sample>, ImportStats, Option<ImportError>) {
    let mut export = Export::new(xml.as_bytes());
    let (mut samples, mut error) = (Vec::new(), None);
    for record in &mut export {
        match record {
            Ok(record) => samples.extend(record.samples),
            Err(e) => error = Some(e),
        }
    }
    (samples, export.stats().clone(), error)
}

/// A small export around `records`.
fn export_of(records: &str) -> String {
    format!("<HealthData locale=\"en_US\">\n{records}\n</HealthData>")
}

fn quantity(hk_type: &str, unit: &str, value: &str) -> String {
    format!(
        r#"<Record type="HKQuantityTypeIdentifier{hk_type}" sourceName="Watch" unit="{unit}" startDate="2018-09-10 02:28:55 -0700" endDate="2018-09-10 02:28:55 -0700" value="{value}"/>"#
    )
}

fn sleep(stage: &str, end: &str) -> String {
    format!(
        r#"<Record type="HKCategoryTypeIdentifierSleepAnalysis" sourceName="Watch" startDate="2026-03-28 23:00:00 +0100" endDate="{end}" value="HKCategoryValueSleepAnalysis{stage}"/>"#
    )
}

#[test]
fn a_heart_rate_becomes_one_sample_with_its_own_offset() {
    let (samples, stats, error) = read(&export_of(&quantity("HeartRate", "count/min", "72")));
    assert!(error.is_none());
    assert_eq!((stats.records, stats.imported, stats.samples), (1, 1, 1));
    let sample = &samples[0];
    assert_eq!(sample.source_id, "apple_healthkit");
    assert_eq!(sample.metric_code, "heart_rate");
    assert_eq!(sample.value_kind, ValueKind::ScalarNum);
    assert_eq!((sample.value, sample.unit.as_deref()), (Some(72.0), Some("count/min")));
    assert_eq!(sample.start_at, "2018-09-10T09:28:55.000Z");
    assert_eq!(sample.timezone_offset_minutes, Some(-420));
    assert_eq!(sample.duration_seconds, Some(0));
    let json = serde_json::to_string(sample).unwrap();
    assert!(json.contains(r#""value":72,"#), "{json}");
    assert!(!json.contains("null"), "absent members are absent: {json}");
}

#[test]
fn fractions_become_percent_and_other_units_stay_as_they_are() {
    for (hk_type, unit, value, metric, expected, wire_unit) in [
        ("OxygenSaturation", "%", "0.97", "blood_oxygen", 97.0, "%"),
        ("OxygenSaturation", "%", "0.07", "blood_oxygen", 7.0, "%"),
        ("BodyFatPercentage", "%", "0.221", "body_fat_percentage", 22.1, "%"),
        ("DistanceWalkingRunning", "mi", "0.5", "distance_walking_running", 0.5, "mi"),
        ("BodyMass", "lb", "150.6", "weight", 150.6, "lb"),
        ("ActiveEnergyBurned", "kJ", "412.5", "active_energy_burned", 412.5, "kJ"),
        ("BodyTemperature", "degF", "98.4", "body_temperature", 98.4, "degF"),
        ("VO2Max", "mL/min·kg", "41.5", "vo2_max", 41.5, "mL/min·kg"),
    ] {
        let (samples, ..) = read(&export_of(&quantity(hk_type, unit, value)));
        let sample = &samples[0];
        assert_eq!(sample.metric_code, metric);
        assert_eq!((sample.value, sample.unit.as_deref()), (Some(expected), Some(wire_unit)));
    }
}

#[test]
fn a_stage_of_sleep_yields_the_stage_and_the_durations_it_adds_to() {
    let (samples, stats, _) = read(&export_of(&sleep("AsleepDeep", "2026-03-28 23:42:00 +0100")));
    assert_eq!((stats.imported, stats.samples), (1, 3));
    let base = &samples[0];
    assert_eq!(base.category_code.as_deref(), Some("deep"));
    assert_eq!((base.value, base.unit.as_deref()), (None, None));
    let derived: Vec<_> =
        samples[1..].iter().map(|s| (s.source_record_id.clone(), s.value)).collect();
    let id = &base.source_record_id;
    assert_eq!(
        derived,
        [(format!("{id}|sleep_duration"), Some(42.0)), (format!("{id}|sleep_deep"), Some(42.0))]
    );
    let (samples, ..) = read(&export_of(&sleep("AsleepREM", "2026-03-28 23:00:00 +0100")));
    assert_eq!(samples.len(), 1, "a stage without length adds to no duration");
    let (samples, ..) = read(&export_of(&sleep("Asleep", "2026-03-28 23:30:00 +0100")));
    assert_eq!(samples[0].category_code.as_deref(), Some("unknown"));
}

#[test]
fn reading_twice_gives_the_same_ids_and_no_id_twice() {
    let (first, ..) = read(OURS);
    let (second, ..) = read(OURS);
    assert_eq!(first, second);
    let ids: BTreeSet<_> = first.iter().map(|s| &s.source_record_id).collect();
    assert_eq!(ids.len(), first.len());
    assert!(ids.iter().all(|id| **id == id.to_lowercase()));
}

#[test]
fn a_later_export_in_another_zone_gives_the_same_ids() {
    let before = r#"<Record type="HKQuantityTypeIdentifierStepCount" sourceName="P" device="&lt;&lt;HKDevice: 0x282a45810&gt;, name:iPhone, model:iPhone&gt;" unit="count" startDate="2018-09-10 02:28:55 -0700" endDate="2018-09-10 02:30:55 -0700" value="72"/>"#;
    let after = before
        .replace("02:28:55 -0700", "11:28:55 +0200")
        .replace("02:30:55 -0700", "11:30:55 +0200")
        .replace("0x282a45810", "0x1177aaff0");
    let id = |xml: &str| read(&export_of(xml)).0[0].source_record_id.clone();
    assert_eq!(id(before), id(&after));
    assert_ne!(id(before), id(&before.replace("\"72\"", "\"73\"")));
}

#[test]
fn equal_records_stay_two_samples_and_are_reported() {
    let twice = quantity("StepCount", "count", "10").repeat(2);
    let (samples, stats, _) = read(&export_of(&twice));
    assert_eq!((samples.len(), stats.repeated), (2, 1));
    assert_ne!(samples[0].source_record_id, samples[1].source_record_id);
}

#[test]
fn what_cannot_be_read_is_counted_with_its_line() {
    let good = quantity("HeartRate", "count/min", "60");
    let xml = export_of(&format!(
        "{}\n{}\n{}\n{}\n{}\n{good}",
        good.replace("2018-09-10 02:28:55 -0700\" end", "yesterday\" end"),
        quantity("HeartRate", "count/min", "NaN"),
        quantity("HeartRate", "count/min", "-3"),
        good.replace("Watch", "&unknown;"),
        good.replace("endDate=\"2018", "endDate=\"2017"),
    ));
    let (samples, stats, error) = read(&xml);
    assert!(error.is_none());
    assert_eq!(samples.len(), 1);
    let found: Vec<_> = stats.problems.iter().map(|p| (p.line, p.reason)).collect();
    assert_eq!(
        found,
        [
            (2, Malformed::Date),
            (3, Malformed::Value),
            (4, Malformed::Value),
            (5, Malformed::Attributes),
            (6, Malformed::Order)
        ]
    );
    assert_eq!(stats.malformed.values().sum::<u64>(), 5);
    assert_eq!(stats.records, 6);
}

#[test]
fn manual_entry_and_device_reach_the_metadata() {
    let (samples, ..) = read(OURS);
    let manual = |s: &&Sample| s.metadata.as_ref().unwrap().contains_key("isManualEntry");
    let by_hand: Vec<_> = samples.iter().filter(manual).map(|s| s.metric_code.as_str()).collect();
    assert_eq!(by_hand, ["height", "weight", "body_temperature"]);
    let rate = samples.iter().find(|s| s.metric_code == "heart_rate").unwrap();
    let metadata = rate.metadata.as_ref().unwrap();
    assert_eq!(metadata["sourceAppId"], "Zoë’s Apple Watch");
    assert_eq!(metadata["deviceManufacturer"], "Apple Inc.");
    assert_eq!(metadata["deviceModel"], "Watch");
}

#[test]
fn our_export_reads_completely() {
    let (samples, stats, error) = read(OURS);
    assert!(error.is_none());
    assert!(stats.malformed.is_empty(), "{stats:?}");
    assert_eq!(
        stats.unknown.into_iter().collect::<Vec<_>>(),
        [("HKQuantityTypeIdentifierDietaryWater".to_owned(), 1)]
    );
    assert_eq!(
        stats.skipped.into_iter().collect::<Vec<_>>(),
        [("ActivitySummary".to_owned(), 1), ("Workout".to_owned(), 1)]
    );
    assert_eq!(stats.records, stats.imported + 1);
    assert_eq!(stats.samples, samples.len() as u64);
    let offsets: BTreeSet<_> = samples.iter().map(|s| s.timezone_offset_minutes).collect();
    assert_eq!(offsets, BTreeSet::from([Some(60), Some(120)]), "summer time begins in it");
}

#[test]
fn records_inside_correlations_are_not_counted_twice() {
    let record = quantity("HeartRate", "count/min", "60");
    let xml = export_of(&format!("<Correlation type=\"x\">{record}</Correlation>{record}"));
    let (samples, stats, _) = read(&xml);
    assert_eq!((samples.len(), stats.repeated), (1, 0));
    assert_eq!(stats.skipped["Correlation"], 1);
}

#[test]
fn entities_of_the_document_type_are_never_expanded() {
    let bomb = format!(
        r#"<!DOCTYPE HealthData [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]>{}"#,
        export_of(&format!(
            "{}{}",
            quantity("HeartRate", "count/min", "60").replace("Watch", "&b;"),
            quantity("HeartRate", "count/min", "60").replace("Watch", "&x;")
        ))
    );
    let (samples, stats, error) = read(&bomb);
    assert!(samples.is_empty() && error.is_none());
    assert_eq!(stats.malformed[&Malformed::Attributes], 2);
}

#[test]
fn what_is_no_export_is_refused() {
    for xml in ["", "plain text", "<gpx></gpx>", "<HealthDataX/>"] {
        assert!(matches!(read(xml).2, Some(ImportError::NotAnExport)), "{xml}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.zip");
    std::fs::write(&path, b"PK\x03\x04rest").unwrap();
    assert!(matches!(open(&path), Err(ImportError::Zip)));
    assert!(matches!(open(&folder.path().join("none")), Err(ImportError::Io(_))));
}

#[test]
fn a_cut_export_keeps_what_came_before_and_says_so() {
    let half: String = OURS.chars().take(OURS.chars().count() / 2).collect();
    let (samples, _, error) = read(&half);
    assert!(!samples.is_empty());
    assert!(matches!(error, Some(ImportError::Truncated { line }) if line > 100), "{error:?}");
}

#[test]
fn limits_hold() {
    let deep = export_of(&"<a>".repeat(100));
    assert!(matches!(read(&deep).2, Some(ImportError::TooLarge { line: 2 })));
    let long = export_of(&quantity("HeartRate", "u", &"9".repeat(300_000)));
    assert!(matches!(read(&long).2, Some(ImportError::TooLarge { .. })));
    let many = quantity("HeartRate", "u", "1").replace("unit", &"a=\"\" ".repeat(70));
    assert_eq!(read(&export_of(&many)).1.malformed[&Malformed::Attributes], 1);
}

#[test]
fn the_memory_of_equal_records_is_bounded() {
    let fields = |start_ms| Fields {
        hk_type: "t",
        source: "s",
        device: "",
        start_ms,
        end_ms: start_ms,
        value: "1",
    };
    let mut identities = Identities::default();
    let (first, _) = identities.id(&fields(0));
    assert_eq!((1..40_000).map(|n| identities.id(&fields(n)).1).sum::<u32>(), 0);
    let (second, occurrence) = identities.id(&fields(0));
    assert_eq!(occurrence, 1, "near enough to be told from the first");
    assert_ne!(first, second);
    assert_eq!((40_000..160_000).map(|n| identities.id(&fields(n)).1).sum::<u32>(), 0);
    assert!(identities.remembered() <= 100_000);
    assert_eq!(identities.id(&fields(0)), (first, 0), "too far away: counts as the first again");
}

#[test]
fn devices_lose_only_their_address() {
    assert_eq!(stable_device("<<HKDevice: 0x28a>, name:W, model:M>"), "name:W, model:M");
    assert_eq!(stable_device("<<HKDevice: 0xé>"), "<<HKDevice: 0xé>");
    assert_eq!(stable_device("Scale"), "Scale");
}

/// A real-shaped export from elsewhere, where one is at hand.
#[test]
fn a_foreign_sample_reads() {
    let Some(folder) = std::env::var_os("TIDEMARK_SAMPLE_DATA") else {
        eprintln!("SKIPPED: set TIDEMARK_SAMPLE_DATA to the folder of sample exports");
        return;
    };
    let path = PathBuf::from(folder).join("apple-health-export-dogsheep/tests/export.xml");
    if !path.exists() {
        eprintln!("SKIPPED: the folder of sample exports holds no apple-health-export-dogsheep");
        return;
    }
    let mut export = open(&path).unwrap();
    let samples: Vec<_> =
        export.by_ref().map(Result::unwrap).flat_map(|record| record.samples).collect();
    let metrics: Vec<_> = samples.iter().map(|s| (s.metric_code.as_str(), s.value)).collect();
    assert_eq!(
        metrics,
        [("body_mass_index", Some(22.5312)), ("heart_rate", Some(72.0))],
        "the export holds two records"
    );
    assert_eq!(samples[0].timezone_offset_minutes, Some(-420));
    assert_eq!(export.stats().skipped["Workout"], 1);
    assert_eq!(export.stats().skipped["ActivitySummary"], 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever bytes arrive, reading ends, without a panic, with every record accounted for.
    #[test]
    fn mutated_bytes_never_panic(
        edits in prop::collection::vec((0.0..1.0f64, any::<u8>(), 0..3u8), 1..20),
        start in 0..300usize,
    ) {
        let start = start * 400;
        let head = OURS.len() - OURS[OURS.find("<HealthData").unwrap()..].len();
        let body = OURS.as_bytes();
        let mut bytes = body[..head + 600].to_vec();
        bytes.extend(body.iter().skip(start.max(head)).take(12_000));
        for (place, byte, how) in edits {
            let at = (place * bytes.len() as f64) as usize;
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let mut export = Export::new(bytes.as_slice());
        let yielded = export.by_ref().filter(Result::is_ok).count() as u64;
        let stats = export.stats();
        prop_assert_eq!(yielded, stats.imported);
        let left_out = stats.malformed.values().sum::<u64>() + stats.unknown.values().sum::<u64>();
        // A record cut off by the error that ended the reading is neither.
        prop_assert!(stats.records - stats.imported - left_out <= 1);
        prop_assert!(export.next().is_none());
    }
}
