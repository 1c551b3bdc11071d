//! `health_rollup_days`: one row a person, metric and local day.

use std::collections::BTreeSet;

use aggregates::metric::{Metric, Micro};
use aggregates::{Purpose, UserId};
use chrono::{DateTime, Days, NaiveDate, Utc};
use projections::freshness::{Freshness, Progress, Status, StatusCounts, Stored, Summary};
use projections::registry::HEALTH_ROLLUP;
use projections::rollup::{DayKey, DayRow};
use sqlx::{PgConnection, PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::reader::{Attempt, Pinned, overtaken};
use super::{Change, ReadModel, Row};
use crate::projector::ProjectorError;

/// Values are exact decimals in the metric's unit.
pub const DDL: &str = "
CREATE TABLE health_rollup_days (
    user_id         uuid        NOT NULL,
    metric          text        NOT NULL,
    day             date        NOT NULL,
    count_val       bigint      NOT NULL,
    sum_val         numeric,
    min_val         numeric,
    max_val         numeric,
    sum_sq          numeric,
    tz_offset_min   smallint,
    status          text        NOT NULL CHECK (status IN ('READY', 'NO_DATA')),
    compute_version integer     NOT NULL,
    computed_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, metric, day)
);
-- People who do not allow aggregation.
CREATE TABLE health_rollup_hidden (user_id uuid PRIMARY KEY)";

const WIPE: &str = "DELETE FROM health_rollup_days WHERE user_id = ANY($1)";

const HIDE: &str = "
INSERT INTO health_rollup_hidden (user_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING";

/// Whether an erasure leaves no rows. Nobody knows what a person without an identity allows.
pub fn is_wiped(wiped: &BTreeSet<Purpose>) -> bool {
    wiped.contains(&Purpose::Health) || wiped.contains(&Purpose::Identity)
}

// Multiplying by a constant of six places is exact, dividing would not be.
const UPSERT: &str = "
INSERT INTO health_rollup_days
    (user_id, metric, day, count_val, sum_val, min_val, max_val, sum_sq, tz_offset_min, status,
     compute_version)
SELECT user_id, metric, day, count_val, sum_micro::numeric * 0.000001, min_micro * 0.000001,
       max_micro * 0.000001, sum_sq_micro::numeric * 0.000001, tz_offset_min,
       CASE WHEN count_val = 0 THEN 'NO_DATA' ELSE 'READY' END, $10
FROM unnest($1::uuid[], $2::text[], $3::date[], $4::int8[], $5::text[], $6::int8[], $7::int8[],
            $8::text[], $9::int2[])
     AS r(user_id, metric, day, count_val, sum_micro, min_micro, max_micro, sum_sq_micro,
          tz_offset_min)
WHERE NOT EXISTS (SELECT FROM health_rollup_hidden h WHERE h.user_id = r.user_id)
ORDER BY user_id, metric, day
ON CONFLICT (user_id, metric, day) DO UPDATE
SET count_val = excluded.count_val, sum_val = excluded.sum_val, min_val = excluded.min_val,
    max_val = excluded.max_val, sum_sq = excluded.sum_sq, tz_offset_min = excluded.tz_offset_min,
    status = excluded.status, compute_version = excluded.compute_version,
    computed_at = excluded.computed_at";

/// Writes the rows of one transaction.
///
/// # Errors
/// Database errors.
pub async fn write(db: &mut PgConnection, changes: &[&Change]) -> Result<(), ProjectorError> {
    let wiped: Vec<Uuid> = changes
        .iter()
        .filter(|change| is_wiped(&change.wiped))
        .map(|change| change.user.0)
        .collect();
    if !wiped.is_empty() {
        sqlx::query(WIPE).bind(&wiped).execute(&mut *db).await?;
    }
    let hidden: Vec<Uuid> =
        changes.iter().filter(|change| change.hidden).map(|change| change.user.0).collect();
    if !hidden.is_empty() {
        sqlx::query(HIDE).bind(&hidden).execute(&mut *db).await?;
    }
    let rows: Vec<(Uuid, &DayRow)> = changes
        .iter()
        .flat_map(|change| change.rows.iter().map(|row| (change.user.0, row)))
        .filter_map(|(user, row)| match row {
            Row::Day(day) => Some((user, day)),
            Row::Entity(_) => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let text = |value: Option<i128>| value.map(|value| value.to_string());
    let micro = |value: Option<Micro>| value.map(|value| value.0);
    sqlx::query(UPSERT)
        .bind(rows.iter().map(|(user, _)| *user).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.key.metric.code()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.key.day).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.count).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| text(row.sum_micro)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| micro(row.min)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| micro(row.max)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| text(row.sum_sq_micro)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.offset_min).collect::<Vec<_>>())
        .bind(HEALTH_ROLLUP.compute_version)
        .execute(db)
        .await?;
    Ok(())
}

