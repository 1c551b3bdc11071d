//! Read models as of a position, in a schema of their own.

use aggregates::{Purpose, UserId};
use sqlx::Executor;
use tidemark::projector::replay::{Filled, ReplayError, Request, SchemaName, replay};
use tidemark::projector::{LogReader, Page, SourceError};
use tidemark::read_models::{ReadModel, Row};
use uuid::Uuid;

use super::world::{Poison, World, person};
use super::{Side, busy, side};

const LOG: Uuid = Uuid::from_u128(77);

fn request(into: &str, position: i64) -> Request {
    Request {
        into: SchemaName::parse(into).unwrap(),
        models: ReadModel::ALL.to_vec(),
        log_id: LOG,
        position,
        committed_ms: (position > 0).then_some(position),
        replace: false,
    }
}

async fn as_of(side: &Side, into: &str, position: i64) -> Vec<Filled> {
    replay(&side.pool, &side.world, &request(into, position), |_| {}).await.unwrap()
}

async fn refused(side: &Side, request: &Request) -> ReplayError {
    replay(&side.pool, &side.world, request, |_| {}).await.unwrap_err()
}

/// Everybody's rows of all models in a schema.
async fn rows(side: &Side, schema: &str) -> Vec<(UserId, Vec<Row>)> {
    let mut all = Vec::new();
    let mut tx = side.pool.begin().await.unwrap();
    tx.execute(format!("SET LOCAL search_path = \"{schema}\"").as_str()).await.unwrap();
    for user in side.world.users(None, 100).await.unwrap() {
        for model in ReadModel::ALL {
            all.push((user, model.rows_of(&mut tx, user).await.unwrap()));
        }
    }
    all
}

async fn exists(side: &Side, schema: &str) -> bool {
    let sql = "SELECT count(*) = 1 FROM pg_namespace WHERE nspname = $1";
    sqlx::query_scalar(sql).bind(schema).fetch_one(&side.pool).await.unwrap()
}

#[tokio::test]
async fn as_of_the_head_is_what_is_live() {
    let side = side().await;
    busy(&side.world, 5, 9);
    side.world.erase(person(1), Purpose::Health);
    side.catch_up().await;
    let filled = as_of(&side, "now", side.world.head_now()).await;
    let live = rows(&side, "live").await;
    assert_eq!(rows(&side, "now").await, live);
    assert!(live.iter().any(|(_, rows)| rows.len() > 1));
    let counts: Vec<_> =
        filled.iter().map(|one| (one.people, one.erased, one.unreadable)).collect();
    assert_eq!(counts, [(5, 1, 0), (5, 0, 0)], "one person's uploads are gone");
}

#[tokio::test]
async fn as_of_the_middle_is_what_a_log_that_ends_there_gives() {
    let side = side().await;
    busy(&side.world, 4, 6);
    side.catch_up().await;
    let middle = side.world.head_now();
    let then = rows(&side, "live").await;
    busy(&side.world, 6, 11);
    side.catch_up().await;
    as_of(&side, "then", middle).await;
    let replayed = rows(&side, "then").await;
    assert_ne!(rows(&side, "live").await, replayed, "much has happened since");
    for one in &replayed {
        let expected = then.iter().find(|(user, _)| *user == one.0);
        assert!(then.contains(one) || (expected.is_none() && one.1.is_empty()), "{one:?}");
    }
    as_of(&side, "nothing", 0).await;
    assert!(rows(&side, "nothing").await.iter().all(|(_, rows)| rows.is_empty()));
}

#[tokio::test]
async fn the_manifest_says_what_it_is() {
    let side = side().await;
    busy(&side.world, 3, 3);
    side.world.erase(person(2), Purpose::Activity);
    side.world.poison(person(0), Some(Poison::Events));
    let filled = as_of(&side, "told", side.world.head_now()).await;
    assert!(filled.iter().all(|one| (one.people, one.unreadable) == (2, 1)), "{filled:?}");
    let sql = "SELECT jsonb_build_array(log_id, position, compute_version > 0, program_version, \
               people, rows, erased, unreadable, committed_at IS NOT NULL, \
               finished_at >= started_at)::text FROM told.manifest WHERE model = 'entities'";
    let manifest: String = sqlx::query_scalar(sql).fetch_one(&side.pool).await.unwrap();
    let entities = filled.iter().find(|one| one.model == "entities").unwrap();
    let (head, version) = (side.world.head_now(), env!("CARGO_PKG_VERSION"));
    let expected =
        format!("[\"{LOG}\", {head}, true, \"{version}\", 2, {}, 1, 1, true, true]", entities.rows);
    assert_eq!(manifest, expected);
}

#[tokio::test]
async fn what_a_replay_did_not_make_is_not_touched() {
    let side = side().await;
    busy(&side.world, 2, 3);
    let head = side.world.head_now();
    side.run("CREATE SCHEMA analysts; CREATE TABLE analysts.mine (x int)").await;
    for foreign in ["analysts", "live", "projector", "public"] {
        let error = refused(&side, &request(foreign, head)).await;
        assert!(matches!(error, ReplayError::Foreign(_)), "{foreign}: {error}");
    }
    side.run("SELECT * FROM analysts.mine, projector.generations").await;
    let error = refused(&side, &request("ahead", head + 1)).await;
    assert!(matches!(error, ReplayError::Beyond { .. }), "{error}");
    assert!(!exists(&side, "ahead").await);
}

