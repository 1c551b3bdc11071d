//! Reading one generation from beginning to end.
//!
//! A reader pins the live generation in a snapshot: rows and progress are of the same moment and
//! of the same generation, whatever is swapped meanwhile. The old generation's tables stay until an
//! operator drops them; a reader that was overtaken by that tries once more.

use aggregates::UserId;
use projections::freshness::Progress;
use sqlx::{Connection, PgPool, Postgres, Transaction};

use super::ReadModel;
use crate::projector::{Generation, ProjectorError, generation, progress};

/// A snapshot of the live generation, for one person.
pub struct Pinned {
    pub tx: Transaction<'static, Postgres>,
    pub generation: Generation,
    pub progress: Progress,
}

/// Which attempt a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    First,
    /// After [`overtaken`]: forget plans that were made for other tables.
    Again,
}

impl Pinned {
    /// Pins the live generation; unqualified table names mean its tables from here on.
    ///
    /// # Errors
    /// [`ProjectorError::NoGeneration`] before a projector first ran; database errors.
    pub async fn open(
        pool: &PgPool,
        model: ReadModel,
        user: UserId,
        attempt: Attempt,
    ) -> Result<Self, ProjectorError> {
        let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        if attempt == Attempt::Again {
            tx.clear_cached_statements().await?;
        }
        let generation = generation::live(&mut tx, model)
            .await?
            .ok_or(ProjectorError::NoGeneration { projector: model.spec().name })?;
        generation::use_schema(&mut tx, &generation).await?;
        let progress = progress::of_user(&mut tx, &generation, user).await?;
        Ok(Self { tx, generation, progress })
    }
}

/// How far the live generation has come for a person; nowhere before the projector first ran.
///
/// # Errors
/// Database errors.
pub async fn progress(
    pool: &PgPool,
    model: ReadModel,
    user: UserId,
) -> Result<Progress, ProjectorError> {
    match Pinned::open(pool, model, user, Attempt::First).await {
        Ok(pinned) => Ok(pinned.progress),
        Err(ProjectorError::NoGeneration { .. }) => Ok(Progress::default()),
        Err(error) => Err(error),
    }
}

/// Whether a read met a change of the tables under it: other column types than planned for, or a
/// generation that was dropped.
pub fn overtaken(error: &ProjectorError) -> bool {
    match error {
        ProjectorError::Database(sqlx::Error::Database(error)) => {
            matches!(error.code().as_deref(), Some("0A000" | "42P01" | "3F000"))
        }
        _ => false,
    }
}
