//! A changed formula, walked: built beside the live one, compared, refused, swapped, taken back.

use tidemark::projector::compare::Kind;
use tidemark::projector::rebuild::{clear_dead, rebuild_expecting, rebuild_unless, rollback};

use super::*;

const ROLLUP: ReadModel = ReadModel::HealthRollup;

#[tokio::test]
async fn who_does_not_allow_aggregation_has_no_rows_and_gets_all_of_them_back() {
    let side = side().await;
    let (ann, ben) = (person(1), person(9));
    let stored = async || -> i64 {
        let sql = "SELECT count(*) FROM live.health_rollup_days WHERE user_id = $1";
        sqlx::query_scalar(sql).bind(ann.0).fetch_one(&side.pool).await.unwrap()
    };
    for slot in 0..4 {
        side.world.steps(ann, 2 * slot, 5, 60);
        side.world.steps(ben, 2 * slot, 5, 60);
    }
    side.world.delete_steps(ann, 2);
    side.catch_up().await;
    let shown = side.content(ann).await;
    assert_eq!(shown.len(), 4);

    side.world.allow(ann, false);
    side.catch_up().await;
    assert_eq!(stored().await, 0);
    side.assert_verified().await;
    // In the same page as the rule, and after it.
    side.world.allow(ben, false);
    side.world.steps(ben, 9, 1, 60);
    side.world.steps(ann, 9, 1, 60);
    side.catch_up().await;
    assert_eq!((stored().await, side.content(ben).await), (0, vec![]));
    side.assert_verified().await;
    let rebuilt = rebuild(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9), |_| {});
    assert_eq!(rebuilt.await.unwrap().comparison.differences, []);
    side.world.steps(ann, 9, 2, 60);
    side.catch_up().await;
    assert_eq!(stored().await, 0, "a rebuilt generation hides them too");

    side.world.allow(ann, true);
    side.catch_up().await;
    assert_eq!(side.content(ann).await.len(), 5);
    assert_eq!(side.content(ann).await[..4], shown[..]);
    side.world.steps(ann, 11, 3, 60);
    side.catch_up().await;
    assert_eq!(stored().await, 6);
    side.assert_verified().await;

    // Without the identity nobody knows what she allows.
    side.world.erase(ann, Purpose::Identity);
    side.world.steps(ann, 13, 3, 60);
    side.catch_up().await;
    assert_eq!(stored().await, 0);
    side.assert_verified().await;
}

/// A live generation as version 1 of the formulas leaves it: it knows nothing of rules, so that the
/// rows of who does not allow aggregation are there.
async fn of_version_1(side: &Side, hidden: UserId) {
    busy(&side.world, 4, 6);
    side.catch_up().await;
    side.world.allow(hidden, false);
    let head = side.world.head_now();
    side.run(&format!(
        "UPDATE projector.generations SET compute_version = 1 WHERE projector = 'health-rollup';
         UPDATE p_health_rollup_g1.health_rollup_days SET compute_version = 1;
         DROP VIEW live.health_rollup_hidden;
         DROP TABLE p_health_rollup_g1.health_rollup_hidden;
         UPDATE projector.checkpoints SET position = {head} WHERE projector = 'health-rollup'"
    ))
    .await;
}

