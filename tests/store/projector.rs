//! The machinery of projectors: one winner, no half pages, people apart, swaps without a seam.

#[path = "projector/generations.rs"]
mod generations;
#[path = "projector/pages.rs"]
mod pages;
#[path = "projector/poison.rs"]
mod poison;
#[path = "projector/replay.rs"]
mod replay;
#[path = "projector/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use aggregates::metric::Metric;
use aggregates::{Purpose, UserId};
use chrono::NaiveDate;
use projections::freshness::{DataQuality, State, Status};
use projections::registry::HEALTH_ROLLUP;
use sqlx::PgPool;
use tidemark::projector::batch::{self, Advance};
use tidemark::projector::compare::verify;
use tidemark::projector::rebuild::rebuild;
use tidemark::projector::repair::{refold, retry};
use tidemark::projector::run::run;
use tidemark::projector::{
    Generation, LogReader, ProjectorError, Worker, checkpoint, generation, progress,
};
use tidemark::read_models::health_rollup::{DaysPage, DaysQuery, days};
use tidemark::read_models::reader::{Attempt, Pinned};
use tidemark::read_models::{ReadModel, entities};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{TestDatabase, database as support_database};
use world::{DAY_MS, Poison, START_MS, World, person};

struct Side {
    pool: PgPool,
    world: World,
    _database: TestDatabase,
}

async fn side() -> Side {
    let database = support_database().await;
    let pool = database.pool();
    Side { pool, world: World::default(), _database: database }
}

impl Side {
    fn worker(&self, owner: u128) -> Worker<World> {
        let models = ReadModel::ALL.to_vec();
        Worker::live(self.pool.clone(), self.world.clone(), Uuid::from_u128(owner), models)
    }

    async fn catch_up(&self) {
        let mut worker = self.worker(1);
        assert!(worker.catch_up(self.world.head_now()).await.unwrap());
        worker.stop().await.unwrap();
    }

    async fn live(&self, model: ReadModel) -> Generation {
        generation::ensure_live(&mut self.pool.acquire().await.unwrap(), model).await.unwrap()
    }

    async fn days(&self, user: UserId) -> DaysPage {
        let query = DaysQuery {
            metric: Metric::parse("steps").unwrap(),
            first: NaiveDate::from_ymd_opt(2024, 9, 1).unwrap(),
            last: NaiveDate::from_ymd_opt(2025, 9, 1).unwrap(),
            after: None,
            limit: 100,
        };
        days(&self.pool, user, &query).await.unwrap()
    }

    /// Whole units by day, `None` where a day was emptied.
    async fn sums(&self, user: UserId) -> Vec<Option<i128>> {
        let page = self.days(user).await;
        page.days.iter().map(|day| day.row.sum_micro.map(|sum| sum / 1_000_000)).collect()
    }

    fn heard(&self, user: UserId) -> i64 {
        self.world.head_of(user).heard(HEALTH_ROLLUP.hears)
    }

    async fn state(&self, user: UserId) -> State {
        self.days(user).await.summary(self.heard(user)).state
    }

    /// Everything the live tables hold of a person, to the last byte.
    async fn bytes(&self, user: UserId) -> Vec<String> {
        let mut all = Vec::new();
        for table in ["health_rollup_days", "entities"] {
            let sql = format!("SELECT t::text FROM live.{table} t WHERE user_id = $1 ORDER BY 1");
            let rows: Vec<String> =
                sqlx::query_scalar(&sql).bind(user.0).fetch_all(&self.pool).await.unwrap();
            all.extend(rows);
        }
        all
    }

    /// What those rows say, whenever they were computed.
    async fn content(&self, user: UserId) -> Vec<String> {
        let mut all = Vec::new();
        for table in ["health_rollup_days", "entities"] {
            let sql = format!(
                "SELECT (to_jsonb(t) - 'computed_at')::text FROM live.{table} t
                 WHERE user_id = $1 ORDER BY 1"
            );
            let rows: Vec<String> =
                sqlx::query_scalar(&sql).bind(user.0).fetch_all(&self.pool).await.unwrap();
            all.extend(rows);
        }
        all
    }

