//! The other sides: postgres-es as published on its own tables, and bare SQL.
//!
//! They share the cluster with us, each in a schema of its own, and get our pools' settings: no
//! ping before a connection is used, which their defaults would have.

use std::sync::Arc;

use aggregates::entity::Context;
use aggregates::session::{Session, SessionCommand, SessionError, SessionEvent};
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tidemark::postgres::{PoolSettings, pool};
use tidemark::{clock, ids};

use super::load::Worker;
use super::script::{self, BATCH, COMMANDS_PER_SESSION};

/// postgres-es's own tables, then the plainest event table that keeps a global order.
const TABLES: &str = "
CREATE SCHEMA vanilla;
CREATE TABLE vanilla.events (
    aggregate_type text NOT NULL,
    aggregate_id   text NOT NULL,
    sequence       bigint CHECK (sequence >= 0) NOT NULL,
    event_type     text NOT NULL,
    event_version  text NOT NULL,
    payload        json NOT NULL,
    metadata       json NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
);
CREATE SCHEMA raw;
CREATE TABLE raw.events (
    position   bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    stream_id  uuid NOT NULL,
    sequence   bigint NOT NULL,
    event_type text NOT NULL,
    payload    json NOT NULL,
    metadata   json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream_id, sequence)
);";

const INSERT_ONE: &str = "INSERT INTO raw.events (stream_id, sequence, event_type, payload, metadata) \
     VALUES ($1, $2, $3, $4::text::json, $5::text::json)";
const INSERT_MANY: &str = "INSERT INTO raw.events (stream_id, sequence, event_type, payload, metadata) \
     SELECT $1, s, t, p::json, m::json \
     FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) AS w(s, t, p, m)";

/// The tables and connections of the other sides.
pub struct Peers {
    pub vanilla: PgPool,
    pub raw: PgPool,
}

impl Peers {
    /// With as many connections as writers, so that none waits for one.
    pub async fn new(log: &PgConnectOptions, writers: u32) -> Self {
        let theirs = |name| PoolSettings {
            generic_plans: false,
            ..PoolSettings::interactive(name, writers)
        };
        let raw = pool(log, &theirs("bench-raw"));
        sqlx::raw_sql(TABLES).execute(&raw).await.expect("tables");
        let vanilla = log.clone().options([("search_path", "vanilla")]);
        let vanilla = pool(&vanilla, &theirs("bench-postgres-es"));
        Self { vanilla, raw }
    }

    pub fn framework<A: Aggregate<Services = Context>>(&self) -> Arc<PostgresCqrs<A>> {
        Arc::new(postgres_cqrs(self.vanilla.clone(), Vec::new(), Context::now(clock::now_ms())))
    }
}

/// A person of postgres-es who gives one command after another.
pub struct EsCommander {
    framework: Arc<PostgresCqrs<Session>>,
    id: String,
    nth: usize,
}

impl EsCommander {
    pub fn new(framework: Arc<PostgresCqrs<Session>>) -> Self {
        Self { framework, id: String::new(), nth: 0 }
    }
}

impl Worker for EsCommander {
    async fn step(&mut self) -> bool {
        let nth = self.nth % COMMANDS_PER_SESSION;
        if nth == 0 {
            self.id = ids::new_id().to_string();
        }
        self.nth += 1;
        self.framework.execute(&self.id, script::command(nth)).await.expect("a sound command");
        true
    }
}

/// A session that takes many commands as one, so that one command makes many events.
#[derive(Default, Serialize, Deserialize)]
pub struct Bulk(Session);

impl Aggregate for Bulk {
    const TYPE: &'static str = "session";
    type Command = Vec<SessionCommand>;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = Context;

    async fn handle(
        &mut self,
        commands: Vec<SessionCommand>,
        context: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for command in commands {
            for event in self.0.decide(command, context)? {
                sink.write(event, self).await;
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        self.0.fold(&event);
    }
}

/// A person of postgres-es whose every command makes a thousand events on a new stream.
pub struct EsImporter(pub Arc<PostgresCqrs<Bulk>>);

impl Worker for EsImporter {
    async fn step(&mut self) -> bool {
        let id = ids::new_id().to_string();
        self.0.execute(&id, script::batch()).await.expect("a sound command");
        true
    }
}

/// Writes finished rows one by one, each its own transaction: nothing is loaded or decided.
pub struct RawWriter {
    pool: PgPool,
    stream: uuid::Uuid,
    nth: usize,
    rows: Arc<Rows>,
}

/// Finished rows of the same events as the other sides write.
pub struct Rows {
    types: Vec<String>,
    payloads: Vec<String>,
    metadata: Vec<String>,
}

impl Rows {
    pub fn prepared() -> Arc<Self> {
        let (mut session, context) = (Session::default(), Context::now(clock::now_ms()));
        let mut rows = Self { types: Vec::new(), payloads: Vec::new(), metadata: Vec::new() };
        for command in script::batch() {
            for event in session.decide(command, &context).expect("a sound command") {
                session.fold(&event);
                rows.types.push(event.event_type());
                rows.payloads.push(serde_json::to_string(&event).expect("an event is JSON"));
                rows.metadata.push("{}".to_owned());
            }
        }
        assert_eq!(rows.types.len(), BATCH);
        Arc::new(rows)
    }

    /// Bytes of an average payload.
    pub fn payload_bytes(&self) -> usize {
        self.payloads.iter().map(String::len).sum::<usize>() / self.payloads.len()
    }
}

impl RawWriter {
    pub fn new(pool: &PgPool, rows: &Arc<Rows>) -> Self {
        Self { pool: pool.clone(), stream: ids::new_id(), nth: 0, rows: Arc::clone(rows) }
    }
}

impl Worker for RawWriter {
    async fn step(&mut self) -> bool {
        let nth = self.nth % COMMANDS_PER_SESSION;
        if nth == 0 {
            self.stream = ids::new_id();
        }
        self.nth += 1;
        sqlx::query(INSERT_ONE)
            .bind(self.stream)
            .bind(i64::try_from(nth + 1).expect("a small number"))
            .bind(&self.rows.types[nth])
            .bind(&self.rows.payloads[nth])
            .bind(&self.rows.metadata[nth])
            .execute(&self.pool)
            .await
            .expect("an insert");
        true
    }
}

/// Writes a thousand finished rows in one statement.
pub struct RawImporter {
    pub pool: PgPool,
    pub rows: Arc<Rows>,
}

impl Worker for RawImporter {
    async fn step(&mut self) -> bool {
        let sequences: Vec<i64> = (1..).take(BATCH).collect();
        sqlx::query(INSERT_MANY)
            .bind(ids::new_id())
            .bind(sequences)
            .bind(&self.rows.types)
            .bind(&self.rows.payloads)
            .bind(&self.rows.metadata)
            .execute(&self.pool)
            .await
            .expect("an insert");
        true
    }
}
