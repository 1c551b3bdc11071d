//! Two server processes on one log, as behind a load balancer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::watch;
use uuid::Uuid;

use super::people::{Person, Shared};
use super::{PEOPLE, audit, begin, faults, finish};
use crate::dice::Dice;
use crate::served::{Served, command_on};
use crate::support::{DataDir, connect, database};

/// Leases last 15 seconds.
const LESS_THAN_A_LEASE: Duration = Duration::from_secs(10);

/// Who holds shards of projectors.
async fn holders(db: &mut PgConnection) -> BTreeSet<Uuid> {
    let query = "SELECT DISTINCT owner FROM projector.checkpoints \
                 WHERE owner IS NOT NULL AND lease_until > clock_timestamp()";
    sqlx::query_scalar(query).fetch_all(db).await.expect("owners").into_iter().collect()
}

/// Shards that nobody holds; at least one before there are any.
async fn unheld(db: &mut PgConnection) -> i64 {
    let query = "SELECT coalesce(nullif(count(*), 0) - count(owner), 1) FROM projector.checkpoints";
    sqlx::query_scalar(query).fetch_one(db).await.expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_leaves_its_work_to_the_other() {
    let directory = DataDir::new();
    let (data_dir, database) = (directory.path(), database().await);
    let mut db = connect(&database.log).await;
    let start = || Served::start_as(command_on(&data_dir, &database));
    let first = start();
    let mut dice = Dice::new(9);
    let people: Vec<Person> = (0..PEOPLE)
        .map(|n| first.client(&data_dir, &format!("person-{n}")))
        .map(|client| Person::new(client, Dice::new(dice.next())))
        .collect();
    // The first comes first.
    let began = Instant::now();
    while unheld(&mut db).await != 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "the first builds no read models");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let second = start();
    let bases = watch::Sender::new(vec![first.base.clone(), second.base.clone()]);
    let shared = Arc::new(Shared::new(bases.subscribe()));

    let writing = begin(people.into_iter(), &shared);
    shared.until_answered(5 * PEOPLE as u64).await;
    let before = holders(&mut db).await;
    assert_eq!(before.len(), 1);
    first.kill();
    // Whoever asks the dead one finds nobody there, and asks the other under the same id.
    shared.until_answered(2 * PEOPLE as u64).await;
    faults::end_all_leases(&mut db).await;
    let began = Instant::now();
    while holders(&mut db).await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody takes the shards");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(holders(&mut db).await.is_disjoint(&before));

    // Its successor joins the survivor, who keeps the shards.
    let third = start();
    bases.send_replace(vec![second.base.clone(), third.base.clone()]);
    shared.until_answered(2 * PEOPLE as u64).await;
    let people = finish(writing, &shared).await;
    let keeps = holders(&mut db).await;
    assert_eq!(keeps.len(), 1);
    for base in [&second.base, &third.base] {
        audit::audit(&database.log, command_on(&data_dir, &database), base, &people).await;
    }
    // Who stops in good order leaves no lease behind: the other one need not wait until it ends.
    second.stop();
    let began = Instant::now();
    loop {
        let now = holders(&mut db).await;
        if !now.is_empty() && now.is_disjoint(&keeps) {
            break;
        }
        assert!(began.elapsed() < LESS_THAN_A_LEASE, "the shards were not given up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    third.stop();
}