#[tokio::test]
async fn a_changed_formula_is_compared_refused_swapped_and_taken_back() {
    let side = side().await;
    let (hidden, shown) = (person(1), person(2));
    of_version_1(&side, hidden).await;
    let (before, theirs) = (side.content(hidden).await, side.sums(shown).await);
    let days = side.sums(hidden).await.len() as u64;

    // What would change: one person's rows, all of which go.
    let found = verify(&side.pool, &side.world, ROLLUP, |_| {}).await.unwrap();
    assert_eq!((found.same, found.unsettled, found.differences.len()), (3, 0, 1));
    assert_eq!((found.people(Kind::OnlyOld), found.rows(Kind::OnlyOld)), (1, days));
    assert_eq!((found.rows(Kind::Changed), found.rows(Kind::OnlyNew)), (0, 0));
    let [difference] = found.differences.as_slice() else { panic!("one person") };
    assert_eq!(difference.user, hidden);
    assert_eq!(difference.samples[0].key, "steps 2024-10-03");

    // Not what was expected.
    let build = async |expected: &[Kind]| {
        let expected: BTreeSet<Kind> = expected.iter().copied().collect();
        let (owner, expected) = (Uuid::from_u128(9), Some(&expected));
        rebuild_expecting(&side.pool, &side.world, ROLLUP, owner, expected, |_| {}).await
    };
    for expected in [&[][..], &[Kind::Changed, Kind::OnlyNew]] {
        let error = build(expected).await.unwrap_err();
        let ProjectorError::Differs { report, .. } = error else { panic!("{error}") };
        assert_eq!(report.differences, found.differences);
    }
    assert_eq!((side.live(ROLLUP).await.number, side.content(hidden).await), (1, before.clone()));
    let listed = generation::list(&mut side.pool.acquire().await.unwrap()).await.unwrap();
    assert_eq!(listed.len(), 2, "what was refused is gone");

    let rebuilt = build(&[Kind::OnlyOld]).await.unwrap();
    assert_eq!((rebuilt.retired.number, rebuilt.live.compute_version), (1, 2));
    assert_eq!(side.sums(hidden).await, []);
    assert_eq!(side.sums(shown).await, theirs);
    assert_eq!(side.days(shown).await.days[0].compute_version, 2);
    side.catch_up().await;
    side.assert_verified().await;

    // The new formulas go on, then are taken back.
    side.world.steps(shown, 3, 77, 60);
    side.catch_up().await;
    assert_eq!(side.state(shown).await, State::Ready);
    let back = rollback(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9)).await.unwrap();
    assert_eq!((back.number, back.is_current()), (1, false));
    assert_eq!(side.content(hidden).await, before);
    assert_eq!(side.state(shown).await, State::Stale, "what came since is missing, and said to be");
    side.catch_up().await;
    assert_eq!(side.state(shown).await, State::Stale, "this program does not have its formulas");
    let mut db = side.pool.acquire().await.unwrap();
    let history = generation::history(&mut db, ROLLUP).await.unwrap();
    assert!(history.rejected, "so that it is not built again unasked");
    // Remembered for as long as older formulas are live.
    assert_eq!(generation::prune(&mut db, ROLLUP, 0.0).await.unwrap(), 0);
    assert_eq!(schemas(&side).await, ["p_health_rollup_g1"], "but without its rows");
    drop(db);
    let nothing = rollback(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9)).await;
    assert!(matches!(nothing, Err(ProjectorError::NoGeneration { .. })));

    // Asked for, it is built again; then nobody wants the others back any more.
    build(&[Kind::OnlyOld]).await.unwrap();
    assert_eq!(side.sums(hidden).await, []);
    assert_eq!(side.state(shown).await, State::Ready);
    let mut db = side.pool.acquire().await.unwrap();
    assert_eq!(generation::prune(&mut db, ROLLUP, 3_600.0).await.unwrap(), 0, "still young");
    assert_eq!(generation::prune(&mut db, ROLLUP, 0.0).await.unwrap(), 2);
    drop(db);
    side.assert_verified().await;
}

#[tokio::test]
async fn a_rollback_within_the_same_formulas_misses_nothing() {
    let side = side().await;
    busy(&side.world, 3, 4);
    side.catch_up().await;
    rebuild(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9), |_| {}).await.unwrap();
    busy(&side.world, 3, 5);
    side.catch_up().await;
    let back = rollback(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9)).await.unwrap();
    assert_eq!((back.number, back.is_current()), (1, true));
    assert_eq!(side.state(person(1)).await, State::Ready);
    busy(&side.world, 3, 2);
    side.catch_up().await;
    side.assert_verified().await;
}