    /// Where a projector is parked for a person.
    async fn parked_at(&self, model: ReadModel, user: UserId) -> Option<i64> {
        tidemark::projector::repair::parked_at(&self.pool, model, user).await.unwrap()
    }

    /// Checkpoints, progress, parked people and all rows.
    async fn everything(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (table, columns) in [
            ("projector.checkpoints", "projector, generation, shard, position"),
            ("projector.user_progress", "*"),
            ("projector.parked", "*"),
            ("live.health_rollup_days", "*"),
            ("live.entities", "*"),
        ] {
            let sql = format!("SELECT r::text FROM (SELECT {columns} FROM {table}) r ORDER BY 1");
            let rows: Vec<String> = sqlx::query_scalar(&sql).fetch_all(&self.pool).await.unwrap();
            all.extend(rows);
        }
        all
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    async fn assert_verified(&self) {
        for model in ReadModel::ALL {
            let compared = verify(&self.pool, &self.world, model, |_| {}).await.unwrap();
            assert_eq!((compared.unsettled, compared.parked), (0, 0));
            assert_eq!(compared.differences, []);
        }
    }
}

/// Something of everything, for a few people.
fn busy(world: &World, people: u8, rounds: i64) {
    for round in 0..rounds {
        for n in 0..people {
            let user = person(n);
            let id = Uuid::from_u128(u128::from(n) * 1_000 + round as u128 / 3 + 1);
            world.steps(user, round % 7, 100 + round, if round % 5 == 0 { -720 } else { 60 });
            match round % 3 {
                0 => world.consume(user, id, START_MS + round, "first"),
                1 => world.annotate(user, id, "second"),
                _ => world.unconsume(user, id),
            }
            if round % 4 == 3 {
                world.delete_steps(user, round % 7);
            }
        }
    }
}

#[tokio::test]
async fn projections_01_live_rows_equal_rows_from_the_log() {
    let side = side().await;
    let mut worker = side.worker(1);
    for _ in 0..6 {
        busy(&side.world, 5, 4);
        worker.catch_up(side.world.head_now()).await.unwrap();
    }
    side.assert_verified().await;
    assert!(side.bytes(person(0)).await.len() > 4);

    // A row that was tampered with is found, and repaired by folding that person anew.
    side.run("UPDATE p_health_rollup_g1.health_rollup_days SET sum_val = 1").await;
    let model = ReadModel::HealthRollup;
    let compared = verify(&side.pool, &side.world, model, |_| {}).await.unwrap();
    assert_eq!(compared.differences.len(), 5);
    for n in 0..5 {
        refold(&side.pool, &side.world, model, person(n)).await.unwrap();
    }
    side.assert_verified().await;
}

#[tokio::test]
async fn projections_03_a_failure_at_any_statement_changes_nothing() {
    let side = side().await;
    busy(&side.world, 2, 3);
    side.catch_up().await;
    side.run(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'killed' USING ERRCODE = '57P01'; END $$",
    )
    .await;
    for table in [
        "projector.checkpoints",
        "projector.user_progress",
        "p_health_rollup_g1.health_rollup_days",
        "p_entities_g1.entities",
    ] {
        busy(&side.world, 2, 4);
        let mut worker = side.worker(1);
        worker.step().await.ok();
        busy(&side.world, 2, 5);
        let before = side.everything().await;
        // Checkpoints are also written by claims; only a moved position is a projection.
        let when = if table.ends_with("checkpoints") {
            "AFTER UPDATE OF position ON"
        } else {
            "AFTER INSERT OR UPDATE ON"
        };
        side.run(&format!("CREATE TRIGGER die {when} {table} FOR EACH ROW EXECUTE FUNCTION die()"))
            .await;
        let error = worker.step().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        let after = side.everything().await;
        // The rollup comes first and commits by itself; where the entities die it stays done.
        if table == "p_entities_g1.entities" {
            let entities = |all: &[String]| -> Vec<String> {
                all.iter().filter(|row| row.contains("consumptions")).cloned().collect()
            };
            assert_eq!(entities(&after), entities(&before));
        } else {
            assert_eq!(after, before);
        }
        side.run(&format!("DROP TRIGGER die ON {table}")).await;
        worker.catch_up(side.world.head_now()).await.unwrap();
        worker.stop().await.unwrap();
        side.assert_verified().await;
    }
    let done = side.everything().await;
    side.catch_up().await;
    assert_eq!(side.everything().await, done, "nothing is done twice");
}

#[tokio::test]
async fn projections_23_answers_say_when_events_are_missing() {
    let side = side().await;
    let user = person(3);
    side.catch_up().await;
    assert_eq!(side.state(user).await, State::Empty);
    side.world.steps(user, 0, 10, 60);
    assert_eq!(side.state(user).await, State::Computing);
    side.catch_up().await;
    assert_eq!(side.state(user).await, State::Ready);
    assert_eq!(side.days(user).await.progress.watermark(), "1");
    side.world.delete_steps(user, 0);
    assert_eq!(side.state(user).await, State::Stale);
    side.catch_up().await;
    assert_eq!(side.state(user).await, State::NoData);
    assert_eq!(side.sums(user).await, [None]);
    // Somebody else's uploads leave it alone.
    side.world.steps(person(4), 0, 10, 60);
    assert_eq!(side.state(user).await, State::NoData);
    let page = side.days(user).await;
    assert_eq!(page.freshness(&page.days[0], side.heard(user)).status, Status::NoData);
    assert_eq!(page.freshness(&page.days[0], side.heard(user)).source_watermark, "2");
}

#[tokio::test]
async fn projections_25_one_persons_events_change_nothing_of_another() {
    let side = side().await;
    busy(&side.world, 3, 6);
    side.catch_up().await;
    let before = side.bytes(person(1)).await;
    assert!(!before.is_empty());
    for _ in 0..3 {
        side.world.steps(person(0), 1, 7, 0);
        side.world.consume(person(2), Uuid::from_u128(77), START_MS, "mine");
        side.catch_up().await;
    }
    side.world.erase(person(0), Purpose::Health);
    side.catch_up().await;
    assert_eq!(side.bytes(person(1)).await, before);
}

#[tokio::test]
async fn projections_25_poison_parks_one_person_and_nobody_waits() {
    for poison in [Poison::State, Poison::Events, Poison::Panic] {
        let side = side().await;
        // Same shard.
        let (ill, well) = (person(1), person(9));
        side.world.steps(ill, 0, 1, 60);
        side.catch_up().await;
        side.world.poison(ill, Some(poison));
        for slot in 1..4 {
            side.world.steps(ill, slot, 5, 60);
            side.world.steps(well, slot, 5, 60);
        }
        let mut worker = side.worker(1);
        worker.step().await.unwrap();
        assert_eq!(side.state(well).await, State::Ready);
        assert_eq!(side.state(ill).await, State::Failed);
        assert_eq!(side.sums(ill).await, [Some(1)], "rows stay as they were");

        let live = side.live(ReadModel::HealthRollup).await;
        let parked = async || {
            progress::parked(&mut side.pool.acquire().await.unwrap(), &live).await.unwrap()
        };
        let listed = parked().await;
        assert_eq!((listed[0].user, listed[0].position, listed[0].attempts), (ill, 2, 1));
        let class = if poison == Poison::Panic { "panic" } else { "broken" };
        assert_eq!(listed[0].error, class);
        // More events of the same person do not disturb anybody either.
        side.world.steps(ill, 5, 5, 60);
        side.world.steps(well, 5, 5, 60);
        worker.step().await.unwrap();
        assert_eq!(side.state(well).await, State::Ready);

        if poison == Poison::Events {
            let model = ReadModel::HealthRollup;
            assert_eq!(retry(&side.pool, &side.world, model, None).await.unwrap(), (0, 1));
            assert_eq!(parked().await[0].attempts, 2);
            // A rebuild does not make it worse than it is, nor does it hang on it.
            let rebuilt =
                rebuild(&side.pool, &side.world, model, Uuid::from_u128(9), |_| {}).await.unwrap();
            assert_eq!(rebuilt.comparison.parked, 1);
        }
        side.world.poison(ill, None);
        let model = ReadModel::HealthRollup;
        assert_eq!(retry(&side.pool, &side.world, model, None).await.unwrap(), (1, 0));
        worker.stop().await.unwrap();
        side.catch_up().await;
        assert_eq!(side.state(ill).await, State::Ready);
        side.assert_verified().await;
    }
}

#[tokio::test]
async fn projections_25_rows_that_do_not_go_in_park_one_person() {
    let side = side().await;
    side.catch_up().await;
    side.run(
        "ALTER TABLE p_health_rollup_g1.health_rollup_days ADD CHECK (sum_val IS DISTINCT FROM 13)",
    )
    .await;
    for n in 0..4 {
        side.world.steps(person(n), 0, if n == 2 { 13 } else { 5 }, 60);
    }
    side.catch_up().await;
    for n in 0..4 {
        let expected = if n == 2 { State::Failed } else { State::Ready };
        assert_eq!(side.state(person(n)).await, expected);
    }
    let live = side.live(ReadModel::HealthRollup).await;
    let mut db = side.pool.acquire().await.unwrap();
    let parked = progress::parked(&mut db, &live).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].error, "database_23514");
}

