//! The store as projectors read it.

use std::panic::AssertUnwindSafe;

use aggregates::entity::find_contract_of_stream;
use aggregates::segment::Sample;
use aggregates::{Purpose, Recorded, StreamId, UserId};
use futures_util::FutureExt;
use projections::entities::Entity;
use projections::freshness::UserHead;
use sqlx::Row;

use super::source::{LogReader, Page, SourceError, StateReader, Unreadable};
use crate::commands::load;
use crate::keys::{KeyError, KeyStatus};
use crate::store::segments::Segments;
use crate::store::{Filter, Opened, RawEvent, ReadError, Store, Unopened, read};

/// People in the order of their ids, hopping through the index from one to the next.
pub(crate) const USERS: &str = "WITH RECURSIVE people AS ( \
         (SELECT user_id FROM events WHERE user_id > $1 ORDER BY user_id LIMIT 1) \
         UNION ALL \
         SELECT (SELECT e.user_id FROM events e WHERE e.user_id > p.user_id \
                 ORDER BY e.user_id LIMIT 1) \
           FROM people p WHERE p.user_id IS NOT NULL) \
     SELECT user_id FROM people WHERE user_id IS NOT NULL LIMIT $2";

/// Reads the log and the state beside it through the store.
#[derive(Clone)]
pub struct StoreSource(pub Store);

// Lengths of stored texts and blobs are known without reading them.
pub(super) const SIZES: &str = "
SELECT octet_length(payload::text) + coalesce(octet_length(sealed), 0)
FROM events WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3";
pub(super) const SIZES_OF_USER: &str = "
SELECT octet_length(payload::text) + coalesce(octet_length(sealed), 0)
FROM events WHERE user_id = $4 AND position > $1 AND position <= $2 ORDER BY position LIMIT $3";

/// Stored bytes that a page holds at most, unless a single event is larger. Opened they are more,
/// but not without bound: an event is limited before it is packed.
const PAGE_BYTES: i64 = 4 << 20;
/// Pages of so few events stay below that anyway: an event holds 1 MiB at most.
const FEW: i64 = 4;

impl StoreSource {
    /// Where a page has to end, and how many events it may hold, so that its bytes are bounded too.
    async fn bounded(
        &self,
        user: Option<UserId>,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<(i64, i64), SourceError> {
        if limit.min(upto - after) <= FEW {
            return Ok((upto, limit));
        }
        let sizes = sqlx::query_scalar(user.map_or(SIZES, |_| SIZES_OF_USER));
        let sizes = sizes.bind(after).bind(upto).bind(limit);
        let sizes = match user {
            Some(user) => sizes.bind(user.0),
            None => sizes,
        };
        let sizes: Vec<i32> = sizes.fetch_all(self.0.pool()).await.map_err(database)?;
        let mut bytes = 0;
        for (count, size) in (0..).zip(sizes) {
            bytes += i64::from(size);
            if bytes > PAGE_BYTES && count > 0 {
                return Ok((upto, count));
            }
        }
        Ok((upto, limit))
    }

    async fn open_page(
        &self,
        raw: Vec<RawEvent>,
        limit: i64,
        after: i64,
        upto: i64,
    ) -> Result<Page, SourceError> {
        let full = i64::try_from(raw.len()).unwrap_or(i64::MAX) >= limit;
        let last = raw.last().map_or(after, |event| event.position);
        let mut page =
            Page { through: if full { last } else { upto.max(last) }, ..Page::default() };
        for event in self.open(&raw).await? {
            match event {
                Ok(event) => page.events.push(event),
                Err(event) => page.unreadable.push(event),
            }
        }
        Ok(page)
    }

    /// Opens events, each for itself: one that cannot be opened is its person's trouble alone.
    async fn open(
        &self,
        raw: &[RawEvent],
    ) -> Result<Vec<Result<Recorded, Unreadable>>, SourceError> {
        let sealer = self.0.sealer();
        if let Ok(opened) = AssertUnwindSafe(sealer.open_each(raw)).catch_unwind().await {
            return opened.map_err(unavailable)?.into_iter().map(one).collect();
        }
        // Opening one of them panics. What panics while it is opened is one person's event too.
        let mut events = Vec::with_capacity(raw.len());
        for event in raw {
            let single = std::slice::from_ref(event);
            match AssertUnwindSafe(sealer.open_each(single)).catch_unwind().await {
                Ok(opened) => {
                    for opened in opened.map_err(unavailable)? {
                        events.push(one(opened)?);
                    }
                }
                Err(_) => events.push(Err(Unreadable {
                    position: event.position,
                    user: event.user,
                    aggregate_type: event.stream.aggregate_type.clone(),
                    class: "panic",
                })),
            }
        }
        Ok(events)
    }
}

/// An opened event, or what keeps it from being opened for good.
fn one(opened: Opened) -> Result<Result<Recorded, Unreadable>, SourceError> {
    match opened {
        Ok(event) => Ok(Ok(event)),
        Err(Unopened { position, user, aggregate_type, error }) => {
            let class = unreadable(error)?;
            Ok(Err(Unreadable { position, user, aggregate_type, class }))
        }
    }
}

/// What cannot be read of one person's data, now or later; everything else is worth another try.
fn unreadable(error: ReadError) -> Result<&'static str, SourceError> {
    match error {
        ReadError::Corrupt { .. } => Ok("corrupt"),
        ReadError::Newer { .. } => Ok("newer"),
        ReadError::Key(KeyError::Missing { .. }) => Ok("key_missing"),
        ReadError::Key(KeyError::Corrupt { .. }) => Ok("key_corrupt"),
        other => Err(SourceError::Unavailable(Box::new(other))),
    }
}

