//! Is there room on Postgres's disk?
//!
//! On a full disk reads go on, and so would a check that reads. This one makes Postgres write: a
//! result that does not fit into the memory it is given goes to a temporary file, which takes room
//! where tables do, leaves nothing behind and writes no log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgPool};
use tokio::sync::Mutex;

/// How long room that was found is relied on, unless appends fail.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The least that Postgres lets a statement have.
const LITTLE_MEMORY: &str = "SET LOCAL work_mem = '64kB'";
/// A result of a bit more than 1 MiB.
const MORE_THAN_THAT: &str = "SELECT count(*) FROM generate_series(1, 80000)";

/// When there was room, for all who ask. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<Mutex<Option<Instant>>>);

impl Room {
    /// Whether there is room. It is looked for anew every minute, while there is none, and where
    /// there is `doubt`.
    ///
    /// # Errors
    /// Where there is none, or the database does not answer.
    pub async fn check(&self, pool: &PgPool, doubt: bool) -> Result<(), sqlx::Error> {
        let mut found = self.0.lock().await;
        if !doubt && found.is_some_and(|at| at.elapsed() < REMEMBERED) {
            return Ok(());
        }
        *found = None;
        write(pool).await?;
        *found = Some(Instant::now());
        Ok(())
    }
}

/// Writes about a mebibyte.
async fn write(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    sqlx::query(LITTLE_MEMORY).execute(&mut *transaction).await?;
    sqlx::query(MORE_THAN_THAT).execute(&mut *transaction).await?;
    transaction.rollback().await
}