#[tokio::test]
async fn a_source_that_is_away_parks_nobody() {
    let side = side().await;
    side.world.steps(person(1), 0, 5, 60);
    side.world.poison(person(1), Some(Poison::Away));
    let mut worker = side.worker(1);
    assert!(worker.step().await.unwrap_err().is_transient());
    side.world.poison(person(1), None);
    worker.catch_up(side.world.head_now()).await.unwrap();
    assert_eq!(side.state(person(1)).await, State::Ready);
}

#[tokio::test]
async fn projections_26_racing_workers_never_commit_a_position_twice() {
    let side = side().await;
    side.live(ReadModel::HealthRollup).await;
    side.live(ReadModel::Entities).await;
    side.run(
        "CREATE TABLE moves (projector text, generation int, shard int2, was int8, now int8);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO public.moves VALUES
                 (new.projector, new.generation, new.shard, old.position, new.position);
             RETURN NULL; END $$;
         CREATE TRIGGER note AFTER UPDATE OF position ON projector.checkpoints
         FOR EACH ROW WHEN (old.position <> new.position) EXECUTE FUNCTION note()",
    )
    .await;
    // Leases that expire at once: everybody tries everything, only the compare-and-set decides.
    let racers: Vec<_> = (0..3)
        .map(|owner| {
            let mut worker = side.worker(owner).with_lease_seconds(0.0);
            let world = side.world.clone();
            tokio::spawn(async move {
                let mut lost = 0;
                for round in 0..40 {
                    busy(&world, 4, 1 + round % 2);
                    match worker.step().await {
                        Ok(_) => {}
                        Err(ProjectorError::Lost { .. }) => lost += 1,
                        Err(error) => assert!(error.is_transient(), "{error}"),
                    }
                }
                lost
            })
        })
        .collect();
    for racer in racers {
        racer.await.unwrap();
    }
    side.catch_up().await;
    // Each shard's moves are one chain: a position is left once and reached once.
    let broken: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM moves a JOIN moves b USING (projector, generation, shard)
         WHERE a.ctid <> b.ctid AND a.was < b.now AND b.was < a.now",
    )
    .fetch_one(&side.pool)
    .await
    .unwrap();
    assert_eq!(broken, 0);
    let (covered, shards): (i64, i64) = sqlx::query_as(
        "SELECT sum(now - was)::int8, count(DISTINCT (projector, shard)) FROM moves",
    )
    .fetch_one(&side.pool)
    .await
    .unwrap();
    assert_eq!((covered, shards), (side.world.head_now() * 16, 16));
    side.assert_verified().await;
}

