use std::collections::BTreeSet;
use std::sync::LazyLock;

use chrono::DateTime;

use super::*;

fn month() -> Vec<Person> {
    let first_day = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
    people(Plan { seed: 1, first_day, days: 30 })
}

static MONTH: LazyLock<Vec<Person>> = LazyLock::new(month);

#[test]
fn the_same_plan_gives_the_same_payloads() {
    let again = month();
    for (a, b) in MONTH.iter().zip(&again) {
        assert_eq!((a.name, &a.samples, &a.expected), (b.name, &b.samples, &b.expected));
    }
    assert_ne!(MONTH[0].samples[0].source_record_id, MONTH[1].samples[0].source_record_id);
}

#[test]
fn a_month_is_large_enough_to_show_something_and_small_enough_to_be_quick() {
    let total: usize = MONTH.iter().map(|p| p.samples.len()).sum();
    assert!((25_000..=40_000).contains(&total), "{total}");
    for person in MONTH.iter() {
        assert!(person.sessions.len() >= 8, "{}", person.sessions.len());
    }
    let sizes: Vec<_> = MONTH[0].batches().map(|batch| batch.samples.len()).collect();
    assert!(sizes.iter().all(|size| (1..=MAX_BATCH).contains(size)));
    assert_eq!(sizes.iter().sum::<usize>(), MONTH[0].samples.len());
}

#[test]
fn keys_are_unique_and_samples_do_not_run_into_the_next_zone() {
    for person in MONTH.iter() {
        let keys: BTreeSet<_> =
            person.samples.iter().map(|s| (&s.source_record_id, &s.start_at)).collect();
        assert_eq!(keys.len(), person.samples.len());
        let mut beats: Vec<_> = person
            .samples
            .iter()
            .filter(|s| s.metric_code == "heart_rate")
            .map(|s| s.start_at.clone())
            .collect();
        let in_order = beats.clone();
        beats.sort();
        beats.dedup();
        assert_eq!(beats, in_order);
    }
}

/// Reads the wire payloads as a server would and compares with the generator's own account.
#[test]
fn the_account_of_every_day_agrees_with_the_payloads() {
    for person in MONTH.iter() {
        let mut found: BTreeMap<(String, NaiveDate), Tally> = BTreeMap::new();
        for sample in &person.samples {
            let Some(value) = sample.value else { continue };
            let utc = DateTime::parse_from_rfc3339(&sample.start_at).unwrap().naive_utc();
            let offset = TimeDelta::minutes(sample.timezone_offset_minutes.unwrap().into());
            let milli = (value * 1000.0).round() as i64;
            let tally = found
                .entry((sample.metric_code.clone(), (utc + offset).date()))
                .or_insert(Tally { count: 0, sum_milli: 0, min_milli: milli, max_milli: milli });
            tally.count += 1;
            tally.sum_milli += milli;
            tally.min_milli = tally.min_milli.min(milli);
            tally.max_milli = tally.max_milli.max(milli);
        }
        let expected: BTreeMap<_, _> =
            person.expected.iter().map(|((m, d), t)| (((*m).to_owned(), *d), *t)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn values_stay_within_the_catalogues_ranges() {
    for sample in MONTH.iter().flat_map(|p| &p.samples) {
        let range = match sample.metric_code.as_str() {
            "heart_rate" => 20.0..=400.0,
            "weight" => 1.0..=700.0,
            _ => 0.0..=1000.0,
        };
        assert!(sample.value.is_none_or(|v| range.contains(&v)), "{}", sample.metric_code);
        assert!(sample.start_at <= sample.end_at);
    }
}
