//! Content is shown to others than its owner only after the log says so.

use aggregates::access::{AccessEvent, Revealed};
use aggregates::{Actor, AnyEvent, Content, Purpose};
use tidemark::commands::access::{Readability, Reader, RevealError, Scope, readability, reveal};
use tidemark::commands::subject::shred;
use tidemark::store::{Filter, RawEvent, read};

use crate::world::{World, metadata, started};

fn reader(reason: &str) -> Reader {
    Reader { by: "ada@desk".to_owned(), channel: "cli", reason: reason.to_owned() }
}

async fn raw(world: &World) -> Vec<RawEvent> {
    read::raw_page(world.store.pool(), 0, i64::MAX, 100, &Filter::default()).await.unwrap()
}

#[tokio::test]
async fn who_reads_is_recorded_for_each_person_concerned_before_anything_is_opened() {
    let world = World::new().await;
    let (one, two, other) = (world.person().await, world.person().await, world.person().await);
    for user in [one, two, one] {
        world.store.append(started(user, "private")).await.unwrap();
    }
    let before = raw(&world).await;
    let opened =
        reveal(&world.store, before.clone(), Scope::Events, &reader("ticket 7")).await.unwrap();
    assert_eq!(opened.len(), before.len());
    assert!(opened.iter().all(|event| event.event().is_some()));

    let after = world.store.page(12, i64::MAX, 10, &Filter::default()).await.unwrap();
    let mut recorded = Vec::new();
    for event in &after {
        let Content::Open { event: content, metadata } = &event.content else { panic!("open") };
        assert_eq!(metadata.actor, Actor::Staff { subject: "ada@desk".to_owned() });
        let AnyEvent::Access(access) = &**content else { panic!("an access") };
        let AccessEvent::Revealed(access) = &**access;
        assert_eq!((access.by.as_str(), access.reason.as_str()), ("ada@desk", "ticket 7"));
        let Revealed::Positions { positions } = &access.what else { panic!("positions") };
        recorded.push((event.user, positions.clone()));
    }
    recorded.sort();
    let mut expected = vec![(one, vec![10, 12]), (two, vec![11])];
    expected.sort();
    assert_eq!(recorded, expected);
    assert!(recorded.iter().all(|(user, _)| *user != other), "nothing of theirs was sealed");
    let stored = raw(&world).await;
    let sealed = |event: &RawEvent| event.sealed.is_some() && !event.payload.contains("ticket");
    assert!(stored[12..].iter().all(sealed), "the record itself is the person's alone");
}

#[tokio::test]
async fn without_a_reason_nothing_is_opened_and_nothing_recorded() {
    let world = World::new().await;
    let user = world.person().await;
    world.store.append(started(user, "private")).await.unwrap();
    let refused = reveal(&world.store, raw(&world).await, Scope::Events, &reader(" ")).await;
    assert!(matches!(refused, Err(RevealError::Refused(_))));
    assert_eq!(world.store.head().await.unwrap().position, 4);
}

#[tokio::test]
async fn what_was_shredded_stays_shredded() {
    let world = World::new().await;
    let user = world.person().await;
    world.store.append(started(user, "private")).await.unwrap();
    let sealed = raw(&world).await.swap_remove(3);
    assert_eq!(readability(&world.store, &sealed).await.unwrap(), Readability::Sealed);
    shred(&world.store, user, &[Purpose::Activity], "drill", &metadata()).await.unwrap();
    assert_eq!(readability(&world.store, &sealed).await.unwrap(), Readability::Shredded);
    let opened = reveal(&world.store, vec![sealed.clone()], Scope::Stream, &reader("why")).await;
    assert_eq!(opened.unwrap()[0].content, Content::Shredded);
    // With the identity gone there is nobody to account to: nothing of theirs is opened at all.
    shred(&world.store, user, &[Purpose::Identity], "drill", &metadata()).await.unwrap();
    let head = world.store.head().await.unwrap().position;
    let opened = reveal(&world.store, raw(&world).await, Scope::Events, &reader("why")).await;
    let shredded = opened.unwrap().iter().filter(|e| e.content == Content::Shredded).count();
    assert_eq!(shredded, 2, "the session and the access; the facts about keys stay readable");
    assert_eq!(world.store.head().await.unwrap().position, head);
}
