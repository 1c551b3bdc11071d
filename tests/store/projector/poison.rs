//! Events that cannot be projected: found to the event, out of everybody else's way, skipped for good.

use super::*;

const ROLLUP: ReadModel = ReadModel::HealthRollup;
const NAME: &str = "health-rollup";

/// Rows, and where who is parked: all that a rebuild has to repeat.
async fn picture(side: &Side, users: &[UserId]) -> Vec<(Vec<String>, Option<i64>, State)> {
    let mut all = Vec::new();
    for user in users {
        let parked = side.parked_at(ROLLUP, *user).await;
        all.push((side.content(*user).await, parked, side.state(*user).await));
    }
    all
}

async fn assert_rebuild_repeats(side: &Side, users: &[UserId]) {
    let before = picture(side, users).await;
    rebuild(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9), |_| {}).await.unwrap();
    assert_eq!(picture(side, users).await, before);
}

#[tokio::test]
async fn a_failing_page_is_narrowed_down_to_the_event() {
    for poison in [Poison::Event as fn(i64) -> Poison, |_| Poison::Record(35)] {
        let side = side().await;
        let (ill, well) = (person(1), person(9));
        let mut broken = 0;
        for slot in 0..12 {
            side.world.steps(ill, 5 * slot, 1, 60);
            if slot == 7 {
                broken = side.world.head_now();
            }
            side.world.steps(well, slot, 1, 60);
        }
        let poison = poison(broken);
        side.world.poison(ill, Some(poison));
        side.catch_up().await;
        assert_eq!(side.parked_at(ROLLUP, ill).await, Some(broken), "{poison:?}");
        assert_eq!(side.sums(ill).await, vec![Some(1); 7], "what came before is there");
        assert_eq!(side.days(ill).await.progress.position, broken - 1);
        assert_eq!(side.days(ill).await.progress.watermark(), "7");
        assert_eq!(side.state(ill).await, State::Failed);
        assert_eq!(side.state(well).await, State::Ready);
        if poison == Poison::Event(broken) {
            assert_rebuild_repeats(&side, &[ill, well]).await;
        }
    }
}

#[tokio::test]
async fn current_state_ahead_of_a_parked_person_does_not_show() {
    let side = side().await;
    let ill = person(1);
    side.world.steps(ill, 0, 1, 60);
    side.world.steps(ill, 1, 5, 60);
    // The same record again, in an event that nobody can read: state has it, the rows must not.
    side.world.steps(ill, 0, 9, 60);
    side.world.poison(ill, Some(Poison::Event(3)));
    side.catch_up().await;
    assert_eq!(side.parked_at(ROLLUP, ill).await, Some(3));
    assert_eq!(side.sums(ill).await, [Some(6)]);
    assert_rebuild_repeats(&side, &[ill]).await;
}

#[tokio::test]
async fn rows_that_are_refused_are_narrowed_down_to_the_event() {
    let side = side().await;
    let (ill, well) = (person(1), person(2));
    side.live(ROLLUP).await;
    side.run(
        "ALTER TABLE p_health_rollup_g1.health_rollup_days ADD CHECK (sum_val IS DISTINCT FROM 13)",
    )
    .await;
    for value in [3, 5, 13, 4] {
        side.world.steps(ill, 0, value, 60);
        side.world.steps(well, 0, value, 60);
        side.world.steps(well, 0, 7, 60);
    }
    side.catch_up().await;
    // The day ends at 4, so the page as a whole goes in; on the way it does not.
    assert_eq!((side.sums(ill).await, side.parked_at(ROLLUP, ill).await), (vec![Some(4)], None));
    side.world.steps(ill, 8, 1, 60);
    side.world.steps(ill, 16, 13, 60);
    let broken = side.world.head_now();
    side.world.steps(ill, 24, 1, 60);
    side.catch_up().await;
    assert_eq!(side.parked_at(ROLLUP, ill).await, Some(broken));
    assert_eq!(side.sums(ill).await, [Some(4), Some(1)]);
    assert_eq!(side.state(well).await, State::Ready);
}

