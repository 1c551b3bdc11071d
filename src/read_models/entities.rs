//! `entities`: one row a synced entity, for lists, filters and detail pages.

use aggregates::entity::find_contract;
use aggregates::{Purpose, UserId};
use projections::entities::EntityRow;
use projections::freshness::Progress;
use projections::registry::ENTITIES;
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::reader::{Attempt, Pinned, overtaken};
use super::{Change, ReadModel, Row};
use crate::projector::ProjectorError;

/// `data` is text rather than jsonb: it is handed out as it was made, byte for byte.
pub const DDL: &str = "
CREATE TABLE entities (
    user_id     uuid        NOT NULL,
    entity_type text        NOT NULL,
    id          uuid        NOT NULL,
    version     bigint      NOT NULL,
    position    bigint      NOT NULL,
    deleted     boolean     NOT NULL,
    purpose     text,
    status      text,
    session_id  uuid,
    product_id  uuid,
    at_ms       bigint      NOT NULL,
    data        json        NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, entity_type, id)
);
CREATE INDEX ON entities (user_id, entity_type, at_ms DESC, id DESC);
CREATE INDEX ON entities (user_id, session_id, at_ms DESC) WHERE session_id IS NOT NULL";

const WIPE: &str = "
DELETE FROM entities e USING unnest($1::uuid[], $2::text[]) AS w(user_id, purpose)
WHERE e.user_id = w.user_id AND e.purpose = w.purpose";

const UPSERT: &str = "
INSERT INTO entities
    (user_id, entity_type, id, version, position, deleted, purpose, status, session_id, product_id,
     at_ms, data)
SELECT user_id, entity_type, id, version, position, deleted, purpose, status, session_id,
       product_id, at_ms, data::json
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::int8[], $5::int8[], $6::bool[], $7::text[],
            $8::text[], $9::uuid[], $10::uuid[], $11::int8[], $12::text[])
     AS r(user_id, entity_type, id, version, position, deleted, purpose, status, session_id,
          product_id, at_ms, data)
ORDER BY user_id, entity_type, id
ON CONFLICT (user_id, entity_type, id) DO UPDATE
SET version = excluded.version, position = excluded.position, deleted = excluded.deleted,
    purpose = excluded.purpose, status = excluded.status, session_id = excluded.session_id,
    product_id = excluded.product_id, at_ms = excluded.at_ms, data = excluded.data,
    computed_at = excluded.computed_at";

/// Writes the rows of one transaction.
///
/// # Errors
/// Database errors.
pub async fn write(db: &mut PgConnection, changes: &[&Change]) -> Result<(), ProjectorError> {
    let (users, purposes): (Vec<Uuid>, Vec<&str>) = changes
        .iter()
        .flat_map(|change| change.wiped.iter().map(|purpose| (change.user.0, purpose.as_str())))
        .unzip();
    if !users.is_empty() {
        sqlx::query(WIPE).bind(&users).bind(&purposes).execute(&mut *db).await?;
    }
    let rows: Vec<(Uuid, &EntityRow)> = changes
        .iter()
        .flat_map(|change| change.rows.iter().map(|row| (change.user.0, row)))
        .filter_map(|(user, row)| match row {
            Row::Entity(entity) => Some((user, entity)),
            Row::Day(_) => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let purpose = |row: &EntityRow| row.purpose.map(Purpose::as_str);
    sqlx::query(UPSERT)
        .bind(rows.iter().map(|(user, _)| *user).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.entity_type).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.version).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.position).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.deleted).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| purpose(row)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.status.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.session_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.product_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.at_ms).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.data.as_str()).collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(())
}

const OF_USER: &str = "
SELECT entity_type, id, version, position, deleted, purpose, status, session_id, product_id, at_ms,
       data::text
FROM entities WHERE user_id = $1";

/// All rows of one person, in the order of their streams.
///
/// # Errors
/// Database errors; [`ProjectorError::Row`] for a row this version cannot have written.
pub async fn of_user(
    db: &mut PgConnection,
    user: UserId,
) -> Result<Vec<EntityRow>, ProjectorError> {
    let rows = sqlx::query(OF_USER).bind(user.0).fetch_all(db).await?;
    let mut rows = rows.iter().map(entity_row).collect::<Result<Vec<_>, _>>()?;
    // Streams are ordered by the stream's type, rows carry the wire's.
    let stream_type = |row: &EntityRow| find_contract(row.entity_type).map(|c| c.aggregate_type);
    rows.sort_by_cached_key(|row| (stream_type(row), row.id.to_string()));
    Ok(rows)
}

fn entity_row(row: &PgRow) -> Result<EntityRow, ProjectorError> {
    let wrong = |column| ProjectorError::Row { projector: ENTITIES.name, column };
    let contract = find_contract(row.try_get(0)?).ok_or_else(|| wrong("entity_type"))?;
    let purpose: Option<&str> = row.try_get(5)?;
    Ok(EntityRow {
        entity_type: contract.entity_type,
        id: row.try_get(1)?,
        version: row.try_get(2)?,
        position: row.try_get(3)?,
        deleted: row.try_get(4)?,
        purpose: purpose
            .map(|name| Purpose::parse(name).ok_or_else(|| wrong("purpose")))
            .transpose()?,
        status: row.try_get(6)?,
        session_id: row.try_get(7)?,
        product_id: row.try_get(8)?,
        at_ms: row.try_get(9)?,
        data: row.try_get(10)?,
    })
}

/// What a list is ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// When it took place.
    #[default]
    Time,
    /// How long its consumptions took together.
    Duration,
}