fn unavailable(error: ReadError) -> SourceError {
    SourceError::Unavailable(Box::new(error))
}

fn source_error(error: ReadError) -> SourceError {
    match unreadable(error) {
        Ok(class) => SourceError::Unreadable { class },
        Err(error) => error,
    }
}

fn database(error: sqlx::Error) -> SourceError {
    SourceError::Unavailable(Box::new(error))
}

impl LogReader for StoreSource {
    async fn page(&self, after: i64, limit: i64) -> Result<Page, SourceError> {
        let upto = self.head().await?;
        let (upto, limit) = self.bounded(None, after, upto, limit).await?;
        let raw = read::raw_page(self.0.pool(), after, upto, limit, &Filter::default())
            .await
            .map_err(database)?;
        self.open_page(raw, limit, after, upto).await
    }

    async fn unopened(
        &self,
        after: i64,
        limit: i64,
        class: &'static str,
    ) -> Result<Page, SourceError> {
        let head = self.head().await?;
        let raw = read::raw_page(self.0.pool(), after, head, limit, &Filter::default())
            .await
            .map_err(database)?;
        let through = raw.last().map_or(after, |event| event.position);
        let closed = raw.into_iter().map(|event| Unreadable {
            position: event.position,
            user: event.user,
            aggregate_type: event.stream.aggregate_type,
            class,
        });
        Ok(Page { events: Vec::new(), unreadable: closed.collect(), through })
    }

    async fn user_page(
        &self,
        user: UserId,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Page, SourceError> {
        let (upto, limit) = self.bounded(Some(user), after, upto, limit).await?;
        let filter = Filter { user: Some(user), ..Filter::default() };
        let raw =
            read::raw_page(self.0.pool(), after, upto, limit, &filter).await.map_err(database)?;
        self.open_page(raw, limit, after, upto).await
    }

    async fn users(&self, after: Option<UserId>, limit: i64) -> Result<Vec<UserId>, SourceError> {
        let after = after.map_or_else(uuid::Uuid::nil, |user| user.0);
        let rows = sqlx::query(USERS)
            .bind(after)
            .bind(limit)
            .fetch_all(self.0.pool())
            .await
            .map_err(database)?;
        rows.iter()
            .map(|row| row.try_get(0).map(UserId))
            .collect::<Result<_, _>>()
            .map_err(database)
    }

    async fn head(&self) -> Result<i64, SourceError> {
        Ok(self.0.head().await.map_err(source_error)?.position)
    }
}

impl StateReader for StoreSource {
    async fn samples(
        &self,
        user: UserId,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Sample>, SourceError> {
        let subject = self.0.subjects().of(user).await.map_err(source_error)?;
        let gone = |key: crate::keys::SubjectKeyRef| key.status == KeyStatus::Destroyed;
        if subject.key(Purpose::Health).is_none_or(gone) {
            return Ok(Vec::new());
        }
        let key = match self.0.health_key(user).await {
            Ok(key) => key,
            Err(ReadError::Key(KeyError::Shredded { .. })) => return Ok(Vec::new()),
            Err(error) => return Err(source_error(error)),
        };
        let mut connection = self.0.pool().acquire().await.map_err(database)?;
        let segments = Segments::new(user, &key)
            .newest(&mut connection, from_ms, to_ms - 1, i64::MAX)
            .await
            .map_err(source_error)?;
        let samples = segments.into_iter().flat_map(|segment| segment.samples);
        let wanted = |sample: &Sample| (from_ms..to_ms).contains(&sample.key.start_ms);
        Ok(samples.filter(wanted).collect())
    }

    async fn entity(&self, stream: &StreamId) -> Result<Option<Entity>, SourceError> {
        let Some(contract) = find_contract_of_stream(&stream.aggregate_type) else {
            return Ok(None);
        };
        let heads = self.0.heads(std::slice::from_ref(stream)).await.map_err(source_error)?;
        let Some(head) = heads.into_iter().next() else { return Ok(None) };
        let (user, position) = (head.user, head.position);
        match load::entity(&self.0, contract, head).await {
            Ok(state) => Ok(Some(Entity { user, stream: stream.clone(), position, state })),
            Err(ReadError::Key(KeyError::Shredded { .. })) => Ok(None),
            Err(error) => Err(source_error(error)),
        }
    }

    async fn user_head(&self, user: UserId) -> Result<UserHead, SourceError> {
        let head = self.0.user_head(user).await.map_err(source_error)?;
        Ok(UserHead {
            health_seq: head.health_seq,
            pos_health: head.pos_health,
            pos_session: head.pos_session,
            pos_other: head.pos_other,
        })
    }
}