const OF_USER: &str = "
SELECT metric, day, count_val, trunc(sum_val * 1000000)::text, trunc(min_val * 1000000)::int8,
       trunc(max_val * 1000000)::int8, trunc(sum_sq * 1000000)::text, tz_offset_min
FROM health_rollup_days WHERE user_id = $1";

/// All rows of one person, by metric and day.
///
/// # Errors
/// Database errors; [`ProjectorError::Row`] for a row this version cannot have written.
pub async fn of_user(db: &mut PgConnection, user: UserId) -> Result<Vec<DayRow>, ProjectorError> {
    let rows = sqlx::query(OF_USER).bind(user.0).fetch_all(db).await?;
    let mut rows = rows.iter().map(day_row).collect::<Result<Vec<_>, _>>()?;
    rows.sort_unstable_by_key(|row| row.key);
    Ok(rows)
}

fn day_row(row: &PgRow) -> Result<DayRow, ProjectorError> {
    let wrong = |column| ProjectorError::Row { projector: HEALTH_ROLLUP.name, column };
    let micro = |index: usize, column| -> Result<Option<i128>, ProjectorError> {
        let text: Option<&str> = row.try_get(index)?;
        text.map(|text| text.parse().map_err(|_| wrong(column))).transpose()
    };
    let metric = Metric::parse(row.try_get(0)?).ok_or_else(|| wrong("metric"))?;
    let value = |index: usize| -> Result<Option<Micro>, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(index)?.map(Micro))
    };
    Ok(DayRow {
        key: DayKey { metric, day: row.try_get(1)? },
        count: row.try_get(2)?,
        sum_micro: micro(3, "sum_val")?,
        min: value(4)?,
        max: value(5)?,
        sum_sq_micro: micro(6, "sum_sq")?,
        offset_min: row.try_get(7)?,
    })
}

/// Days that are read together.
pub struct Run {
    pub first: NaiveDate,
    pub last: NaiveDate,
    pub keys: BTreeSet<DayKey>,
}

/// Dirty days as runs of neighbouring dates, each of which is one read of samples. Two days apart
/// still count as neighbours: their ranges of instants overlap. A run ends after a month, so that
/// an import of years is never in memory at once.
pub fn runs(keys: &BTreeSet<DayKey>) -> Vec<Run> {
    const REACH: Days = Days::new(2);
    const LONGEST: Days = Days::new(31);
    let mut by_day: Vec<DayKey> = keys.iter().copied().collect();
    by_day.sort_unstable_by_key(|key| (key.day, key.metric));
    let within = |from: NaiveDate, days: Days, day: NaiveDate| {
        from.checked_add_days(days).is_some_and(|end| day <= end)
    };
    let mut runs: Vec<Run> = Vec::new();
    for key in by_day {
        match runs.last_mut() {
            Some(run)
                if within(run.last, REACH, key.day) && within(run.first, LONGEST, key.day) =>
            {
                run.last = key.day;
                run.keys.insert(key);
            }
            _ => runs.push(Run { first: key.day, last: key.day, keys: BTreeSet::from([key]) }),
        }
    }
    runs
}

/// A question for one metric's days.
#[derive(Clone, Copy, Debug)]
pub struct DaysQuery {
    pub metric: Metric,
    /// Both ends included.
    pub first: NaiveDate,
    pub last: NaiveDate,
    /// Only later days than this one: where the page before ended.
    pub after: Option<NaiveDate>,
    pub limit: u32,
}

/// A stored day as an answer shows it.
#[derive(Clone, Debug)]
pub struct Day {
    /// The same for ever for the same person, metric and day.
    pub id: Uuid,
    pub row: DayRow,
    pub computed_at: DateTime<Utc>,
    pub compute_version: i32,
}

/// A page of days, and what is known about the whole range.
#[derive(Clone, Debug)]
pub struct DaysPage {
    pub days: Vec<Day>,
    pub has_more: bool,
    pub progress: Progress,
    /// Of the tables the page was read from.
    pub generation: i32,
    /// Days of the whole range, by stored status.
    ready: u64,
    no_data: u64,
}

impl DaysPage {
    /// The same read model as it looks to a person who has no days in it.
    pub fn hidden(self) -> Self {
        Self { days: Vec::new(), has_more: false, ready: 0, no_data: 0, ..self }
    }

    /// The summary of the whole range. `heard` is the person's head for the classes the rollup
    /// hears, read after this page.
    pub fn summary(&self, heard: i64) -> Summary {
        let (progress, covered) = (&self.progress, self.progress.covers(heard));
        let served = |stored: Stored| stored.given(progress).served(covered, progress.parked);
        let mut counts = StatusCounts::default();
        counts.add(served(Stored::Ready), self.ready);
        counts.add(served(Stored::NoData), self.no_data);
        Summary::of(counts, covered, progress)
    }

    /// What one day of the page is worth: see [`Stored::given`].
    pub fn worth(&self, day: &Day) -> Stored {
        day.row.status().given(&self.progress)
    }

