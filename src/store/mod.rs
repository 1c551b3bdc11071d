//! The event log: the only way in, and the ways out.
//!
//! | Module | Holds |
//! |---|---|
//! | [`member`] | what one append consists of, and what may become of it |
//! | `appender` | the fast lane: group commit |
//! | [`lane`] | the slow lane: work under one person's lock |
//! | `append` | the call of the database function both lanes end in; `append_rows` are its arguments |
//! | [`seal`], [`open`] | sealing on the way in, opening on the way out |
//! | [`read`] | pages of the log, of one person, of one stream |
//! | [`scan`], `page` | the whole log in order, read ahead and opened on every core |
//! | `loader` | group reads: heads that are asked for at the same moment; `kept` is its connection |
//! | [`installations`] | app installations, and what each says it holds |
//! | [`streams`] | heads and folded states; receipts and reservations |
//! | [`subscribe`] | catch up, then follow live |
//! | [`subjects`] | which keys a person has |
//! | [`segments`] | packed samples |
//!
//! Invariants: positions are dense and become visible in order; an answered append is durable; a
//! member is written whole or not at all; nothing personal is stored in the clear.

mod append;
mod append_rows;
mod appender;
pub mod installations;
mod kept;
pub mod lane;
mod loader;
pub mod member;
pub mod open;
pub(crate) mod page;
pub mod read;
pub mod scan;
pub mod seal;
pub mod segments;
pub mod statements;
pub mod streams;
pub mod subjects;
pub mod subscribe;
mod trouble;
mod wake;

use aggregates::{Purpose, Recorded, StreamId, UserId, registry};
use sqlx::PgPool;
use tracing::Instrument;

pub(crate) use append::HealthWrites;
pub use member::{
    AppendError, Claim, Member, NewEvent, NewState, Op, Outcome, PrivacyGuard, Receipt,
    Reservation, StreamChange, SubjectChange, SubjectChangeKind,
};
pub use open::{Opened, Unopened};
pub use read::{EventRow, Filter, Head, RawEvent, ReadError};
pub use seal::Sealer;
pub use subjects::{Subject, Subjects};

use crate::keys::Keyring;

pub(crate) const PRUNE: &str = "SELECT prune_receipts($1)";
pub(crate) const WRITABLE: &str =
    "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'";
pub(crate) const FORGET: &str = "SELECT forget($1, $2, $3)";

/// The storage format this program reads and writes.
pub const STORAGE_FORMAT: i32 = 1;

/// The log of one schema. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    appender: appender::Appender,
    sealer: Sealer,
    waker: wake::Waker,
    gate: lane::Gate,
    trouble: trouble::Trouble,
    loader: loader::Loader,
    epoch: i16,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the log is not reachable")]
    Database(#[from] sqlx::Error),
    #[error(
        "the log is in storage format {found}, this program reads format {known}; \
         use the program version that wrote it, or migrate it"
    )]
    Format { found: i32, known: i32 },
    #[error("the registry of events is broken")]
    Registry(#[from] aggregates::upcast::UpcastError),
}

impl Store {
    /// Opens the log in the pool's schema. `appends` is a small pool of its own, so that no burst
    /// of reads can keep the appender waiting for a connection.
    ///
    /// # Errors
    /// [`OpenError`] where the database is not there, or holds another storage format.
    pub async fn open(pool: PgPool, appends: PgPool, keyring: Keyring) -> Result<Self, OpenError> {
        aggregates::upcast::check()?;
        let head = read::head(&pool).await?;
        if head.storage_format != STORAGE_FORMAT {
            return Err(OpenError::Format { found: head.storage_format, known: STORAGE_FORMAT });
        }
        let waker = wake::Waker::start(pool.clone());
        let subjects = Subjects::new(pool.clone());
        let sealer = Sealer { log_id: head.log_id, keyring, subjects };
        let appender = appender::Appender::start(appends, waker.clone());
        let gate = lane::Gate::new(&pool);
        let loader = loader::Loader::start(&pool);
        let trouble = trouble::Trouble::default();
        let epoch = head.epoch;
        Ok(Self { pool, appender, sealer, waker, gate, trouble, loader, epoch })
    }