#[tokio::test]
async fn a_skip_is_an_event_that_every_rebuild_repeats() {
    let side = side().await;
    let (ill, well) = (person(1), person(9));
    let mut positions = Vec::new();
    for slot in 0..6 {
        side.world.steps(ill, 4 * slot, 1 + slot, 60);
        positions.push(side.world.head_now());
        side.world.steps(well, slot, 1, 60);
    }
    side.world.poison(ill, Some(Poison::Event(positions[2])));
    side.catch_up().await;
    assert_eq!(side.parked_at(ROLLUP, ill).await, Some(positions[2]));

    side.world.skip(ill, "entities", positions[2]);
    side.catch_up().await;
    assert_eq!(side.parked_at(ROLLUP, ill).await, Some(positions[2]), "another projector's skip");
    side.world.skip(ill, NAME, positions[2]);
    side.catch_up().await;
    assert_eq!(side.parked_at(ROLLUP, ill).await, None);
    let without_the_third = [Some(1), Some(2), Some(4), Some(5), Some(6)];
    assert_eq!(side.sums(ill).await, without_the_third);

    // Nothing says that this is all there is.
    assert_eq!(side.state(ill).await, State::Partial);
    let page = side.days(ill).await;
    for day in &page.days {
        assert_eq!(page.worth(day).quality(), DataQuality::PartialTruncated);
        assert_eq!(page.freshness(day, side.heard(ill)).status, Status::Ready);
    }
    assert_eq!(side.state(well).await, State::Ready);
    side.assert_verified().await;
    assert_rebuild_repeats(&side, &[ill, well]).await;

    // Later events go on from there, although current state has what was skipped.
    side.world.steps(ill, 9, 50, 60);
    side.catch_up().await;
    assert_eq!(side.sums(ill).await.len(), 6);
    side.assert_verified().await;
    // What is skipped stays skipped, mended or not.
    side.world.poison(ill, None);
    side.world.steps(ill, 20, 70, 60);
    side.catch_up().await;
    assert_eq!(side.sums(ill).await[..2], without_the_third[..2]);
    assert_rebuild_repeats(&side, &[ill, well]).await;
    side.assert_verified().await;
}

#[tokio::test]
async fn a_day_emptied_by_a_skip_is_not_called_empty() {
    let side = side().await;
    let ill = person(1);
    side.world.steps(ill, 0, 1, 60);
    side.world.poison(ill, Some(Poison::Event(1)));
    side.catch_up().await;
    side.world.skip(ill, NAME, 1);
    side.catch_up().await;
    assert_eq!(side.sums(ill).await, []);
    assert_eq!(side.state(ill).await, State::Partial);
}

#[tokio::test]
async fn one_skip_leads_to_the_next_poison() {
    let side = side().await;
    let ill = person(1);
    for slot in 0..4 {
        side.world.steps(ill, 4 * slot, 1 + slot, 60);
    }
    side.world.poison(ill, Some(Poison::Event(2)));
    side.catch_up().await;
    side.world.poison(ill, Some(Poison::Event(3)));
    side.world.skip(ill, NAME, 2);
    side.catch_up().await;
    assert_eq!(side.parked_at(ROLLUP, ill).await, Some(3));
    assert_eq!((side.sums(ill).await, side.state(ill).await), (vec![Some(1)], State::Failed));
    assert_rebuild_repeats(&side, &[ill]).await;
    // Mended instead of skipped: freed, and still without the second.
    side.world.poison(ill, None);
    assert_eq!(retry(&side.pool, &side.world, ROLLUP, Some(person(2))).await.unwrap(), (0, 0));
    assert_eq!(retry(&side.pool, &side.world, ROLLUP, Some(ill)).await.unwrap(), (1, 0));
    assert_eq!(side.sums(ill).await, [Some(1), Some(3), Some(4)]);
    assert_rebuild_repeats(&side, &[ill]).await;
}

