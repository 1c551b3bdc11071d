//! A log with people in it.

use std::sync::Arc;

use aggregates::entity::{Context, Fields};
use aggregates::session::{Session, SessionCommand, SessionEvent};
use aggregates::{Metadata, Purpose, StreamId, UserId};
use serde_json::json;
use sqlx::PgPool;
use tidemark::commands::subject::create_keys;
use tidemark::keys::{CacheLimits, Keyring, MasterKey, PostgresKeyStore};
use tidemark::store::{Member, NewEvent, NewState, Op, Outcome, Store, StreamChange};
use tidemark::{clock, ids};

use crate::support::{self, TestDatabase};

/// An open log on a database of its own.
pub struct World {
    pub store: Store,
    pub database: TestDatabase,
    master: String,
}

impl World {
    pub async fn new() -> Self {
        let database = support::database().await;
        let master = "5e".repeat(32);
        let store = open(&database, &master).await;
        Self { store, database, master }
    }

    /// The same log as another process would open it.
    pub async fn another_process(&self) -> Store {
        open(&self.database, &self.master).await
    }

    /// As [`another_process`](Self::another_process), on connections of its own.
    pub async fn process_on(&self, pool: PgPool, appends: PgPool) -> Store {
        open_on(&self.database, &self.master, pool, appends).await
    }

    /// A new person with keys.
    pub async fn person(&self) -> UserId {
        let user = UserId(ids::new_id());
        let member = create_keys(&self.store, user, &metadata()).await.unwrap();
        assert!(matches!(self.store.append(member).await.unwrap(), Outcome::Appended { .. }));
        user
    }
}

async fn open(database: &TestDatabase, master: &str) -> Store {
    open_on(database, master, database.pool(), database.pool()).await
}

async fn open_on(database: &TestDatabase, master: &str, pool: PgPool, appends: PgPool) -> Store {
    let keys = PostgresKeyStore::open(database.keys_pool()).await.unwrap();
    let keyring =
        Keyring::new(Arc::new(keys), MasterKey::parse(master).unwrap(), CacheLimits::default());
    Store::open(pool, appends, keyring).await.unwrap()
}

pub fn metadata() -> Metadata {
    Metadata::owner(ids::new_id())
}

/// A new session with a note, as one member.
pub fn started(user: UserId, note: &str) -> Member {
    let now_ms = clock::now_ms();
    let fields: Fields = [
        ("clientSessionId".to_owned(), json!(ids::new_id().to_string())),
        ("sessionStartTimestamp".to_owned(), json!("2026-01-02T10:00:00.000Z")),
        ("notes".to_owned(), json!(note)),
    ]
    .into();
    let mut session = Session::default();
    let events = session.decide(SessionCommand::Start { fields }, &Context::now(now_ms)).unwrap();
    change(user, StreamId::new("session", ids::new_id()), 0, &mut session, events)
}

/// The events as a member on top of `expected`, with the state after them.
pub fn change(
    user: UserId,
    stream: StreamId,
    expected: i64,
    session: &mut Session,
    events: Vec<SessionEvent>,
) -> Member {
    let events: Vec<NewEvent> = events
        .into_iter()
        .map(|event| {
            session.fold(&event);
            NewEvent {
                event_id: ids::new_event_id(),
                event: event.into(),
                metadata: metadata(),
                recorded_at_ms: clock::now_ms(),
            }
        })
        .collect();
    let state = NewState {
        version: 1,
        json: serde_json::to_vec(session).unwrap(),
        purpose: Purpose::Activity,
    };
    Member {
        streams: vec![StreamChange {
            stream,
            user,
            expected,
            events,
            op: if expected == 0 { Op::Create } else { Op::Update },
            origin: None,
            state: Some(state),
        }],
        ..Member::default()
    }
}