#[tokio::test]
async fn a_finished_replay_is_replaced_only_if_asked() {
    let side = side().await;
    busy(&side.world, 2, 3);
    let head = side.world.head_now();
    as_of(&side, "mine", head).await;
    let first = rows(&side, "mine").await;
    busy(&side.world, 2, 6);
    let mut again = request("mine", side.world.head_now());
    assert!(matches!(refused(&side, &again).await, ReplayError::Finished(_)));
    assert_eq!(rows(&side, "mine").await, first);
    again.replace = true;
    replay(&side.pool, &side.world, &again, |_| {}).await.unwrap();
    assert_ne!(rows(&side, "mine").await, first);
}

#[tokio::test]
async fn one_that_was_cut_off_is_begun_anew() {
    let side = side().await;
    busy(&side.world, 3, 4);
    let head = side.world.head_now();
    as_of(&side, "cut", head).await;
    let whole = rows(&side, "cut").await;
    // As a killed process leaves it.
    side.run("UPDATE cut.manifest SET finished_at = NULL; DELETE FROM cut.entities").await;
    as_of(&side, "cut", head).await;
    assert_eq!(rows(&side, "cut").await, whole);
}

#[tokio::test]
async fn a_failure_leaves_nothing_behind() {
    let side = side().await;
    busy(&side.world, 3, 4);
    let away = Away(side.world.clone());
    let request = request("failed", side.world.head_now());
    let error = replay(&side.pool, &away, &request, |_| {}).await.unwrap_err();
    assert!(matches!(error, ReplayError::Failed(_)), "{error}");
    assert!(!exists(&side, "failed").await);
}

#[tokio::test]
async fn two_at_once_do_not_mix() {
    let side = side().await;
    busy(&side.world, 2, 3);
    let mut holder = side.pool.acquire().await.unwrap();
    let lock = "SELECT pg_advisory_lock(hashtextextended('tidemark replay into shared', 0))";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let error = refused(&side, &request("shared", 1)).await;
    assert!(matches!(error, ReplayError::Busy(_)), "{error}");
    holder.close().await.unwrap();
    as_of(&side, "shared", 1).await;
}

/// A log that goes away while it is read.
struct Away(World);

impl LogReader for Away {
    async fn page(&self, after: i64, limit: i64) -> Result<Page, SourceError> {
        self.0.page(after, limit).await
    }

    async fn unopened(
        &self,
        after: i64,
        limit: i64,
        class: &'static str,
    ) -> Result<Page, SourceError> {
        self.0.unopened(after, limit, class).await
    }

    async fn user_page(
        &self,
        user: UserId,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Page, SourceError> {
        if user == person(2) {
            return Err(SourceError::Unavailable("away".into()));
        }
        self.0.user_page(user, after, upto, limit).await
    }

    async fn users(&self, after: Option<UserId>, limit: i64) -> Result<Vec<UserId>, SourceError> {
        self.0.users(after, limit).await
    }

    async fn head(&self) -> Result<i64, SourceError> {
        LogReader::head(&self.0).await
    }
}

/// A log that looks, whenever it is read, whether a transaction of the database waits for it.
struct Watching(World, sqlx::PgPool);

impl LogReader for Watching {
    async fn page(&self, after: i64, limit: i64) -> Result<Page, SourceError> {
        self.0.page(after, limit).await
    }

    async fn unopened(
        &self,
        after: i64,
        limit: i64,
        class: &'static str,
    ) -> Result<Page, SourceError> {
        self.0.unopened(after, limit, class).await
    }

    async fn user_page(
        &self,
        user: UserId,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Page, SourceError> {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&self.1).await.unwrap();
        assert_eq!(waiting, 0, "a transaction waits for a fold, which may take long");
        self.0.user_page(user, after, upto, limit).await
    }

    async fn users(&self, after: Option<UserId>, limit: i64) -> Result<Vec<UserId>, SourceError> {
        self.0.users(after, limit).await
    }

    async fn head(&self) -> Result<i64, SourceError> {
        self.0.head().await
    }
}

#[tokio::test]
async fn no_transaction_waits_for_a_fold() {
    let side = side().await;
    busy(&side.world, 3, 4);
    side.catch_up().await;
    let log = Watching(side.world.clone(), side.pool.clone());
    let request = request("patient", side.world.head_now());
    replay(&side.pool, &log, &request, |_| {}).await.unwrap();
    let ill = person(1);
    side.world.poison(ill, Some(Poison::Events));
    busy(&side.world, 3, 1);
    side.catch_up().await;
    side.world.poison(ill, None);
    for model in ReadModel::ALL {
        assert!(side.parked_at(model, ill).await.is_some());
        assert_eq!(super::retry(&side.pool, &log, model, None).await.unwrap(), (1, 0));
    }
    side.assert_verified().await;
}
