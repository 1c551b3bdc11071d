//! Reading the log at length: all of it in order, as fast as the machine can.
//!
//! Postgres ships the next pages while the last ones are being opened, each on a thread of its
//! own. That takes memory for a few pages and no more: a consumer that is slow is waited for. No
//! snapshot is held across pages, so that a replay of hours keeps nothing from being cleaned up.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aggregates::Recorded;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::Store;
use super::page::{Leaves, RawPage, Shelf};
use super::read::ReadError;

/// Pages on their way at once: fetched, opened or waiting for their turn.
const PAGES: usize = 4;
/// Pages fetched at once: a second connection fills the pauses of the first.
const FETCHES: usize = 2;
/// Positions of the first page, and of the largest.
const FIRST_SPAN: i64 = 500;
const MAX_SPAN: i64 = 2000;
/// Bytes that a page should have, so that it is still in a cache when it is opened; where events
/// are large, pages have fewer.
const PAGE_BYTES: usize = 1 << 20;

impl Store {
    /// All events with `after < position <= upto`, opened, page by page. Positions are dense, so
    /// one that is missing fails its page, as does an event that does not open.
    pub fn scan(
        &self,
        after: i64,
        upto: i64,
    ) -> impl Stream<Item = Result<Vec<Recorded>, ReadError>> + Send + use<> {
        let sealer = self.sealer.clone();
        self.scan_raw(after, upto, Leaves::Without, move |span, page| {
            let sealer = sealer.clone();
            async move {
                page.check_dense(span)?;
                let keys = sealer.page_keys(page.seals()).await?;
                computed(move || keys.open(sealer.log_id, &page)).await
            }
        })
    }

    /// Gives each page of `after < position <= upto` to `work`, several at a time, and what
    /// becomes of them in order of position.
    pub(crate) fn scan_raw<T, F, W>(
        &self,
        after: i64,
        upto: i64,
        leaves: Leaves,
        work: F,
    ) -> impl Stream<Item = Result<T, ReadError>> + Send + use<T, F, W>
    where
        T: Send + 'static,
        F: Fn(Span, RawPage) -> W + Send + Sync + 'static,
        W: Future<Output = Result<T, ReadError>> + Send + 'static,
    {
        let pool = self.pool.clone();
        let fetches = Arc::new(Semaphore::new(FETCHES));
        let length = Arc::new(AtomicI64::new(FIRST_SPAN));
        let (work, shelf) = (Arc::new(work), Shelf::default());
        let spans = stream::unfold(after, {
            let length = Arc::clone(&length);
            move |after| {
                let end = upto.min(after.saturating_add(length.load(Ordering::Relaxed)));
                std::future::ready((after < upto).then_some((Span { after, upto: end }, end)))
            }
        });
        let pages = spans.map(move |span| {
            let (pool, work) = (pool.clone(), Arc::clone(&work));
            let (fetches, length) = (Arc::clone(&fetches), Arc::clone(&length));
            let shelf = shelf.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                let turn = fetches.acquire().await;
                let page = RawPage::fetch(&pool, span.after, span.upto, leaves, &shelf).await?;
                drop(turn);
                length.store(next_length(&page), Ordering::Relaxed);
                work(span, page).await
            }))
        });
        pages.buffered(PAGES).map(joined)
    }
}

/// Positions after one and up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) after: i64,
    pub(crate) upto: i64,
}

/// How many positions the next page should have, going by the size of the events in this one.
fn next_length(page: &RawPage) -> i64 {
    let fitting = PAGE_BYTES.saturating_mul(page.len().max(1)) / page.size().max(1);
    i64::try_from(fitting).unwrap_or(MAX_SPAN).clamp(1, MAX_SPAN)
}

/// Runs a computation beside the threads that wait for sockets.
pub(crate) async fn computed<T: Send + 'static>(
    compute: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    joined(tokio::task::spawn_blocking(compute).await)
}

/// A task's answer. Its panic goes on here; it is only cancelled where the whole program ends.
fn joined<T>(answer: Result<Result<T, ReadError>, JoinError>) -> Result<T, ReadError> {
    match answer {
        Ok(answer) => answer,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ReadError::Database(sqlx::Error::WorkerCrashed)),
    }
}

impl RawPage {
    /// Every position of the span is there, once.
    fn check_dense(&self, span: Span) -> Result<(), ReadError> {
        let missing =
            |position| ReadError::Corrupt { position, reason: "no event is there".to_owned() };
        let mut next = span.after + 1;
        for row in self.seals() {
            if row?.position != next {
                return Err(missing(next));
            }
            next += 1;
        }
        if next <= span.upto { Err(missing(next)) } else { Ok(()) }
    }
}
