//! Group reads: what commands ask for at the same moment travels in one statement.
//!
//! A look-up by key takes a few microseconds; carrying it to Postgres and back takes many times
//! that. While one statement is under way, whoever comes waits for the next and shares it.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::StreamId;
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::streams::{HEADS, StreamHead};

/// Requests of one statement.
const MAX_REQUESTS: usize = 256;
/// Who asks for more streams than this has a statement of their own.
const MAX_STREAMS: usize = 32;
/// Statements under way at a time.
const WORKERS: usize = 2;
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
    /// Starts the tasks that carry requests on connections of this pool.
    pub fn start(pool: &PgPool) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let requests = Arc::new(Mutex::new(requests));
        for _ in 0..WORKERS {
            tokio::spawn(carry(pool.clone(), Arc::clone(&requests)));
        }
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
        read(&self.pool, streams.iter()).await
    }
}

async fn carry(pool: PgPool, requests: Arc<Mutex<mpsc::Receiver<Request>>>) {
    let mut taken = Vec::new();
    loop {
        if requests.lock().await.recv_many(&mut taken, MAX_REQUESTS).await == 0 {
            return;
        }
        let streams = taken.iter().flat_map(|request| &request.streams);
        let heads = read(&pool, streams).await.ok();
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
    pool: &PgPool,
    streams: impl Iterator<Item = &StreamId> + Clone,
) -> Result<Vec<StreamHead>, sqlx::Error> {
    let types: Vec<&str> = streams.clone().map(|id| id.aggregate_type.as_str()).collect();
    let ids: Vec<&str> = streams.map(|id| id.aggregate_id.as_str()).collect();
    let rows = sqlx::query(HEADS).bind(types).bind(ids).fetch_all(pool).await?;
    rows.iter().map(StreamHead::from_row).collect()
}
