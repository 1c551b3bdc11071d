//! App installations, and what each of them says it holds. Not a fold of the log: losing it costs
//! spurious conflicts, never data.

use aggregates::UserId;
use sqlx::Row;
use uuid::Uuid;

use super::Store;
use super::read::ReadError;

/// Acknowledgements of one installation that are kept; an edit older than all of them counts as
/// made without knowledge of anything.
const KEPT: i64 = 64;
const KEPT_LEN: usize = 64;

pub(crate) const FIND: &str =
    "SELECT installation FROM installations WHERE user_id = $1 AND device_hmac = $2";
pub(crate) const REGISTER: &str = "INSERT INTO installations \
     (user_id, device_hmac, installation, created_ms) VALUES ($1, $2, $3, $4) \
     ON CONFLICT DO NOTHING";
pub(crate) const ACKNOWLEDGE: &str = "INSERT INTO acknowledgements \
     (user_id, installation, run, position, acked_ms) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (user_id, installation, run) \
     DO UPDATE SET position = excluded.position, acked_ms = excluded.acked_ms";
pub(crate) const ACKNOWLEDGED: &str = "SELECT run, position, acked_ms FROM acknowledgements \
     WHERE user_id = $1 AND installation = $2 ORDER BY run DESC LIMIT $3";
pub(crate) const FORGET_OLD: &str = "DELETE FROM acknowledgements \
     WHERE user_id = $1 AND installation = $2 AND run < $3";

/// What an installation said it holds when it began to pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Where the log ended then. It numbers the runs.
    pub head: i64,
    /// Every row of the feed up to here.
    pub position: i64,
    /// When it said so, in ms since the Unix epoch.
    pub acked_ms: i64,
}

impl Store {
    /// The server's id of an installation, if it was seen before.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn find_installation(
        &self,
        user: UserId,
        device: &[u8],
    ) -> Result<Option<Uuid>, ReadError> {
        Ok(sqlx::query_scalar(FIND).bind(user.0).bind(device).fetch_optional(&self.pool).await?)
    }

    /// The server's id of an installation: the one it has, else `fresh`.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn installation(
        &self,
        user: UserId,
        device: &[u8],
        fresh: Uuid,
        now_ms: i64,
    ) -> Result<Uuid, ReadError> {
        if let Some(known) = self.find_installation(user, device).await? {
            return Ok(known);
        }
        sqlx::query(REGISTER)
            .bind(user.0)
            .bind(device)
            .bind(fresh)
            .bind(now_ms)
            .execute(&self.pool)
            .await?;
        Ok(self.find_installation(user, device).await?.unwrap_or(fresh))
    }

    /// Keeps what an installation says it holds. It may hold less than before.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn acknowledge(
        &self,
        user: UserId,
        installation: Uuid,
        said: Acknowledgement,
    ) -> Result<(), ReadError> {
        let kept = self.acknowledged(user, installation).await?;
        if kept.first().is_some_and(|last| last.position == said.position && last.head == said.head)
        {
            return Ok(());
        }
        sqlx::query(ACKNOWLEDGE)
            .bind(user.0)
            .bind(installation)
            .bind(said.head)
            .bind(said.position)
            .bind(said.acked_ms)
            .execute(&self.pool)
            .await?;
        if let (Some(oldest), true) = (kept.last(), kept.len() >= KEPT_LEN) {
            sqlx::query(FORGET_OLD)
                .bind(user.0)
                .bind(installation)
                .bind(oldest.head)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// What an installation said it holds, latest first.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn acknowledged(
        &self,
        user: UserId,
        installation: Uuid,
    ) -> Result<Vec<Acknowledgement>, ReadError> {
        let rows = sqlx::query(ACKNOWLEDGED)
            .bind(user.0)
            .bind(installation)
            .bind(KEPT)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Acknowledgement {
                    head: row.try_get(0)?,
                    position: row.try_get(1)?,
                    acked_ms: row.try_get(2)?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(Into::into)
    }
}
