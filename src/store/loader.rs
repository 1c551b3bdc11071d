//! Group reads: what commands ask for at the same moment travels in one statement.
//!
//! A look-up by key takes a few microseconds; carrying it to Postgres and back takes many times
//! that. While one statement is under way, whoever comes waits for the next and shares it.

use std::collections::HashMap;

use aggregates::StreamId;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use super::kept::Kept;
use super::streams::{HEADS, StreamHead};

/// Requests of one statement.
const MAX_REQUESTS: usize = 256;
/// Who asks for more streams than this has a statement of their own.
const MAX_STREAMS: usize = 32;
/// Requests that may wait; past it each goes its own way.
const QUEUE: usize = 4096;

struct Request {
    streams: Vec<StreamId>,
    /// None where the shared statement failed.
    answer: oneshot::Sender<Option<Vec<StreamHead>>>,
}

/// Reads heads of streams. Clones share the statements.
#[derive(Clone)]
pub(super) struct Loader {
    pool: PgPool,
    queue: mpsc::Sender<Request>,
}

impl Loader {
    /// Starts the task that carries requests, on a connection of this pool.
    pub fn start(pool: &PgPool) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        tokio::spawn(carry(pool.clone(), requests));
        Self { pool: pool.clone(), queue }
    }

    /// Heads of the given streams, in no particular order; absent streams are left out.
    pub async fn heads(&self, streams: &[StreamId]) -> Result<Vec<StreamHead>, sqlx::Error> {
        if streams.len() <= MAX_STREAMS {
            let (answer, heads) = oneshot::channel();
            let request = Request { streams: streams.to_vec(), answer };
            if self.queue.try_send(request).is_ok()
                && let Ok(Some(heads)) = heads.await
            {
                return Ok(heads);
            }
        }
        // An error of the shared statement is everybody's; asked alone, each gets an own answer.
        read(&mut *self.pool.acquire().await?, streams.iter()).await
    }
}

async fn carry(pool: PgPool, mut requests: mpsc::Receiver<Request>) {
    let mut taken = Vec::new();
    let mut connection = Kept::of(pool);
    loop {
        let received = tokio::select! {
            received = requests.recv_many(&mut taken, MAX_REQUESTS) => received,
            () = connection.closing() => 0,
        };
        if received == 0 {
            return;
        }
        let streams = || taken.iter().flat_map(|request| &request.streams);
        let heads = connection.run(async |connection| read(connection, streams()).await).await.ok();
        let heads: Option<HashMap<StreamId, StreamHead>> =
            heads.map(|heads| heads.into_iter().map(|head| (head.stream.clone(), head)).collect());
        for Request { streams, answer } in taken.drain(..) {
            let own = |heads: &HashMap<StreamId, StreamHead>| {
                streams.iter().filter_map(|stream| heads.get(stream).cloned()).collect()
            };
            // Who asked may have gone.
            let _ = answer.send(heads.as_ref().map(own));
        }
    }
}

async fn read(
    connection: &mut PgConnection,
    streams: impl Iterator<Item = &StreamId> + Clone,
) -> Result<Vec<StreamHead>, sqlx::Error> {
    let types: Vec<&str> = streams.clone().map(|id| id.aggregate_type.as_str()).collect();
    let ids: Vec<&str> = streams.map(|id| id.aggregate_id.as_str()).collect();
    let rows = sqlx::query(HEADS).bind(types).bind(ids).fetch_all(connection).await?;
    rows.iter().map(StreamHead::from_row).collect()
}