    /// Appends one member in the fast lane and waits until it is durable or refused.
    ///
    /// # Errors
    /// [`AppendError`] where nothing is known to have been written.
    pub async fn append(&self, member: Member) -> Result<Outcome, AppendError> {
        let span = trouble::append_span(&member);
        let result = self.append_sealed(member).instrument(span.clone()).await;
        trouble::record(&span, &result);
        self.trouble.note(&result);
        result
    }

    async fn append_sealed(&self, member: Member) -> Result<Outcome, AppendError> {
        let touched: Vec<UserId> =
            member.subject_changes.iter().map(|change| change.user).collect();
        let sealed = self.sealer.seal(member).await?;
        let users: Vec<UserId> = sealed.keys.iter().map(|key| UserId(key.user)).collect();
        let outcome = self.appender.append(sealed).await?;
        if outcome == Outcome::Refused {
            for user in users {
                self.sealer.subjects.invalidate(user).await;
            }
        }
        for user in touched {
            self.sealer.subjects.invalidate(user).await;
        }
        Ok(outcome)
    }

    /// Whether the database is one that may be written to: no standby, not read-only.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn is_writable(&self) -> Result<bool, ReadError> {
        Ok(sqlx::query_scalar(WRITABLE).fetch_one(&self.pool).await?)
    }

    /// When the event at a position was committed, in ms since the Unix epoch.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn committed_at(&self, position: i64) -> Result<Option<i64>, ReadError> {
        let at = sqlx::query_scalar(streams::COMMITTED_AT).bind(position);
        Ok(at.fetch_optional(&self.pool).await?)
    }

    /// Whether appends fail, as far as the last of them can tell.
    pub fn append_fails(&self) -> bool {
        self.trouble.is_there()
    }

    /// Where the log stands now.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn head(&self) -> Result<Head, ReadError> {
        Ok(read::head(&self.pool).await?)
    }

    /// One page of the log, opened: events with `after < position <= upto`.
    ///
    /// # Errors
    /// [`ReadError`]; an event that cannot be opened fails the page, it is never left out.
    pub async fn page(
        &self,
        after: i64,
        upto: i64,
        limit: i64,
        filter: &Filter,
    ) -> Result<Vec<Recorded>, ReadError> {
        let raw = read::raw_page(&self.pool, after, upto, limit.min(read::PAGE), filter).await?;
        self.open_all(&raw).await
    }

    /// Events of one stream with `after < sequence <= upto`, opened, at most `limit`.
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub async fn stream(
        &self,
        stream: &StreamId,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Vec<Recorded>, ReadError> {
        let raw = read::raw_stream(&self.pool, stream, after, upto, limit).await?;
        self.open_all(&raw).await
    }

    /// Forgets receipts of requests that appended nothing, older than a time in ms since the Unix
    /// epoch. Answers how many.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn prune_receipts(&self, before_ms: i64) -> Result<i64, ReadError> {
        Ok(sqlx::query_scalar(PRUNE).bind(before_ms).fetch_one(&self.pool).await?)
    }

    /// Removes what is kept inline for one purpose of a person whose key is destroyed. Repeatable.
    ///
    /// # Errors
    /// Where the database does not answer, or the key is still active.
    pub async fn forget(&self, user: UserId, purpose: Purpose) -> Result<(), ReadError> {
        let mut types: Vec<&str> = registry::types()
            .filter(|entry| entry.purpose == Some(purpose))
            .map(|entry| entry.aggregate)
            .collect();
        types.dedup();
        sqlx::query(FORGET)
            .bind(user.0)
            .bind(purpose.as_str())
            .bind(types)
            .execute(&self.pool)
            .await?;
        self.sealer.subjects.invalidate(user).await;
        Ok(())
    }

    async fn open_all(&self, raw: &[RawEvent]) -> Result<Vec<Recorded>, ReadError> {
        let opened = self.sealer.open_each(raw).await?;
        opened.into_iter().map(|opened| opened.map_err(|unopened| unopened.error)).collect()
    }

    /// Changes after each append of this process, and soon after those of others. A hint.
    pub fn hints(&self) -> tokio::sync::watch::Receiver<u64> {
        self.waker.subscribe()
    }

    /// Seals and opens for this log.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Which keys people have.
    pub fn subjects(&self) -> &Subjects {
        &self.sealer.subjects
    }

    /// The pool for reads beside the log.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The current epoch: raised after a failover that may have lost positions.
    pub fn epoch(&self) -> i16 {
        self.epoch
    }
}
