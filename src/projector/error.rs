//! Why projecting failed, sorted by what to do about it.

use super::compare::Comparison;
use super::source::SourceError;

/// The class of an event that has not been looked at, because whoever did so before died.
pub const DIED: &str = "died";

/// A failure of the machinery.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    #[error("the read side did not answer")]
    Database(#[from] sqlx::Error),
    #[error("the source did not answer")]
    Source(#[from] SourceError),
    /// Somebody else moved the checkpoint or took the lease. Nothing was written.
    #[error("another worker owns this shard of {projector}")]
    Lost { projector: &'static str },
    #[error("{projector} has no live generation")]
    NoGeneration { projector: &'static str },
    #[error("generation {generation} of {projector} was left behind and could not be swapped in")]
    Behind { projector: &'static str, generation: i32 },
    #[error("a new generation of {projector} cannot read {people} people whom the live one shows")]
    Worse { projector: &'static str, people: usize },
    #[error("another generation of {projector} is being built (`tidemark projectors list`)")]
    Building { projector: &'static str },
    #[error("building a generation of {projector} was called off")]
    Cancelled { projector: &'static str },
    #[error("rows of {projector} differ in other ways than expected, so the live generation stays")]
    Differs { projector: &'static str, report: Box<Comparison> },
    #[error("computing rows of {projector} panicked")]
    Panicked { projector: &'static str },
    #[error("a stored row of {projector} does not have its shape: {column}")]
    Row { projector: &'static str, column: &'static str },
}

impl ProjectorError {
    /// Whether the same work may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => is_transient(error),
            Self::Source(SourceError::Unavailable(_))
            | Self::Lost { .. }
            | Self::Behind { .. }
            | Self::Cancelled { .. }
            | Self::Building { .. } => true,
            Self::Source(SourceError::Unreadable { .. })
            | Self::NoGeneration { .. }
            | Self::Worse { .. }
            | Self::Differs { .. }
            | Self::Panicked { .. }
            | Self::Row { .. } => false,
        }
    }

    /// What kind of poison it is: a label from a closed set.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Source(SourceError::Unreadable { class: DIED }) => DIED,
            Self::Source(_) => "unreadable",
            Self::Panicked { .. } => "panic",
            _ => "refused",
        }
    }

    /// A stable code for the list of parked people. Never content.
    pub fn class(&self) -> String {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                format!("database_{}", error.code().unwrap_or_default())
            }
            Self::Database(_) => "database".to_owned(),
            Self::Source(SourceError::Unreadable { class }) => (*class).to_owned(),
            Self::Source(SourceError::Unavailable(_)) => "unavailable".to_owned(),
            Self::Lost { .. } => "lost".to_owned(),
            Self::NoGeneration { .. } => "no_generation".to_owned(),
            Self::Behind { .. } => "behind".to_owned(),
            Self::Worse { .. } => "worse".to_owned(),
            Self::Building { .. } => "building".to_owned(),
            Self::Cancelled { .. } => "cancelled".to_owned(),
            Self::Differs { .. } => "differs".to_owned(),
            Self::Panicked { .. } => "panic".to_owned(),
            Self::Row { column, .. } => format!("row_{column}"),
        }
    }
}

/// Errors of the connection, of contention and of shutdown pass; errors of the data do not.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // Of class 25: a transaction that waited too long, and a primary that is none any more.
            matches!(code.as_ref(), "25P03" | "25006")
                || ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
