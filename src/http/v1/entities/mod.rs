//! What the resources of synced entities share.

pub(super) mod list;
pub(super) mod request;
pub(super) mod schema;

use aggregates::session::SessionError;

use crate::commands::entities::EntityError;
use crate::http::directory::field_errors;
use crate::http::error::{ApiError, code};
use crate::projector::{ProjectorError, SourceError};

impl From<EntityError> for ApiError {
    fn from(error: EntityError) -> Self {
        let message = error.to_string();
        match error {
            EntityError::Invalid(errors) => Self::validation(field_errors(errors)),
            EntityError::Session(SessionError::StatusNotEditable) => {
                Self::invalid_field("/status", message)
            }
            EntityError::Session(_) | EntityError::Stale => {
                Self::new(code::CONFLICT).with_message(message)
            }
            EntityError::Deleted => Self::new(code::DUPLICATE_ENTRY).with_message(message),
            EntityError::KeyReused => code::DUPLICATE_REQUEST.into(),
            EntityError::Command(error) => error.into(),
        }
    }
}

impl From<ProjectorError> for ApiError {
    fn from(error: ProjectorError) -> Self {
        match error {
            // The first generation is made while the server starts.
            ProjectorError::NoGeneration { .. } => Self::unavailable(error),
            _ if error.is_transient() => Self::unavailable(error),
            _ => Self::internal(error),
        }
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        ProjectorError::from(error).into()
    }
}
