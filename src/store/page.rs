//! A stretch of the log in the form in which Postgres ships it fastest.
//!
//! Rows come by binary COPY and stay the bytes they are until somebody opens them, on whatever
//! thread that is: to fetch a page costs no more than to receive it.

use std::sync::{Arc, Mutex};
use std::{mem, str};

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

/// Memory of larger pages is given back: such pages are rare.
const SHELVED: usize = 8 << 20;

/// Whether the stored leaf hashes are wanted: to check them, not to open events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    With,
    Without,
}

/// Rows of `events` in order of position, as they came.
#[derive(Debug, Default)]
pub(crate) struct RawPage {
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
    shelf: Shelf,
}

/// Memory of pages that are done with, for those to come: fresh memory of that size has to be
/// mapped and cleared by the kernel each time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<Mutex<Vec<Memory>>>);

type Memory = (Vec<u8>, Vec<usize>);

/// What a reader has to know of a row before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowSeal<'a> {
    pub(crate) position: i64,
    pub(crate) user: UserId,
    /// Names the key, if the row is sealed.
    pub(crate) payload: &'a str,
    pub(crate) sealed: bool,
}

impl RawPage {
    /// All rows with `after < position <= upto`, in memory from the shelf.
    pub(crate) async fn fetch(
        pool: &PgPool,
        after: i64,
        upto: i64,
        leaves: Leaves,
        shelf: &Shelf,
    ) -> Result<Self, sqlx::Error> {
        let leaf = if leaves == Leaves::With { ", leaf_hash" } else { "" };
        // COPY takes no parameters; these are integers.
        let statement = format!(
            "COPY (SELECT {COLUMNS}{leaf} FROM events WHERE position > {after} \
             AND position <= {upto} ORDER BY position) TO STDOUT (FORMAT binary)"
        );
        let mut lease = Lease { connection: pool.acquire().await?, drained: false };
        let mut page = shelf.page();
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

    /// Who has sealed each row with what.
    ///
    /// # Errors
    /// Where a row is not what was asked for.
    pub(crate) fn seals(&self) -> impl Iterator<Item = Result<RowSeal<'_>, ReadError>> {
        self.columns().map(|row| row.seal().ok_or_else(|| malformed("a broken row").into()))
    }

    /// The rows, to be read one by one.
    ///
    /// # Errors
    /// Where a row is not what was asked for.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Result<EventRow<'_>, ReadError>> {
        self.columns().map(|row| row.event().ok_or_else(|| malformed("a broken row").into()))
    }

    fn columns(&self) -> impl Iterator<Item = Columns<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            // After its number of columns.
            let row = self.bytes.get(start + 2..end).unwrap_or_default();
            start = end;
            Columns(row)
        })
    }
}

impl Drop for RawPage {
    fn drop(&mut self) {
        let (mut bytes, mut ends) = (mem::take(&mut self.bytes), mem::take(&mut self.ends));
        if bytes.capacity() > 0
            && bytes.capacity() <= SHELVED
            && let Ok(mut shelf) = self.shelf.0.lock()
        {
            bytes.clear();
            ends.clear();
            shelf.push((bytes, ends));
        }
    }
}

impl Shelf {
    fn page(&self) -> RawPage {
        let memory = self.0.lock().ok().and_then(|mut shelf| shelf.pop());
        let (bytes, ends) = memory.unwrap_or_default();
        RawPage { bytes, ends, shelf: self.clone() }
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
    fn seal(mut self) -> Option<RowSeal<'a>> {
        let position = self.integer()?;
        self.skip(5)?;
        let user = UserId(self.uuid()?);
        self.skip(3)?;
        let payload = self.text()?;
        self.skip(1)?;
        Some(RowSeal { position, user, payload, sealed: self.next()?.is_some() })
    }

    fn skip(&mut self, columns: usize) -> Option<()> {
        for _ in 0..columns {
            self.next()?;
        }
        Some(())
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
