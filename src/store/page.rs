//! A stretch of the log in the form in which Postgres ships it fastest.
//!
//! Rows come by binary COPY and stay the bytes they are until somebody opens them, on whatever
//! thread that is: to fetch a page costs no more than to receive it.

use std::str;

use aggregates::UserId;
use futures_util::TryStreamExt;
use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use uuid::Uuid;

use super::read::{EventRow, ReadError};

/// What [`EventRow`] is read from, in this order.
const COLUMNS: &str = "position, committed_ms, event_id, aggregate_type, aggregate_id, sequence, \
     user_id, event_type, event_version, recorded_at, payload, metadata, sealed";

/// Signature, flags and length of the extension: what binary COPY puts before the first row.
const HEADER_LEN: usize = 19;
/// In place of a number of columns: the last row has been.
const TRAILER: [u8; 2] = [0xff, 0xff];
/// Postgres counts microseconds from 2000-01-01, everybody else from 1970-01-01.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Whether the stored leaf hashes are wanted: to check them, not to open events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    With,
    Without,
}

/// Rows of `events` in order of position, as they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawPage {
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
}

impl RawPage {
    /// All rows with `after < position <= upto`.
    pub(crate) async fn fetch(
        pool: &PgPool,
        after: i64,
        upto: i64,
        leaves: Leaves,
    ) -> Result<Self, sqlx::Error> {
        let leaf = if leaves == Leaves::With { ", leaf_hash" } else { "" };
        // COPY takes no parameters; these are integers.
        let statement = format!(
            "COPY (SELECT {COLUMNS}{leaf} FROM events WHERE position > {after} \
             AND position <= {upto} ORDER BY position) TO STDOUT (FORMAT binary)"
        );
        let mut lease = Lease { connection: pool.acquire().await?, drained: false };
        let mut page = Self::default();
        let mut messages = lease.connection.copy_out_raw(&statement).await?;
        let mut skip = HEADER_LEN;
        while let Some(message) = messages.try_next().await? {
            // A message is a row; the header comes with the first.
            let row = message.get(skip..).ok_or_else(|| malformed("a short header"))?;
            skip = 0;
            if row != TRAILER {
                page.bytes.extend_from_slice(row);
                page.ends.push(page.bytes.len());
            }
        }
        drop(messages);
        lease.drained = true;
        Ok(page)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all rows.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The rows, to be read one by one.
    ///
    /// # Errors
    /// Where a row is not what was asked for.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Result<EventRow<'_>, ReadError>> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let row = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            Columns::of(row)
                .and_then(Columns::event)
                .ok_or_else(|| malformed("a broken row").into())
        })
    }
}

fn malformed(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("the log came with {what}"))
}

/// A connection that is closed if what it sends is not read to the end: the next user would take
/// the rest for an answer.
struct Lease {
    connection: PoolConnection<Postgres>,
    drained: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.drained {
            self.connection.close_on_drop();
        }
    }
}

/// What is left of a row.
struct Columns<'a>(&'a [u8]);

impl<'a> Columns<'a> {
    /// A row after its number of columns.
    fn of(row: &'a [u8]) -> Option<Self> {
        row.get(2..).map(Self)
    }

    fn event(mut self) -> Option<EventRow<'a>> {
        Some(EventRow {
            position: self.integer()?,
            committed_ms: self.integer()?,
            event_id: self.uuid()?,
            aggregate_type: self.text()?,
            aggregate_id: self.text()?,
            sequence: self.integer()?,
            user: UserId(self.uuid()?),
            event_type: self.text()?,
            event_version: self.text()?,
            recorded_at_ms: self.integer()?.checked_add(POSTGRES_EPOCH_US)?.div_euclid(1000),
            payload: self.text()?,
            metadata: self.text()?,
            sealed: self.next()?,
            leaf: if self.0.is_empty() { &[] } else { self.value()? },
        })
    }

    /// The next column: a length and so many bytes, or −1 for null.
    fn next(&mut self) -> Option<Option<&'a [u8]>> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(value))
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        self.next().flatten()
    }

    fn integer(&mut self) -> Option<i64> {
        self.value()?.try_into().ok().map(i64::from_be_bytes)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.value()?.try_into().ok().map(Uuid::from_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.value()?).ok()
    }
}
