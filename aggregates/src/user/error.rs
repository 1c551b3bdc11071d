//! The ways an account refuses a command.

use crate::entity::FieldError;

/// Why an account refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("no such user")]
    NotFound,
    #[error("the account is being erased")]
    Gone,
    #[error("the patch is empty")]
    EmptyPatch,
    #[error("a completed onboarding stays completed")]
    OnboardingCompleted,
    #[error("the onboarding questionnaire is newer than this server")]
    OnboardingTooNew,
    #[error("{} field(s) are not valid", .0.len())]
    Invalid(Vec<FieldError>),
}

impl UserError {
    /// The stable code for the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::Gone => "GONE",
            Self::OnboardingCompleted => "INVALID_OPERATION",
            Self::EmptyPatch | Self::OnboardingTooNew | Self::Invalid(_) => "VALIDATION_ERROR",
        }
    }
}