#[tokio::test]
async fn one_generation_is_built_at_a_time_and_dead_builds_are_cleared_away() {
    let side = side().await;
    busy(&side.world, 2, 3);
    side.catch_up().await;
    let model = ReadModel::Entities;
    let owner = Uuid::from_u128(9);
    let mut db = side.pool.acquire().await.unwrap();
    for _ in 0..2 {
        // As a process leaves it that dies while it builds.
        generation::create(&mut db, model, 8).await.unwrap();
    }
    assert_eq!(generation::history(&mut db, model).await.unwrap().unfinished, 2);
    let lock = "SELECT pg_advisory_lock(hashtext('tidemark build'), hashtext('entities'))";
    sqlx::query(lock).execute(&mut *db).await.unwrap();
    let error = rebuild(&side.pool, &side.world, model, owner, |_| {}).await.unwrap_err();
    assert!(matches!(error, ProjectorError::Building { .. }) && error.is_transient());
    let unlock = "SELECT pg_advisory_unlock(hashtext('tidemark build'), hashtext('entities'))";
    sqlx::query(unlock).execute(&mut *db).await.unwrap();
    let rebuilt = rebuild(&side.pool, &side.world, model, owner, |_| {}).await.unwrap();
    assert_eq!(rebuilt.live.number, 4);
    assert_eq!(generation::history(&mut db, model).await.unwrap().unfinished, 0);
    rebuild(&side.pool, &side.world, model, owner, |_| {}).await.unwrap();
}

async fn schemas(side: &Side) -> Vec<String> {
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'p\\_health%' ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&side.pool).await.unwrap()
}

#[tokio::test]
async fn a_build_that_is_called_off_is_no_death() {
    let side = side().await;
    busy(&side.world, 3, 3);
    side.catch_up().await;
    let cancel = CancellationToken::new();
    for _ in 0..4 {
        let cancel = cancel.child_token();
        let who = (ROLLUP, Uuid::from_u128(9));
        // In the middle of it, after the first people.
        let stop = |_| cancel.cancel();
        let built = rebuild_unless(&side.pool, &side.world, who, None, &cancel, stop).await;
        assert!(matches!(built, Err(ProjectorError::Cancelled { .. })));
    }
    let mut db = side.pool.acquire().await.unwrap();
    assert_eq!(generation::history(&mut db, ROLLUP).await.unwrap().unfinished, 0);
    assert_eq!(schemas(&side).await, ["p_health_rollup_g1"]);
}

#[tokio::test]
async fn dead_builds_leave_no_rows_but_are_counted_and_told() {
    let side = side().await;
    side.catch_up().await;
    let mut db = side.pool.acquire().await.unwrap();
    let states = async |db: &mut sqlx::PgConnection| -> Vec<String> {
        let listed = generation::list(db).await.unwrap();
        listed
            .into_iter()
            .filter(|one| one.projector == "health-rollup")
            .map(|one| one.state)
            .collect()
    };
    for _ in 0..2 {
        generation::create(&mut db, ROLLUP, 8).await.unwrap();
    }
    assert_eq!(states(&mut db).await, ["live", "building", "building"]);
    clear_dead(&side.pool, ROLLUP).await.unwrap();
    assert_eq!(states(&mut db).await, ["live", "died", "died"]);
    generation::create(&mut db, ROLLUP, 8).await.unwrap();
    clear_dead(&side.pool, ROLLUP).await.unwrap();
    assert_eq!(states(&mut db).await, ["live", "given up", "given up", "given up"]);
    assert_eq!(generation::history(&mut db, ROLLUP).await.unwrap().unfinished, 3);
    assert_eq!(schemas(&side).await, ["p_health_rollup_g1"]);
    // Asked for, it is tried; once it has worked, nothing is held against it.
    rebuild(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9), |_| {}).await.unwrap();
    assert_eq!(states(&mut db).await, ["retired", "live"]);
}

#[tokio::test]
async fn an_erasure_reaches_generations_that_nobody_carries_on() {
    let side = side().await;
    let (ann, ben) = (person(1), person(2));
    busy(&side.world, 3, 4);
    side.catch_up().await;
    for model in ReadModel::ALL {
        rebuild(&side.pool, &side.world, model, Uuid::from_u128(9), |_| {}).await.unwrap();
    }
    let retired = async |user: UserId| -> i64 {
        let sql = "SELECT (SELECT count(*) FROM p_health_rollup_g1.health_rollup_days
                           WHERE user_id = $1)
                        + (SELECT count(*) FROM p_entities_g1.entities
                           WHERE user_id = $1 AND purpose IS NOT NULL)";
        sqlx::query_scalar(sql).bind(user.0).fetch_one(&side.pool).await.unwrap()
    };
    let before = retired(ben).await;
    assert!(before > 0 && retired(ann).await > 0);
    for purpose in Purpose::ALL {
        side.world.erase(ann, purpose);
    }
    side.catch_up().await;
    assert_eq!((retired(ann).await, retired(ben).await), (0, before));
}
