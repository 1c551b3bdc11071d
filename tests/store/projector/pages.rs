//! Pages of the real log are bounded by bytes as well as by count.

use aggregates::StreamId;
use aggregates::entity::Edit;
use aggregates::session::{SessionEvent, SessionStarted};
use serde_json::json;
use tidemark::commands::events_of;
use tidemark::ids;
use tidemark::projector::{LogReader, StoreSource};
use tidemark::store::{Member, Op, Outcome, StreamChange};

use crate::world::{World, metadata};

#[tokio::test]
async fn large_events_make_small_pages_and_none_is_left_out() {
    let world = World::new().await;
    let user = world.person().await;
    for _ in 0..24 {
        // Random, so that it cannot be packed small.
        let note: String = (0..15_000).map(|_| ids::new_id().to_string()).collect();
        let fields = [("notes".to_owned(), json!(note))].into();
        let edit = Edit { at_ms: 1, edited_at_ms: 1, origin: None };
        let started = SessionEvent::Started(SessionStarted { fields, ended_at_ms: None, edit });
        let change = StreamChange {
            stream: StreamId::new("session", ids::new_id()),
            user,
            expected: 0,
            events: events_of([started], &metadata()),
            op: Op::Create,
            origin: None,
            state: None,
        };
        let member = Member { streams: vec![change], ..Member::default() };
        let outcome = world.store.append(member).await.unwrap();
        assert!(matches!(outcome, Outcome::Appended { .. }));
    }
    let source = StoreSource(world.store.clone());
    let head = source.head().await.unwrap();
    for of_user in [false, true] {
        let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
        while after < head {
            let page = match of_user {
                false => source.page(after, 500).await.unwrap(),
                true => source.user_page(user, after, head, 500).await.unwrap(),
            };
            assert!(page.events.len() < 24);
            seen.extend(page.events.iter().map(|event| event.position));
            assert!(page.through > after);
            after = page.through;
            pages += 1;
        }
        assert_eq!(seen, (1..=head).collect::<Vec<_>>());
        assert!(pages > 1);
    }
    let unopened = source.unopened(0, 5, "died").await.unwrap();
    assert_eq!((unopened.events.len(), unopened.unreadable.len(), unopened.through), (0, 5, 5));
}
