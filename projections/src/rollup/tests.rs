use std::collections::BTreeMap;

use aggregates::entity::Edit;
use aggregates::health_batch::{Applied, Correction, Facts, HealthBatchEvent};
use aggregates::metric::{Metric, Micro};
use aggregates::segment::{Key, OffsetSource, Revision, Sample};
use aggregates::subject::{KeyDestroyed, SubjectEvent};
use aggregates::user::{HealthPrivacy, UserEvent, UserHealthPrivacyChanged};
use aggregates::{AnyEvent, Content, Metadata, Purpose, Recorded, StreamId, UserId};
use chrono::NaiveDate;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const USER: UserId = UserId(Uuid::from_u128(7));
const DAY_MS: i64 = 86_400_000;
const METRICS: [&str; 4] = ["heart_rate", "steps", "active_energy_burned", "sleep_stage"];
/// Twelve hours to either side move a sample between days; the rest leave it.
const OFFSETS: [Option<i16>; 4] = [None, Some(0), Some(-720), Some(840)];

/// One wish of an upload, on one of a few identities.
#[derive(Clone, Copy, Debug)]
enum Item {
    Put { slot: usize, value: i64, offset: usize },
    Delete { slot: usize },
}

/// What a person's history consists of.
#[derive(Clone, Debug)]
enum Act {
    Upload(Vec<Item>),
    /// Allows aggregation or not.
    Allow(bool),
    /// Destroys the health key or the identity key.
    Erase(Purpose),
}

/// The state an upload is decided against, and the log it leaves.
#[derive(Default)]
struct World {
    samples: BTreeMap<Key, Sample>,
    log: Vec<Recorded>,
    health_seq: i64,
    anonymous: bool,
}

/// The identity of a slot: its metric and start are fixed, as in the real world.
fn key_of(slot: usize) -> Key {
    Key {
        start_ms: 20_000 * DAY_MS + (slot as i64 / 4) * (DAY_MS / 3),
        source_id: "watch".into(),
        record_id: format!("r{slot}").into(),
    }
}

fn sample_of(slot: usize, value: i64, offset: usize) -> Sample {
    let metric = Metric::parse(METRICS[slot % 4]).unwrap();
    let category = metric == Metric::SLEEP_STAGE;
    Sample {
        key: key_of(slot),
        metric,
        end_ms: key_of(slot).start_ms + 60_000,
        value: (!category).then_some(Micro(value)),
        category: category.then_some(0),
        duration_s: None,
        offset_min: OFFSETS[offset],
        offset_source: OffsetSource::Sample,
        device_id: None,
        external_uuid: None,
        metadata: None,
        revision: Revision::default(),
        batch_seq: 0,
        created_ms: 0,
        deleted_ms: None,
    }
}

fn recorded(position: i64, stream: StreamId, event: impl Into<AnyEvent>) -> Recorded {
    let event = event.into();
    Recorded {
        position,
        committed_ms: position,
        event_id: Uuid::from_u128(position.unsigned_abs().into()),
        stream,
        sequence: position,
        user: USER,
        event_type: event.descriptor().name.to_owned(),
        recorded_at_ms: position,
        content: Content::Open {
            event: Box::new(event),
            metadata: Metadata::system("test", Uuid::nil()),
        },
    }
}

