//! The checks find what is wrong, each kind of damage by itself.

use aggregates::entity::{Context, Fields};
use aggregates::session::{Session, SessionCommand};
use aggregates::{Metadata, Purpose, StreamId};
use tidemark::store::{Member, NewEvent, NewState, Op, Outcome, StreamChange};

use super::*;
use crate::world::World;

#[tokio::test]
async fn health_12_damage_beside_the_log_is_found() {
    let damages = [
        ("DELETE FROM health_segments WHERE lo_ms = 0", "is missing"),
        (
            "INSERT INTO health_segments SELECT user_id, lane, lo_ms - 1, hi_ms, n, segment_id, \
             version, ids_version, format, folds, cols_sealed, ids_sealed FROM health_segments \
             WHERE lo_ms = 0",
            "stored twice",
        ),
        ("UPDATE health_segments SET hi_ms = hi_ms - 1 WHERE lo_ms = 0", "ends elsewhere"),
        ("UPDATE health_segments SET n = n + 1 WHERE lo_ms = 0", "another number"),
        (
            "UPDATE health_segments SET folds = set_byte(folds, 0, 255 - get_byte(folds, 0))",
            "folds of other records",
        ),
        ("DELETE FROM health_tombstones", "tombstones are missing"),
        (
            "INSERT INTO health_tombstones SELECT user_id, '\\x00' FROM user_heads \
             WHERE health_seq > 0",
            "not in the log",
        ),
        ("UPDATE user_heads SET health_seq = health_seq + 1", "health_seq is 2"),
        ("UPDATE user_heads SET received_seq = received_seq + 1", "received_seq is 2"),
    ];
    let world = World::new().await;
    for (n, (damage, finding)) in damages.into_iter().enumerate() {
        let ann = world.person(&format!("ann-{n}")).await;
        let samples: Vec<Value> =
            (0..200).map(|n| heart_rate(&format!("r-{n}"), MARCH + n * MINUTE, 61)).collect();
        ann.upload(&samples, &[deletion("gone", None)]).await;
        let check = || verify_segments(&world.app.store, ann.user);
        assert_eq!(check().await.unwrap(), Vec::<String>::new());
        sqlx::query(damage).execute(&world.database.pool()).await.unwrap();
        let findings = check().await.unwrap();
        assert!(findings.iter().any(|found| found.contains(finding)), "{damage}: {findings:?}");
        for personal in ["r-1", "gone", "apple"] {
            assert!(!findings.concat().contains(personal), "{findings:?}");
        }
        // The next damage has a person of its own.
        for table in ["health_segments", "health_tombstones", "user_heads"] {
            let statement = format!("DELETE FROM {table} WHERE user_id = $1");
            let delete = sqlx::query(&statement).bind(ann.user.0);
            delete.execute(&world.database.pool()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_row_that_differs_from_the_log_is_found() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    ann.upload(&[heart_rate("r", MARCH, 61)], &[]).await;
    let pool = world.database.pool();
    sqlx::raw_sql("CREATE TABLE kept AS SELECT * FROM health_segments")
        .execute(&pool)
        .await
        .unwrap();
    ann.upload(&[heart_rate("r", MARCH, 62)], &[]).await;
    // An earlier version of the segment, as a lost update would leave it.
    sqlx::raw_sql("DELETE FROM health_segments; INSERT INTO health_segments SELECT * FROM kept")
        .execute(&pool)
        .await
        .unwrap();
    let findings = verify_segments(&world.app.store, ann.user).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains("differs"), "{findings:?}");
}

#[tokio::test]
async fn a_state_that_does_not_follow_from_its_events_is_found() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let store = &world.app.store;
    let fields: Fields = [
        ("clientSessionId".to_owned(), json!(ids::new_id().to_string())),
        ("sessionStartTimestamp".to_owned(), json!("2026-01-02T10:00:00.000Z")),
    ]
    .into();
    for right in [true, false] {
        let mut session = Session::default();
        let command = SessionCommand::Start { fields: fields.clone() };
        let events = session.decide(command, &Context::now(MARCH)).unwrap();
        if right {
            events.iter().for_each(|event| session.fold(event));
        }
        let new_event = |event| NewEvent {
            event_id: ids::new_event_id(),
            event: AnyEvent::from(event),
            metadata: Metadata::owner(ids::new_id()),
            recorded_at_ms: MARCH,
        };
        let member = Member {
            streams: vec![StreamChange {
                stream: StreamId::new("session", ids::new_id()),
                user: ann.user,
                expected: 0,
                events: events.into_iter().map(new_event).collect(),
                op: Op::Create,
                origin: None,
                state: Some(NewState {
                    version: tidemark::commands::load::ENTITY_STATE_VERSION,
                    json: serde_json::to_vec(&session).unwrap(),
                    purpose: Purpose::Activity,
                }),
            }],
            ..Member::default()
        };
        assert!(matches!(store.append(member).await.unwrap(), Outcome::Appended { .. }));
        let findings = verify_streams(store, ann.user).await.unwrap();
        assert_eq!(findings.len(), usize::from(!right), "{findings:?}");
    }
}