#[tokio::test]
async fn an_erasure_reaches_who_is_parked_and_who_goes_on_without_an_event() {
    let side = side().await;
    let (parked, partial) = (person(1), person(2));
    for user in [parked, partial] {
        side.world.steps(user, 0, 1, 60);
        side.world.steps(user, 4, 2, 60);
        side.world.poison(user, Some(Poison::Event(side.world.head_now())));
    }
    side.catch_up().await;
    side.world.skip(partial, NAME, 4);
    side.catch_up().await;
    assert_eq!((side.sums(parked).await.len(), side.sums(partial).await.len()), (1, 1));
    side.world.erase(parked, Purpose::Health);
    side.world.erase(partial, Purpose::Health);
    side.catch_up().await;
    assert_eq!(side.bytes(parked).await, Vec::<String>::new());
    assert_eq!(side.bytes(partial).await, Vec::<String>::new());
    rebuild(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9), |_| {}).await.unwrap();
    assert_eq!(side.bytes(parked).await, Vec::<String>::new());
}

/// Lets a worker catch up; answers whether it lived. One that dies leaves everything as it is.
async fn lives(side: &Side, owner: u128) -> bool {
    let mut worker = side.worker(owner);
    let lived = tokio::select! {
        caught_up = worker.catch_up(side.world.head_now()) => caught_up.unwrap(),
        () = side.world.killed() => false,
    };
    match lived {
        true => worker.stop().await.unwrap(),
        // As if it had been some time ago.
        false => side.run("UPDATE projector.checkpoints SET lease_until = now()").await,
    }
    lived
}

#[tokio::test]
async fn an_event_that_kills_is_counted_before_it_is_handled() {
    for kills in [Poison::Deadly(20), Poison::DeadlyState] {
        let side = side().await;
        let (ill, well) = (person(1), person(9));
        for slot in 0..19 {
            side.world.steps(well, slot, 1, 60);
        }
        side.world.steps(ill, 0, 5, 60);
        side.world.steps(well, 0, 4, 60);
        side.world.poison(ill, Some(kills));
        let mut deaths = 0;
        while !lives(&side, 100 + deaths).await {
            deaths += 1;
            assert!(deaths < 12, "it never ends");
        }
        // With a page of many, on the way to the event, and three times with the event alone.
        assert_eq!(deaths, 5);
        let parked = tidemark::projector::repair::parked(&side.pool, ROLLUP).await.unwrap();
        assert_eq!((parked.len(), parked[0].position, &*parked[0].error), (1, 20, "died"));
        assert_eq!(side.state(well).await, State::Ready, "everybody else is through");
        assert_eq!(side.parked_at(ReadModel::Entities, ill).await, None);
        // A rebuild does not try it either.
        rebuild(&side.pool, &side.world, ROLLUP, Uuid::from_u128(9), |_| {}).await.unwrap();
        assert_eq!(side.parked_at(ROLLUP, ill).await, Some(20));
        // Whoever mended it says so.
        side.world.poison(ill, None);
        assert_eq!(retry(&side.pool, &side.world, ROLLUP, None).await.unwrap(), (1, 0));
        assert_eq!(side.sums(ill).await, [Some(5)]);
        side.catch_up().await;
        side.assert_verified().await;
    }
}

#[tokio::test]
async fn an_event_that_kills_is_not_opened_for_who_goes_on_without_another() {
    let side = side().await;
    let ill = person(1);
    for slot in 0..4 {
        side.world.steps(ill, 4 * slot, 1 + slot, 60);
    }
    side.world.poison(ill, Some(Poison::Event(2)));
    side.catch_up().await;
    side.world.skip(ill, NAME, 2);
    side.catch_up().await;
    let before = side.bytes(ill).await;
    assert_eq!(side.state(ill).await, State::Partial);

    side.world.steps(ill, 30, 9, 60);
    let deadly = side.world.head_now();
    side.world.poison(ill, Some(Poison::Deadly(deadly)));
    let mut deaths = 0;
    while !lives(&side, 100 + deaths).await {
        deaths += 1;
        assert!(deaths < 12, "it never ends");
    }
    assert_eq!(side.parked_at(ROLLUP, ill).await, Some(deadly));
    assert_eq!(side.content(ill).await.len(), before.len(), "what was there stays");
}