#[tokio::test]
async fn projections_26_a_fenced_zombie_writes_nothing() {
    let side = side().await;
    let user = person(1);
    let live = side.live(ReadModel::HealthRollup).await;
    side.world.steps(user, 0, 5, 60);
    let mut db = side.pool.acquire().await.unwrap();
    let claim = async |db: &mut sqlx::PgConnection, owner, lease| {
        checkpoint::claim(db, &live, Uuid::from_u128(owner), lease).await.unwrap()
    };
    let zombie = claim(&mut db, 1, 0.0).await;
    assert_eq!(zombie.len(), 8);
    let page = side.world.page(0, 10).await.unwrap();
    let old = batch::prepare(&side.pool, &side.world, &live, &zombie, &page).await.unwrap();

    // The lease is over; another takes the shards. Even before it has done anything, the zombie's
    // fence no longer fits.
    let heir = claim(&mut db, 2, 60.0).await;
    let commit = async |held, to, people| {
        let advance = Advance { held, to, lease: 60.0 };
        batch::commit(&side.pool, &live, &advance, people).await
    };
    let error = commit(&zombie, page.through, &old).await.unwrap_err();
    assert!(matches!(error, ProjectorError::Lost { .. }));
    assert_eq!(side.sums(user).await, []);

    side.world.steps(user, 0, 9, 60);
    let page = side.world.page(0, 10).await.unwrap();
    let new = batch::prepare(&side.pool, &side.world, &live, &heir, &page).await.unwrap();
    commit(&heir, page.through, &new).await.unwrap();
    assert_eq!(side.sums(user).await, [Some(9)]);
    assert!(commit(&zombie, page.through, &old).await.is_err());
    assert!(commit(&heir, page.through, &new).await.is_err(), "nor does the heir commit twice");
    assert_eq!(side.sums(user).await, [Some(9)]);
    // Somebody alive keeps their shards.
    assert_eq!(claim(&mut db, 3, 60.0).await, []);
    drop(db);
    let model = ReadModel::HealthRollup;
    let compared = verify(&side.pool, &side.world, model, |_| {}).await.unwrap();
    assert_eq!((compared.same, compared.differences), (1, vec![]));
}