impl World {
    fn of(acts: &[Act]) -> Self {
        let mut world = Self::default();
        for act in acts {
            world.act(act);
        }
        world
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Upload(items) => self.upload(items),
            &Act::Allow(allow_aggregation) => {
                let health = HealthPrivacy { allow_aggregation, ..HealthPrivacy::default() };
                let edit = Edit { at_ms: 0, edited_at_ms: 0, origin: None };
                let rules = UserHealthPrivacyChanged { health, edit };
                // Without the key nothing can be sealed any more.
                if !self.anonymous {
                    self.append("user", UserEvent::HealthPrivacyChanged(rules));
                }
            }
            Act::Erase(purpose) => {
                if *purpose == Purpose::Health {
                    self.samples.clear();
                }
                self.anonymous |= *purpose == Purpose::Identity;
                let destroyed = KeyDestroyed {
                    key_id: Uuid::nil(),
                    purpose: *purpose,
                    reason: "user_request".to_owned(),
                };
                self.append("subject", SubjectEvent::KeyDestroyed(destroyed));
            }
        }
    }

    /// Samples first, the first of each key, then deletions: a key in both ends deleted and is in
    /// both lists.
    fn upload(&mut self, items: &[Item]) {
        let stored = self.samples.clone();
        let (mut recorded, mut corrected) = (BTreeMap::new(), BTreeMap::new());
        for item in items {
            let Item::Put { slot, value, offset } = *item else { continue };
            let (key, after) = (key_of(slot), sample_of(slot, value, offset));
            if recorded.contains_key(&key) || corrected.contains_key(&key) {
                continue;
            }
            match stored.get(&key) {
                None => {
                    recorded.insert(key.clone(), after.clone());
                }
                Some(before) if before.is_active() && *before != after => {
                    let before = before.clone();
                    corrected.insert(key.clone(), Correction { before, after: after.clone() });
                }
                // The same again, or a tombstone, which is final.
                Some(_) => continue,
            }
            self.samples.insert(key, after);
        }
        let mut deleted = BTreeMap::new();
        for item in items {
            let Item::Delete { slot } = *item else { continue };
            if let Some(sample) = self.samples.get_mut(&key_of(slot)).filter(|one| one.is_active())
            {
                sample.deleted_ms = Some(1);
                deleted.insert(sample.key.clone(), sample.clone());
            }
        }
        let mut applied = Applied {
            recorded: recorded.into_values().collect(),
            corrected: corrected.into_values().collect(),
            deleted: deleted.into_values().collect(),
            ..Applied::default()
        };
        let changed = !(applied.recorded.is_empty()
            && applied.corrected.is_empty()
            && applied.deleted.is_empty());
        self.health_seq += i64::from(changed);
        applied.facts = Facts { changed, health_seq: self.health_seq, ..Facts::default() };
        self.append("health_batch", HealthBatchEvent::Applied(Box::new(applied)));
    }

    fn append(&mut self, aggregate: &str, event: impl Into<AnyEvent>) {
        let position = self.log.len() as i64 + 1;
        self.log.push(recorded(position, StreamId::new(aggregate, position), event));
    }

    /// The log as it reads after an erasure: what the destroyed key sealed is gone.
    fn shredded(&self) -> Vec<Recorded> {
        let mut log = self.log.clone();
        for (aggregate, purpose) in [("health_batch", Purpose::Health), ("user", Purpose::Identity)]
        {
            let destroys = |event: &Recorded| match event.event() {
                Some(AnyEvent::Subject(SubjectEvent::KeyDestroyed(key))) => key.purpose == purpose,
                _ => false,
            };
            let destroyed = self.log.iter().rposition(destroys).unwrap_or(0);
            for event in &mut log[..destroyed] {
                if event.stream.aggregate_type == aggregate {
                    event.content = Content::Shredded;
                }
            }
        }
        log
    }
}

fn fold(log: &[Recorded]) -> Fold {
    let mut fold = Fold::default();
    log.iter().for_each(|event| fold.apply(event));
    fold
}

/// The live way: pages of the log, each against the state as it was right after the page. Where
/// the rules change, the rows are folded from the log; where they hide, none are written.
fn live(acts: &[Act], page: usize) -> (BTreeMap<DayKey, DayRow>, i64) {
    let mut rows = BTreeMap::new();
    let mut hidden = false;
    let mut health_seq = 0;
    let mut world = World::default();
    for acts in acts.chunks(page) {
        let from = world.log.len();
        acts.iter().for_each(|act| world.act(act));
        let scope = scope(&world.log[from..]);
        health_seq = health_seq.max(scope.health_seq);
        if world.log[from..].iter().any(|event| hidden_after(event).is_some()) {
            let whole = fold(&world.log);
            hidden = whole.hidden();
            rows = whole.rows().into_iter().map(|row| (row.key, row)).collect();
            continue;
        }
        if scope.wiped {
            rows.clear();
        }
        if hidden {
            continue;
        }
        for row in refresh(&scope.days, world.samples.values()) {
            rows.insert(row.key, row);
        }
    }
    (rows, health_seq)
}

fn items(slots: usize) -> impl Strategy<Value = Vec<Item>> {
    let put = (0..slots, 0i64..4_000_000, 0..OFFSETS.len())
        .prop_map(|(slot, value, offset)| Item::Put { slot, value, offset });
    let delete = (0..slots).prop_map(|slot| Item::Delete { slot });
    prop::collection::vec(prop_oneof![4 => put, 1 => delete], 0..6)
}

fn histories() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => items(16).prop_map(Act::Upload),
        2 => any::<bool>().prop_map(Act::Allow),
        1 => prop::sample::select(vec![Purpose::Health, Purpose::Identity]).prop_map(Act::Erase),
    ];
    prop::collection::vec(act, 0..12)
}

fn uploads_and_erasures() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => items(16).prop_map(Act::Upload), 1 => Just(Act::Erase(Purpose::Health))
    ];
    prop::collection::vec(act, 0..12)
}