    /// The freshness of one day of the page.
    pub fn freshness(&self, day: &Day, heard: i64) -> Freshness {
        let covered = self.progress.covers(heard);
        let status: Status = self.worth(day).served(covered, self.progress.parked);
        Freshness {
            status,
            computed_at_iso: Some(
                day.computed_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            ),
            source_watermark: self.progress.watermark(),
            compute_version: day.compute_version,
        }
    }
}

const DAYS: &str = "
SELECT metric, day, count_val, trunc(sum_val * 1000000)::text, trunc(min_val * 1000000)::int8,
       trunc(max_val * 1000000)::int8, trunc(sum_sq * 1000000)::text, tz_offset_min,
       computed_at, compute_version
FROM health_rollup_days
WHERE user_id = $1 AND metric = $2 AND day BETWEEN $3 AND $4 AND ($5::date IS NULL OR day > $5)
ORDER BY day LIMIT $6";

const COUNTS: &str = "
SELECT count(*) FILTER (WHERE count_val > 0), count(*) FILTER (WHERE count_val = 0)
FROM health_rollup_days WHERE user_id = $1 AND metric = $2 AND day BETWEEN $3 AND $4";

/// One page of a metric's days, in order of day.
///
/// # Errors
/// [`ProjectorError::NoGeneration`] before the projector first ran; database errors.
pub async fn days(
    pool: &PgPool,
    user: UserId,
    query: &DaysQuery,
) -> Result<DaysPage, ProjectorError> {
    match days_once(pool, user, query, Attempt::First).await {
        Err(error) if overtaken(&error) => days_once(pool, user, query, Attempt::Again).await,
        result => result,
    }
}

async fn days_once(
    pool: &PgPool,
    user: UserId,
    query: &DaysQuery,
    attempt: Attempt,
) -> Result<DaysPage, ProjectorError> {
    let mut pinned = Pinned::open(pool, ReadModel::HealthRollup, user, attempt).await?;
    let (ready, no_data): (i64, i64) = sqlx::query_as(COUNTS)
        .bind(user.0)
        .bind(query.metric.code())
        .bind(query.first)
        .bind(query.last)
        .fetch_one(&mut *pinned.tx)
        .await?;
    // One more than asked for, to know whether there is more.
    let mut rows = sqlx::query(DAYS)
        .bind(user.0)
        .bind(query.metric.code())
        .bind(query.first)
        .bind(query.last)
        .bind(query.after)
        .bind(i64::from(query.limit) + 1)
        .fetch_all(&mut *pinned.tx)
        .await?;
    let has_more = rows.len() > query.limit as usize;
    rows.truncate(query.limit as usize);
    let days = rows
        .iter()
        .map(|row| {
            let stored = day_row(row)?;
            Ok(Day {
                id: row_id(user, stored.key),
                row: stored,
                computed_at: row.try_get(8)?,
                compute_version: row.try_get(9)?,
            })
        })
        .collect::<Result<Vec<_>, ProjectorError>>()?;
    Ok(DaysPage {
        days,
        has_more,
        progress: pinned.progress,
        generation: pinned.generation.number,
        ready: ready.unsigned_abs(),
        no_data: no_data.unsigned_abs(),
    })
}

/// The id of a row: a name within the person's own name space, so that a rebuilt row is the same
/// row to a phone.
pub fn row_id(user: UserId, key: DayKey) -> Uuid {
    let name = format!("{}/{}/{}", HEALTH_ROLLUP.name, key.metric.code(), key.day);
    Uuid::new_v5(&user.0, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(days: &[u64]) -> BTreeSet<DayKey> {
        let first = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
        let metrics = [Metric::parse("steps").unwrap(), Metric::HEART_RATE];
        days.iter()
            .flat_map(|day| metrics.map(|metric| DayKey { metric, day: first + Days::new(*day) }))
            .collect()
    }

    #[test]
    fn runs_cover_every_dirty_day_once() {
        let lengths = |days: &[u64]| -> Vec<usize> {
            let runs = runs(&keys(days));
            let all: BTreeSet<DayKey> = runs.iter().flat_map(|run| run.keys.clone()).collect();
            assert_eq!(all, keys(days));
            assert!(runs.iter().all(|run| {
                run.keys.iter().all(|key| (run.first..=run.last).contains(&key.day))
            }));
            runs.iter().map(|run| run.keys.len() / 2).collect()
        };
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&[0, 1, 3, 6, 7]), [3, 2]);
        assert_eq!(lengths(&(0..70).collect::<Vec<_>>()), [32, 32, 6]);
    }

    #[test]
    fn a_rows_id_depends_on_person_metric_and_day_alone() {
        let all = keys(&[0, 1]);
        let ids = |user| -> Vec<Uuid> {
            all.iter().map(|key| row_id(UserId(Uuid::from_u128(user)), *key)).collect()
        };
        assert_eq!(ids(1), ids(1));
        assert_eq!([ids(1), ids(2)].concat().into_iter().collect::<BTreeSet<_>>().len(), 8);
    }
}
