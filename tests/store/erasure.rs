//! Shredding a person.

use aggregates::{Content, Purpose};
use tidemark::commands::subject::{finish_erasures, shred};
use tidemark::store::{AppendError, Filter, Outcome};

use crate::world::{World, metadata, started};

#[tokio::test]
async fn a_shredded_person_is_gone_and_everybody_else_is_as_before() {
    let world = World::new().await;
    let (gone, stays) = (world.person().await, world.person().await);
    let leaving = started(gone, "leaving");
    let stream = leaving.streams[0].stream.clone();
    for member in [leaving, started(stays, "staying")] {
        world.store.append(member).await.unwrap();
    }
    let head = world.store.head().await.unwrap().position;
    let others = Filter { user: Some(stays), ..Filter::default() };
    let before = world.store.page(0, head, 100, &others).await.unwrap();
    let leaves = "SELECT leaf_hash FROM events WHERE position <= $1 ORDER BY position";
    let leaves_before: Vec<Vec<u8>> =
        sqlx::query_scalar(leaves).bind(head).fetch_all(world.store.pool()).await.unwrap();

    shred(&world.store, gone, &Purpose::ALL, "drill", &metadata()).await.unwrap();
    // A second call finishes what a crash would have left, and changes nothing else.
    shred(&world.store, gone, &Purpose::ALL, "drill", &metadata()).await.unwrap();

    let after = world.store.page(0, head, 100, &others).await.unwrap();
    assert_eq!(before, after);
    let leaves_after: Vec<Vec<u8>> =
        sqlx::query_scalar(leaves).bind(head).fetch_all(world.store.pool()).await.unwrap();
    assert_eq!(leaves_before, leaves_after, "not a byte of the log has changed");

    let theirs = Filter { user: Some(gone), ..Filter::default() };
    for recorded in world.store.page(0, i64::MAX, 100, &theirs).await.unwrap() {
        let personal = recorded.stream.aggregate_type != "subject";
        assert_eq!(recorded.content == Content::Shredded, personal, "{}", recorded.event_type);
    }
    assert_eq!(world.store.heads(&[stream]).await.unwrap(), vec![]);

    // A process that had the key in its cache cannot write with it either.
    let other = world.another_process().await;
    let refused = other.append(started(gone, "late")).await;
    assert!(matches!(refused, Ok(Outcome::Refused) | Err(AppendError::Key(_))), "{refused:?}");
}

/// The key was cached before it was destroyed elsewhere: the head lock decides, not the cache.
#[tokio::test]
async fn a_cached_key_does_not_outlive_its_destruction() {
    let world = World::new().await;
    let other = world.another_process().await;
    let user = world.person().await;
    assert!(matches!(other.append(started(user, "warm")).await, Ok(Outcome::Appended { .. })));
    shred(&world.store, user, &[Purpose::Activity], "drill", &metadata()).await.unwrap();
    let late = other.append(started(user, "late")).await;
    assert_eq!(late.unwrap(), Outcome::Refused);
    let head = world.store.head().await.unwrap().position;
    assert_eq!(head, 5, "three keys, one session, one destruction");
}

/// The process died after the destruction was recorded: nothing else had happened yet.
#[tokio::test]
async fn an_interrupted_erasure_is_carried_through_without_being_asked_again() {
    let world = World::new().await;
    let user = world.person().await;
    let member = started(user, "left behind");
    let stream = member.streams[0].stream.clone();
    world.store.append(member).await.unwrap();
    sqlx::query("UPDATE subjects SET status = 2 WHERE user_id = $1")
        .bind(user.0)
        .execute(world.store.pool())
        .await
        .unwrap();
    world.store.subjects().invalidate(user).await;
    assert_eq!(world.store.heads(std::slice::from_ref(&stream)).await.unwrap().len(), 1);
    assert_eq!(world.store.sealer().keyring().of_user(user).await.unwrap().len(), 3);

    assert_eq!(finish_erasures(&world.store).await.unwrap(), 3);
    assert_eq!(world.store.heads(&[stream]).await.unwrap(), vec![]);
    assert_eq!(world.store.sealer().keyring().of_user(user).await.unwrap().len(), 0);
    assert_eq!(finish_erasures(&world.store).await.unwrap(), 0, "and it is done once");
}