fn uploads() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(items(16).prop_map(Act::Upload), 0..12)
}

fn active(world: &World) -> impl Iterator<Item = &Sample> {
    world.samples.values().filter(|sample| sample.is_active())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn projections_01_incremental_equals_rebuild(acts in histories(), page in 1usize..7) {
        let (rows, health_seq) = live(&acts, page);
        let world = World::of(&acts);
        let whole = fold(&world.log);
        prop_assert_eq!(rows.into_values().collect::<Vec<_>>(), whole.rows());
        prop_assert_eq!(health_seq, whole.health_seq());
        // Nor does it matter that an erased past no longer opens.
        prop_assert_eq!(fold(&world.shredded()).rows(), whole.rows());
    }

    #[test]
    fn projections_03_redelivered_pages_change_nothing(
        acts in uploads_and_erasures(), again in 0usize..12,
    ) {
        let world = World::of(&acts);
        let whole = fold(&world.log).rows();
        let mut rows: BTreeMap<DayKey, DayRow> =
            whole.iter().map(|row| (row.key, row.clone())).collect();
        // A page comes again after everything is done, in the state of now.
        let tail = world.log.len().saturating_sub(again);
        for row in refresh(&scope(&world.log[tail..]).days, world.samples.values()) {
            rows.insert(row.key, row);
        }
        prop_assert_eq!(rows.into_values().collect::<Vec<_>>(), whole);
    }

    /// Who does not allow aggregation has no rows, and gets all of them back.
    #[test]
    fn rules_hide_everything_and_nothing_for_good(acts in uploads(), more in uploads()) {
        let mut world = World::of(&acts);
        world.act(&Act::Allow(false));
        more.iter().for_each(|act| world.act(act));
        prop_assert_eq!(fold(&world.log).rows(), vec![]);
        world.act(&Act::Allow(true));
        let whole = World::of(&[acts, more].concat());
        prop_assert_eq!(fold(&world.log).rows(), fold(&whole.log).rows());
        world.act(&Act::Erase(Purpose::Identity));
        prop_assert_eq!(fold(&world.log).rows(), vec![]);
    }

    #[test]
    fn projections_05_deleted_samples_count_nowhere(acts in uploads()) {
        let mut world = World::of(&acts);
        let total = |fold: &Fold| fold.rows().iter().map(|row| row.count).sum::<i64>();
        let numeric = active(&world).filter(|sample| sample.value.is_some()).count() as i64;
        prop_assert_eq!(total(&fold(&world.log)), numeric);
        let days = fold(&world.log).rows().len();
        world.act(&Act::Upload((0..16).map(|slot| Item::Delete { slot }).collect()));
        let emptied = fold(&world.log).rows();
        prop_assert_eq!(emptied.len(), days, "rows of emptied days stay");
        for row in emptied {
            prop_assert_eq!(row.status(), crate::freshness::Stored::NoData);
            prop_assert_eq!(&row, &compute(row.key, []));
        }
    }

    #[test]
    fn projections_06_the_last_writer_counts(acts in uploads()) {
        let world = World::of(&acts);
        // Only the final values, in one upload.
        let recorded = active(&world).cloned().collect();
        let applied = Applied { recorded, ..Applied::default() };
        let mut once = World::default();
        once.append("health_batch", HealthBatchEvent::Applied(Box::new(applied)));
        let filled = |log: &[Recorded]| -> Vec<DayRow> {
            fold(log).rows().into_iter().filter(|row| row.count > 0).collect()
        };
        prop_assert_eq!(filled(&world.log), filled(&once.log));
    }

    #[test]
    fn projections_07_each_sample_is_on_exactly_one_day(acts in uploads()) {
        let world = World::of(&acts);
        let mut expected: BTreeMap<DayKey, (i64, i128)> = BTreeMap::new();
        for sample in active(&world) {
            if let (Some(key), Some(value)) = (DayKey::of(sample), sample.value) {
                let entry = expected.entry(key).or_default();
                *entry = (entry.0 + 1, entry.1 + i128::from(value.0));
            }
        }
        let rows = fold(&world.log).rows();
        for row in rows.iter().filter(|row| row.count > 0) {
            prop_assert_eq!(expected.remove(&row.key), Some((row.count, row.sum_micro.unwrap())));
        }
        prop_assert!(expected.is_empty());
    }

    #[test]
    fn projections_08_statistics_are_ordered(acts in histories()) {
        for row in fold(&World::of(&acts).log).rows() {
            let statistics = [row.sum_micro.is_some(), row.offset_min.is_some()];
            if row.count == 0 {
                prop_assert!(!statistics.contains(&true) && row.average().is_none());
                prop_assert!(row.min.is_none() && row.max.is_none() && row.sum_sq_micro.is_none());
                continue;
            }
            prop_assert!(row.sum_micro.is_some());
            let units = |value: Micro| value.0 as f64 / 1e6;
            if let (Some(min), Some(max), Some(average)) = (row.min, row.max, row.average()) {
                prop_assert!(units(min) <= average + 1e-9 && average <= units(max) + 1e-9);
            }
            if let (Some(sum_sq), Some(sum)) = (row.sum_sq_micro, row.sum_micro) {
                // Rounding takes at most half a unit of the last place from the sum of squares.
                prop_assert!((2 * sum_sq + 1) * 1_000_000 * i128::from(row.count) >= 2 * sum * sum);
            }
        }
    }

    /// The watermark of the same events never depends on how they were cut, and never falls.
    #[test]
    fn projections_22_watermark_is_monotone(acts in histories()) {
        let world = World::of(&acts);
        let mut fold = Fold::default();
        let mut last = 0;
        for event in &world.log {
            fold.apply(event);
            prop_assert!(fold.health_seq() >= last);
            last = fold.health_seq();
        }
        prop_assert_eq!(last, world.health_seq);
    }
}