#[tokio::test]
async fn workers_that_come_and_go_without_work_are_no_suspects() {
    let side = side().await;
    side.world.steps(person(1), 0, 1, 60);
    side.catch_up().await;
    let attempts = async || -> i32 {
        let sql = "SELECT max(attempts) FROM projector.checkpoints";
        sqlx::query_scalar(sql).fetch_one(&side.pool).await.unwrap()
    };
    for owner in 2..8 {
        // Killed while it had nothing to do.
        let mut worker = side.worker(owner);
        worker.step().await.unwrap();
        assert_eq!(attempts().await, 0);
        drop(worker);
        side.run("UPDATE projector.checkpoints SET lease_until = NULL").await;
    }
    // Killed before it had done anything, which is counted until the next one has.
    let live = side.live(ROLLUP).await;
    let mut db = side.pool.acquire().await.unwrap();
    let held = checkpoint::claim(&mut db, &live, Uuid::from_u128(50), 60.0).await.unwrap();
    assert_eq!(held[0].attempts, 1);
    let again = checkpoint::claim(&mut db, &live, Uuid::from_u128(50), 60.0).await.unwrap();
    assert_eq!(again[0].attempts, 1, "who renews is not counted again");
    checkpoint::release(&mut db, &live, Uuid::from_u128(50)).await.unwrap();
    assert_eq!(attempts().await, 0, "who stops in good order has not died");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_while_a_page_is_worked_on() {
    let side = side().await;
    let user = person(1);
    side.world.steps(user, 0, 1, 60);
    side.world.poison(user, Some(Poison::DeadlyState));
    let mut worker = side.worker(1).with_lease_seconds(0.3);
    let slow = tokio::spawn(async move { worker.step().await });
    let leases = async || -> Option<f64> {
        let sql = "SELECT min(extract(epoch FROM lease_until)::float8) FROM projector.checkpoints
                   WHERE projector = 'health-rollup' AND owner IS NOT NULL";
        sqlx::query_scalar(sql).fetch_one(&side.pool).await.unwrap()
    };
    let first = loop {
        if let Some(until) = leases().await {
            break until;
        }
    };
    // Two leases long nobody else gets a shard.
    while leases().await.unwrap() < first + 0.6 {
        let mut db = side.pool.acquire().await.unwrap();
        let live = side.live(ROLLUP).await;
        let held = checkpoint::claim(&mut db, &live, Uuid::from_u128(2), 60.0).await.unwrap();
        assert_eq!(held, []);
    }
    slow.abort();
}

#[tokio::test]
async fn a_page_that_was_lost_comes_back_smaller() {
    let side = side().await;
    let user = person(1);
    let mut worker = side.worker(1);
    worker.step().await.unwrap();
    side.world.steps(user, 0, 1, 60);
    side.run("UPDATE projector.checkpoints SET fence = fence + 1").await;
    let error = worker.step().await.unwrap_err();
    assert!(matches!(error, ProjectorError::Lost { .. }));
    side.world.poison(user, Some(Poison::Away));
    for _ in 0..2 {
        assert!(worker.step().await.unwrap_err().is_transient());
    }
    side.world.poison(user, None);
    for _ in 0..5 {
        worker.step().await.unwrap();
    }
    assert_eq!(side.world.limits(), [500, 500, 250, 125, 62, 124, 248, 496, 500]);
    assert_eq!(side.state(user).await, State::Ready);
}
