//! Is there room on Postgres's disk?
//!
//! On a full disk reads go on, and so would a check that reads. This one makes Postgres write: a
//! result that does not fit into the memory it is given goes to a temporary file, which takes room
//! where tables do, leaves nothing behind and writes no log.

use sqlx::{Connection, PgPool};

/// The least that Postgres lets a statement have.
const LITTLE_MEMORY: &str = "SET LOCAL work_mem = '64kB'";
/// A result of a bit more than 1 MiB.
const MORE_THAN_THAT: &str = "SELECT count(*) FROM generate_series(1, 80000)";

/// Writes about a mebibyte.
///
/// # Errors
/// Where there is no room for it, or the database does not answer.
pub async fn check(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    sqlx::query(LITTLE_MEMORY).execute(&mut *transaction).await?;
    sqlx::query(MORE_THAN_THAT).execute(&mut *transaction).await?;
    transaction.rollback().await
}