#[test]
fn a_mean_is_rounded_half_to_even_at_six_places() {
    for (micros, mean) in [
        (&[1, 2][..], 0.000_002),
        (&[2, 3], 0.000_002),
        (&[-1, -2], -0.000_002),
        (&[1, 1, 2], 0.000_001),
        (&[70_000_000, 70_000_000, 71_000_000], 70.333_333),
        (&[60_000_000], 60.0),
    ] {
        let row = DayRow {
            key: DayKey { metric: Metric::HEART_RATE, day: NaiveDate::MIN },
            count: micros.len() as i64,
            sum_micro: Some(micros.iter().sum()),
            min: None,
            max: None,
            sum_sq_micro: None,
            offset_min: None,
        };
        assert_eq!(row.average(), Some(mean), "{micros:?}");
    }
}

#[test]
fn a_counter_adds_up_and_has_no_extremes() {
    let key = DayKey::of(&sample_of(1, 0, 1)).unwrap();
    assert_eq!(key.metric.code(), "steps");
    let row = compute(key, [3_000_000, 4_500_000].map(|value| reading(value, 0, None)));
    assert_eq!((row.count, row.sum_micro), (2, Some(7_500_000)));
    assert_eq!((row.min, row.max, row.average()), (None, None, None));
}

#[test]
fn sums_of_squares_round_half_up_once() {
    let key = DayKey::of(&sample_of(0, 0, 1)).unwrap();
    // 0.0005² = 0.00000025 and twice that is half of the last place.
    let row = compute(key, [500, 500].map(|value| reading(value, 0, None)));
    assert_eq!(row.sum_sq_micro, Some(1));
}

#[test]
fn the_offset_is_the_most_frequent_then_the_latest() {
    let key = DayKey::of(&sample_of(0, 0, 1)).unwrap();
    let mode = |readings: &[(i64, Option<i16>)]| {
        compute(key, readings.iter().map(|(at, offset)| reading(1, *at, *offset))).offset_min
    };
    assert_eq!(mode(&[(1, None)]), None);
    assert_eq!(mode(&[(1, Some(60)), (2, Some(60)), (3, Some(120))]), Some(60));
    assert_eq!(mode(&[(1, Some(60)), (2, Some(120)), (3, None)]), Some(120));
    assert_eq!(mode(&[(1, Some(60)), (1, Some(120))]), Some(120));
}

#[test]
fn a_range_holds_every_offset_of_its_days() {
    let day = NaiveDate::from_ymd_opt(2026, 3, 29).unwrap();
    let (from, to) = range_ms(day, day);
    for offset in [-720, -1, 0, 60, 840] {
        for start_ms in [from, from + 14 * 3_600_000, to - 1] {
            let mut sample = sample_of(0, 1, 1);
            sample.offset_min = Some(offset);
            sample.key.start_ms = start_ms;
            let inside = (from..to).contains(&start_ms);
            assert!(inside || sample.local_date() != day);
        }
    }
    let mut sample = sample_of(0, 1, 1);
    (sample.key.start_ms, sample.offset_min) = (from, Some(840));
    assert_eq!(sample.local_date(), day);
    (sample.key.start_ms, sample.offset_min) = (to - 1, Some(-720));
    assert_eq!(sample.local_date(), day);
}

fn reading(value: i64, start_ms: i64, offset_min: Option<i16>) -> Reading {
    Reading { value: Micro(value), start_ms, offset_min }
}
