//! The ways a session refuses a command.

use super::state::Status;
use crate::entity::{FieldError, Refusal};

/// Why a session refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("no such session")]
    NotFound,
    #[error("a session that is {} cannot {command}", .from.as_str())]
    IllegalTransition { from: Status, command: &'static str },
    #[error("the status changes only by pausing, resuming, ending and cancelling")]
    StatusNotEditable,
    #[error("the session was changed since it was read")]
    Stale,
    #[error("a cancelled session takes no consumptions")]
    Cancelled,
    #[error("the session is not idle yet")]
    NotIdle,
    #[error("{} field(s) are not valid", .0.len())]
    Invalid(Vec<FieldError>),
}

impl SessionError {
    /// The stable code for the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::IllegalTransition { .. } | Self::Stale | Self::Cancelled | Self::NotIdle => {
                "CONFLICT"
            }
            Self::StatusNotEditable | Self::Invalid(_) => "VALIDATION_ERROR",
        }
    }
}

impl From<Refusal> for SessionError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(errors) => Self::Invalid(errors),
            Refusal::Orphan => Self::NotFound,
        }
    }
}