/// A question for a list of one type; every filter that is `None` admits all.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListQuery<'a> {
    /// The wire's name: `sessions`.
    pub entity_type: &'a str,
    pub status: Option<&'a str>,
    pub session_id: Option<Uuid>,
    pub product_id: Option<Uuid>,
    pub purchase_id: Option<Uuid>,
    /// Instants `[from, to)` in ms since the Unix epoch.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    pub sort: Sort,
    /// Smallest first; else largest first.
    pub ascending: bool,
    /// Where the page before ended: what its last row is sorted by, and that row's id.
    pub after: Option<(i64, Uuid)>,
    /// Rows to leave out before the page.
    pub offset: u32,
    pub limit: u32,
}

/// A page.
#[derive(Clone, Debug)]
pub struct ListPage {
    pub rows: Vec<EntityRow>,
    /// Where the next page begins, if there is one.
    pub next: Option<(i64, Uuid)>,
    /// All rows that the filters admit, on any page.
    pub total: u64,
    pub progress: Progress,
}

const ADMITTED: &str = "
FROM entities
WHERE user_id = $1 AND entity_type = $2 AND NOT deleted
  AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR session_id = $4)
  AND ($5::uuid IS NULL OR product_id = $5)
  AND ($6::text IS NULL OR data->>'purchaseId' = $6)
  AND ($7::int8 IS NULL OR at_ms >= $7) AND ($8::int8 IS NULL OR at_ms < $8)";

impl ListQuery<'_> {
    fn total_sql() -> String {
        format!("SELECT count(*) {ADMITTED}")
    }

    fn page_sql(&self) -> String {
        let key = match self.sort {
            Sort::Time => "at_ms",
            Sort::Duration => "coalesce((data->>'totalDurationMs')::int8, 0)",
        };
        let (beyond, order) = if self.ascending { (">", "ASC") } else { ("<", "DESC") };
        format!(
            "SELECT entity_type, id, version, position, deleted, purpose, status, session_id,
                    product_id, at_ms, data::text, {key} {ADMITTED}
               AND ($9::int8 IS NULL OR ({key}, id) {beyond} ($9, $10::uuid))
             ORDER BY {key} {order}, id {order} LIMIT $11 OFFSET $12"
        )
    }
}

/// A page of entities that are not deleted.
///
/// # Errors
/// [`ProjectorError::NoGeneration`] before the projector first ran; database errors.
pub async fn list(
    pool: &PgPool,
    user: UserId,
    query: &ListQuery<'_>,
) -> Result<ListPage, ProjectorError> {
    match list_once(pool, user, query, Attempt::First).await {
        Err(error) if overtaken(&error) => list_once(pool, user, query, Attempt::Again).await,
        result => result,
    }
}

async fn list_once(
    pool: &PgPool,
    user: UserId,
    query: &ListQuery<'_>,
    attempt: Attempt,
) -> Result<ListPage, ProjectorError> {
    let mut pinned = Pinned::open(pool, ReadModel::Entities, user, attempt).await?;
    let purchase = query.purchase_id.map(|id| id.to_string());
    let total: i64 = sqlx::query_scalar(&ListQuery::total_sql())
        .bind(user.0)
        .bind(query.entity_type)
        .bind(query.status)
        .bind(query.session_id)
        .bind(query.product_id)
        .bind(&purchase)
        .bind(query.from_ms)
        .bind(query.to_ms)
        .fetch_one(&mut *pinned.tx)
        .await?;
    let mut rows = sqlx::query(&query.page_sql())
        .bind(user.0)
        .bind(query.entity_type)
        .bind(query.status)
        .bind(query.session_id)
        .bind(query.product_id)
        .bind(&purchase)
        .bind(query.from_ms)
        .bind(query.to_ms)
        .bind(query.after.map(|(key, _)| key))
        .bind(query.after.map(|(_, id)| id))
        .bind(i64::from(query.limit) + 1)
        .bind(i64::from(query.offset))
        .fetch_all(&mut *pinned.tx)
        .await?;
    let has_more = rows.len() > query.limit as usize;
    rows.truncate(query.limit as usize);
    let next = match rows.last() {
        Some(last) if has_more => Some((last.try_get(11)?, last.try_get(1)?)),
        _ => None,
    };
    let rows = rows.iter().map(entity_row).collect::<Result<Vec<_>, _>>()?;
    Ok(ListPage { rows, next, total: total.unsigned_abs(), progress: pinned.progress })
}

const GET: &str = "
SELECT entity_type, id, version, position, deleted, purpose, status, session_id, product_id, at_ms,
       data::text
FROM entities WHERE user_id = $1 AND entity_type = $2 AND id = $3";

/// One entity, deleted or not, with the projector's progress for its owner.
///
/// # Errors
/// As [`list`].
pub async fn get(
    pool: &PgPool,
    user: UserId,
    entity_type: &str,
    id: Uuid,
) -> Result<(Option<EntityRow>, Progress), ProjectorError> {
    match get_once(pool, user, entity_type, id, Attempt::First).await {
        Err(error) if overtaken(&error) => {
            get_once(pool, user, entity_type, id, Attempt::Again).await
        }
        result => result,
    }
}

async fn get_once(
    pool: &PgPool,
    user: UserId,
    entity_type: &str,
    id: Uuid,
    attempt: Attempt,
) -> Result<(Option<EntityRow>, Progress), ProjectorError> {
    let mut pinned = Pinned::open(pool, ReadModel::Entities, user, attempt).await?;
    let row = sqlx::query(GET)
        .bind(user.0)
        .bind(entity_type)
        .bind(id)
        .fetch_optional(&mut *pinned.tx)
        .await?;
    Ok((row.as_ref().map(entity_row).transpose()?, pinned.progress))
}