#[tokio::test]
async fn people_freed_or_parked_meanwhile_make_a_page_be_computed_again() {
    let side = side().await;
    let user = person(1);
    let live = side.live(ReadModel::HealthRollup).await;
    side.world.steps(user, 0, 5, 60);
    let mut db = side.pool.acquire().await.unwrap();
    progress::park(&mut db, &live, user, 1, "test").await.unwrap();
    let owner = Uuid::from_u128(1);
    let held = checkpoint::claim(&mut db, &live, owner, 60.0).await.unwrap();
    let page = side.world.page(0, 10).await.unwrap();
    let people = batch::prepare(&side.pool, &side.world, &live, &held, &page).await.unwrap();
    assert_eq!(
        retry(&side.pool, &side.world, ReadModel::HealthRollup, None).await.unwrap(),
        (1, 0)
    );
    let advance = Advance { held: &held, to: page.through, lease: 60.0 };
    let result = batch::commit(&side.pool, &live, &advance, &people).await;
    assert!(matches!(result, Err(ProjectorError::Lost { .. })));
    checkpoint::release(&mut db, &live, owner).await.unwrap();
    drop(db);
    side.catch_up().await;
    assert_eq!(side.sums(user).await, [Some(5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_22_a_swap_shows_no_seam_and_no_step_back() {
    let side = side().await;
    let user = person(1);
    busy(&side.world, 3, 8);
    side.catch_up().await;
    let mut pinned =
        Pinned::open(&side.pool, ReadModel::HealthRollup, user, Attempt::First).await.unwrap();
    let before = ReadModel::HealthRollup.rows_of(&mut pinned.tx, user).await.unwrap();

    // A writer, a live worker and a reader go on while generations are swapped under them.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let traffic = {
        let (mut worker, world, stopped) = (side.worker(1), side.world.clone(), stopped.clone());
        tokio::spawn(async move {
            let mut round = 0;
            while !*stopped.borrow() {
                round += 1;
                world.steps(person(round % 3), i64::from(round % 7), i64::from(round), 60);
                match worker.step().await {
                    Ok(_) => {}
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
            }
            worker.stop().await.unwrap();
        })
    };
    let readers = {
        let (pool, world) = (side.pool.clone(), side.world.clone());
        tokio::spawn(async move {
            let (mut watermark, mut reads) = (0, 0);
            while !*stopped.borrow() {
                let query = DaysQuery {
                    metric: Metric::parse("steps").unwrap(),
                    first: NaiveDate::from_ymd_opt(2024, 9, 1).unwrap(),
                    last: NaiveDate::from_ymd_opt(2025, 9, 1).unwrap(),
                    after: None,
                    limit: 100,
                };
                let page = days(&pool, user, &query).await.unwrap();
                assert!(page.days.len() >= 3, "rows are never missing");
                assert!(page.progress.health_seq >= watermark, "watermarks never fall");
                watermark = page.progress.health_seq;
                let covered = page.progress.covers(world.head_of(user).pos_health);
                assert!(!covered || watermark == world.head_of(user).health_seq || reads > 0);
                reads += 1;
            }
            reads
        })
    };
    for n in 0..3 {
        let owner = Uuid::from_u128(100 + n);
        let model = ReadModel::HealthRollup;
        let rebuilt = rebuild(&side.pool, &side.world, model, owner, |_| {}).await.unwrap();
        assert_eq!(rebuilt.comparison.differences, []);
        assert_eq!(i128::from(rebuilt.live.number), i128::from(n as i32) + 2);
    }
    stop.send(true).unwrap();
    traffic.await.unwrap();
    assert!(readers.await.unwrap() > 0);

    // The first generation still answers whoever pinned it, until it is dropped.
    assert_eq!(ReadModel::HealthRollup.rows_of(&mut pinned.tx, user).await.unwrap(), before);
    let first = pinned.generation;
    pinned.tx.rollback().await.unwrap();
    let mut db = side.pool.acquire().await.unwrap();
    assert!(generation::remove(&mut db, &first).await.unwrap());
    let live = generation::live(&mut db, ReadModel::HealthRollup).await.unwrap().unwrap();
    assert_eq!(live.number, 4);
    assert!(!generation::remove(&mut db, &live).await.unwrap(), "the live one stays");
    drop(db);
    side.catch_up().await;
    side.assert_verified().await;
}

#[tokio::test]
async fn readers_survive_other_column_types_after_a_swap() {
    let side = side().await;
    let user = person(1);
    side.world.steps(user, 0, 5, 60);
    side.catch_up().await;
    // As if an older release had made the live tables with another type.
    side.run(
        "DROP VIEW live.health_rollup_days;
         ALTER TABLE p_health_rollup_g1.health_rollup_days ALTER metric TYPE varchar",
    )
    .await;
    assert_eq!(side.sums(user).await, [Some(5)]);
    let model = ReadModel::HealthRollup;
    rebuild(&side.pool, &side.world, model, Uuid::from_u128(9), |_| {}).await.unwrap();
    // Every connection has a plan for the old type and meets the new one.
    for _ in 0..10 {
        assert_eq!(side.sums(user).await, [Some(5)]);
    }
}

#[tokio::test]
async fn the_loop_runs_until_cancelled_and_frees_its_shards() {
    let side = side().await;
    let user = person(1);
    let cancel = CancellationToken::new();
    let (wake, woken) = tokio::sync::watch::channel(0);
    let running = tokio::spawn(run(side.worker(1), side.pool.clone(), woken, cancel.clone()));
    side.live(ReadModel::HealthRollup).await;
    for slot in 0..3 {
        side.world.steps(user, slot, 5, 60);
        wake.send(slot.unsigned_abs() + 1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let (model, position) = (ReadModel::HealthRollup, side.world.head_now());
        assert!(progress::wait_until(&side.pool, model, user, position, deadline).await.unwrap());
        assert_eq!(side.state(user).await, State::Ready);
    }
    cancel.cancel();
    running.await.unwrap();
    let owned: i64 =
        sqlx::query_scalar("SELECT count(*) FROM projector.checkpoints WHERE owner IS NOT NULL")
            .fetch_one(&side.pool)
            .await
            .unwrap();
    assert_eq!(owned, 0);
}

#[tokio::test]
async fn rows_of_older_formulas_are_served_until_rebuilt_and_never_mixed() {
    let side = side().await;
    let user = person(1);
    side.world.steps(user, 0, 5, 60);
    side.catch_up().await;
    side.run(
        "UPDATE projector.generations SET compute_version = 0 WHERE projector = 'health-rollup'",
    )
    .await;
    side.world.steps(user, 0, 9, 60);
    side.catch_up().await;
    assert_eq!(side.sums(user).await, [Some(5)]);
    assert_eq!(side.state(user).await, State::Stale);
    let model = ReadModel::HealthRollup;
    assert!(!side.live(model).await.is_current());
    let owner = Uuid::from_u128(9);
    let rebuilt = rebuild(&side.pool, &side.world, model, owner, |_| {}).await.unwrap();
    assert!(rebuilt.live.is_current());
    assert_eq!(rebuilt.comparison.unsettled, 1, "the old one had stopped");
    assert_eq!(side.sums(user).await, [Some(9)]);
    assert_eq!(side.state(user).await, State::Ready);
}

#[tokio::test]
async fn erasure_empties_rows_and_rebuilds_agree() {
    let side = side().await;
    let (gone, stays) = (person(1), person(2));
    busy(&side.world, 3, 6);
    side.catch_up().await;
    let before = side.bytes(stays).await;
    let watermark = side.days(gone).await.progress.health_seq;
    side.world.erase(gone, Purpose::Health);
    side.world.erase(gone, Purpose::Activity);
    side.catch_up().await;
    assert_eq!(side.bytes(gone).await, Vec::<String>::new());
    assert_eq!(side.bytes(stays).await, before);
    side.assert_verified().await;
    for model in ReadModel::ALL {
        let owner = Uuid::from_u128(9);
        let rebuilt = rebuild(&side.pool, &side.world, model, owner, |_| {}).await.unwrap();
        assert_eq!(rebuilt.comparison.differences, []);
    }
    assert_eq!(side.days(gone).await.progress.health_seq, watermark, "never falls");
    assert_eq!(side.state(gone).await, State::Empty);
}

#[tokio::test]
async fn erasure_reaches_parked_people() {
    let side = side().await;
    let user = person(1);
    side.world.steps(user, 0, 5, 60);
    side.catch_up().await;
    side.world.poison(user, Some(Poison::State));
    side.world.steps(user, 1, 5, 60);
    side.catch_up().await;
    assert_eq!(side.bytes(user).await.len(), 1);
    side.world.erase(user, Purpose::Health);
    side.catch_up().await;
    assert_eq!(side.bytes(user).await, Vec::<String>::new());
}

#[tokio::test]
async fn lists_page_filter_and_wait_for_ones_own_write() {
    let side = side().await;
    let user = person(1);
    for n in 0..5u128 {
        side.world.consume(user, Uuid::from_u128(n + 1), START_MS + (n as i64 / 2) * DAY_MS, "x");
    }
    side.world.consume(person(2), Uuid::from_u128(50), START_MS, "not mine");
    side.world.unconsume(user, Uuid::from_u128(5));
    let position = side.world.head_now();
    let soon = Instant::now() + Duration::from_millis(30);
    let model = ReadModel::Entities;
    side.live(model).await;
    assert!(!progress::wait_until(&side.pool, model, user, position, soon).await.unwrap());
    let waiting = {
        let pool = side.pool.clone();
        let deadline = Instant::now() + Duration::from_secs(20);
        tokio::spawn(async move {
            progress::wait_until(&pool, ReadModel::Entities, user, position, deadline).await
        })
    };
    side.catch_up().await;
    assert!(waiting.await.unwrap().unwrap());

    let mut query =
        entities::ListQuery { entity_type: "consumptions", limit: 2, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = entities::list(&side.pool, user, &query).await.unwrap();
        assert_eq!(page.total, 4);
        seen.extend(page.rows.iter().map(|row| (row.at_ms, row.id)));
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let mut sorted = seen.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(seen, sorted);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 4);

    let (row, _) =
        entities::get(&side.pool, user, "consumptions", Uuid::from_u128(5)).await.unwrap();
    assert!(row.unwrap().deleted);
    let (row, _) =
        entities::get(&side.pool, user, "consumptions", Uuid::from_u128(50)).await.unwrap();
    assert_eq!(row, None, "another person's");
    let from = Some(START_MS + DAY_MS);
    let query = entities::ListQuery { from_ms: from, after: None, ..query };
    assert_eq!(entities::list(&side.pool, user, &query).await.unwrap().total, 2);
}

#[tokio::test]
async fn two_processes_that_start_together_make_one_generation() {
    let side = side().await;
    let starts = (0..4).map(|_| {
        let pool = side.pool.clone();
        tokio::spawn(async move {
            let mut db = pool.acquire().await.unwrap();
            generation::ensure_live(&mut db, ReadModel::HealthRollup).await.unwrap().number
        })
    });
    for start in starts.collect::<Vec<_>>() {
        assert_eq!(start.await.unwrap(), 1);
    }
}
