//! What a projector reads: the log, and the current state that commands keep beside it.
//!
//! The two never mix. Live work asks [`StateReader`], which is at least as new as the page it is
//! asked for; rebuilds and checks ask [`LogReader`] alone, so that they prove the state as well.

use std::future::Future;

use aggregates::segment::Sample;
use aggregates::{Recorded, StreamId, UserId};
use projections::entities::Entity;
use projections::freshness::UserHead;

/// Why a source did not answer. Carries no content.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source is away; the same question may succeed later.
    #[error("log or state is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This person's data cannot be read, now or later. The class is a stable code.
    #[error("stored data cannot be read: {class}")]
    Unreadable { class: &'static str },
}

/// A run of the log.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order of position.
    pub events: Vec<Recorded>,
    /// Events that are there but do not open or decode.
    pub unreadable: Vec<Unreadable>,
    /// Everything up to here was looked at. Equals the question's `after` when there is no more.
    pub through: i64,
}

/// An event that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub position: i64,
    pub user: UserId,
    /// The type of its stream.
    pub aggregate_type: String,
    /// A stable code, such as `unknown_type`.
    pub class: &'static str,
}

/// The log in order of position.
pub trait LogReader: Send + Sync {
    /// Up to `limit` events after a position, fewer if they are large. An event that does not open or decode goes to
    /// [`Page::unreadable`]: an error here stops everybody.
    fn page(
        &self,
        after: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Page, SourceError>> + Send;

    /// The same page without opening anything, for when opening is what kills: every event goes to
    /// [`Page::unreadable`] with this class.
    fn unopened(
        &self,
        after: i64,
        limit: i64,
        class: &'static str,
    ) -> impl Future<Output = Result<Page, SourceError>> + Send;

    /// The same for one person's events, no further than `upto`. `through` is `upto` with the
    /// last page.
    fn user_page(
        &self,
        user: UserId,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Page, SourceError>> + Send;

    /// People who have events, by id after `after`.
    fn users(
        &self,
        after: Option<UserId>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<UserId>, SourceError>> + Send;

    /// The last position.
    fn head(&self) -> impl Future<Output = Result<i64, SourceError>> + Send;
}

/// The state that is written together with the events, as of the last commit.
pub trait StateReader: Send + Sync {
    /// The person's samples that start in `[from_ms, to_ms)`, in any order, deleted ones marked.
    /// Empty once the key was destroyed.
    fn samples(
        &self,
        user: UserId,
        from_ms: i64,
        to_ms: i64,
    ) -> impl Future<Output = Result<Vec<Sample>, SourceError>> + Send;

    /// The entity of a stream, or `None` once its key was destroyed.
    fn entity(
        &self,
        stream: &StreamId,
    ) -> impl Future<Output = Result<Option<Entity>, SourceError>> + Send;

    /// Where the log stands for a person.
    fn user_head(&self, user: UserId)
    -> impl Future<Output = Result<UserHead, SourceError>> + Send;
}
