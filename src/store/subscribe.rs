//! Following the log: catch up by pages, then live.
//!
//! Polling is the truth; a wake-up only shortens the wait. The stream is pulled by its consumer,
//! so a slow consumer reads later and nothing is buffered beyond one page.

use std::collections::VecDeque;
use std::time::Duration;

use aggregates::Recorded;
use futures_util::stream;
use tokio_stream::Stream;

use super::Store;
use super::read::{Filter, PAGE, ReadError};

/// How long a reader at the head waits for a hint before it looks for itself.
const POLL: Duration = Duration::from_millis(1000);

impl Store {
    /// All events after a position that pass the filter: those there are, then those to come.
    /// Ends with the first error, which carries on nothing: subscribe again from the last position
    /// that was handled.
    pub fn subscribe(
        &self,
        after: i64,
        filter: Filter,
    ) -> impl Stream<Item = Result<Recorded, ReadError>> + Send + use<> {
        let state = Subscription {
            store: self.clone(),
            filter,
            after,
            page: VecDeque::new(),
            hints: self.waker.subscribe(),
            failed: false,
        };
        stream::unfold(state, |mut state| async move {
            if state.failed {
                return None;
            }
            match state.next().await {
                Ok(event) => Some((Ok(event), state)),
                Err(error) => {
                    state.failed = true;
                    Some((Err(error), state))
                }
            }
        })
    }

    /// Waits until the head has passed a position or the time is up; whichever it was, the caller
    /// looks again.
    pub async fn wait_past(&self, position: i64, at_most: Duration) {
        let mut hints = self.waker.subscribe();
        hints.mark_unchanged();
        if self.head().await.is_ok_and(|head| head.position > position) {
            return;
        }
        let _ = tokio::time::timeout(at_most, hints.changed()).await;
    }
}

struct Subscription {
    store: Store,
    filter: Filter,
    after: i64,
    page: VecDeque<Recorded>,
    hints: tokio::sync::watch::Receiver<u64>,
    failed: bool,
}

impl Subscription {
    async fn next(&mut self) -> Result<Recorded, ReadError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.after = event.position;
                return Ok(event);
            }
            self.hints.mark_unchanged();
            // Whoever reads along an index needs no end: what one statement sees has no gap.
            let end = match self.filter.goes_by_index() {
                true => i64::MAX,
                false => self.store.head().await?.position,
            };
            let page = self.store.page(self.after, end, PAGE, &self.filter).await?;
            if page.is_empty() {
                if end < i64::MAX {
                    // Positions are dense: nothing up to the head passes the filter.
                    self.after = self.after.max(end);
                }
                let _ = tokio::time::timeout(POLL, self.hints.changed()).await;
            } else {
                self.page = page.into();
            }
        }
    }
}
