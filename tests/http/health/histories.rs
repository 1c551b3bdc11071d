//! Random histories over HTTP against a plain model.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::world::World;

/// A step: samples as (record, start, value), deletions as (record, start or all).
type Step = (Vec<(u8, i64, i64)>, Vec<(u8, Option<i64>)>);

fn any_step() -> impl Strategy<Value = Step> {
    let sample = (0u8..4, 0i64..4, 55i64..58);
    let deletion = (0u8..5, prop::option::weighted(0.6, 0i64..4));
    (prop::collection::vec(sample, 0..6), prop::collection::vec(deletion, 0..3))
        .prop_filter("not empty", |(samples, deleted)| samples.len() + deleted.len() > 0)
}

/// What must be true of a person's samples: the last value of every key, and what is deleted.
#[derive(Default)]
struct Model {
    rows: BTreeMap<(u8, i64), Option<i64>>,
    tombstones: BTreeSet<(u8, Option<i64>)>,
    changes: i64,
}

impl Model {
    fn apply(&mut self, (samples, deleted): &Step) {
        let before = self.rows.clone();
        let mut taken = BTreeSet::new();
        for &(record, start, value) in samples {
            if !taken.insert((record, start)) {
                continue;
            }
            let buried = self.tombstones.contains(&(record, None))
                || self.tombstones.contains(&(record, Some(start)));
            match self.rows.get_mut(&(record, start)) {
                Some(Some(stored)) => *stored = value,
                Some(None) => {}
                None if buried => {}
                None => {
                    self.rows.insert((record, start), Some(value));
                }
            }
        }
        for &(record, start) in deleted {
            self.tombstones.insert((record, start));
            for (key, row) in &mut self.rows {
                if key.0 == record && start.is_none_or(|start| key.1 == start) {
                    *row = None;
                }
            }
        }
        self.changes += i64::from(before != self.rows);
    }
}

fn at(start: i64) -> i64 {
    MARCH + start * 13 * HOUR
}

async fn run(world: &World, name: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    let person = world.person(name).await;
    let mut model = Model::default();
    for (samples, deleted) in steps {
        let upload: Vec<Value> = samples
            .iter()
            .map(|(record, start, value)| heart_rate(&format!("R{record}"), at(*start), *value))
            .collect();
        let delete: Vec<Value> = deleted
            .iter()
            .map(|(record, start)| deletion(&format!("r{record}"), start.map(at)))
            .collect();
        let request = body(ids::new_id(), &upload, &delete);
        let first = person.send(&request).await;
        let again = person.send(&request).await;
        prop_assert_eq!(lasting(&first), lasting(&again));
        model.apply(&(samples.clone(), deleted.clone()));
        prop_assert_eq!(first.header("x-health-watermark"), model.changes.to_string());
        let data = &first.body["data"];
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        prop_assert_eq!(count(&data["successful"]) + count(&data["failed"]), samples.len());
    }
    let stored = person.stored().await;
    let rows: BTreeMap<(u8, i64), Option<i64>> = stored
        .rows
        .values()
        .map(|row| {
            let record = row.key.record_id[1..].parse().unwrap();
            let value = row.value.unwrap().0 / 1_000_000;
            ((record, (row.key.start_ms - MARCH) / (13 * HOUR)), row.is_active().then_some(value))
        })
        .collect();
    prop_assert_eq!(rows, model.rows);
    person.verify().await;
    Ok(())
}

#[test]
fn health_01_02_08_12_13_21_random_histories_agree_with_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let mut people = 0..;
    let people = std::cell::RefCell::new(&mut people);
    let mut runner =
        TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(any_step(), 1..6);
    runner
        .run(&steps, |steps| {
            let name = format!("person-{}", people.borrow_mut().next().unwrap_or(0));
            runtime.block_on(run(&world, &name, &steps))
        })
        .unwrap();
    let _guard = runtime.enter();
    drop(world);
}
