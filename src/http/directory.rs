//! From a verified token to an account, and from failures of commands to answers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aggregates::user::UserError;
use aggregates::{Metadata, UserId};
use futures_util::future::BoxFuture;
use serde_json::Map;
use uuid::Uuid;

use super::error::{ApiError, FieldError, code};
use super::state::UserDirectory;
use crate::app::App;
use crate::auth::Identity;
use crate::commands::CommandError;
use crate::commands::users::AccountError;
use crate::store::{AppendError, ReadError};

/// Accounts of the running system.
pub struct Directory(pub Arc<OnceLock<Arc<App>>>);

impl UserDirectory for Directory {
    fn resolve<'a>(
        &'a self,
        identity: &'a Identity,
        correlation: Uuid,
    ) -> BoxFuture<'a, Result<UserId, ApiError>> {
        Box::pin(async move {
            let app = self.0.get().ok_or(code::SERVICE_UNAVAILABLE)?;
            let metadata = Metadata::owner(correlation);
            let accounts = &app.accounts;
            Ok(accounts
                .resolve(&identity.issuer, &identity.subject, &Map::new(), &metadata)
                .await?)
        })
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            // Another server may be new enough already, and this one is about to be.
            ReadError::Database(_) | ReadError::Newer { .. } => Self::unavailable(error),
            ReadError::Key(ref key) if !key.is_alarm() => Self::unavailable(error),
            ReadError::Key(_) | ReadError::Corrupt { .. } => Self::internal(error),
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Unavailable => Self::unavailable(error),
            AppendError::TooLarge(message) => {
                Self::new(code::PAYLOAD_TOO_LARGE).with_message(message)
            }
            AppendError::Key(ref key) if !key.is_alarm() => Self::unavailable(error),
            AppendError::Key(_) | AppendError::Sealing(_) | AppendError::Internal(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotFound => code::NOT_FOUND.into(),
            CommandError::Busy => Self::unavailable(error).with_retry_after(Duration::from_secs(1)),
            CommandError::Read(error) => error.into(),
            CommandError::Append(error) => error.into(),
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Erased => code::ACCOUNT_ERASED.into(),
            AccountError::UsernameTaken => {
                Self::new(code::DUPLICATE_ENTRY).with_field_errors(vec![FieldError {
                    field: "/username".to_owned(),
                    message: "is taken".to_owned(),
                }])
            }
            AccountError::Command(error) => error.into(),
            AccountError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<UserError> for ApiError {
    fn from(error: UserError) -> Self {
        let message = error.to_string();
        match error {
            UserError::Invalid(errors) => Self::validation(field_errors(errors)),
            UserError::Gone => code::ACCOUNT_ERASED.into(),
            UserError::NotFound => code::NOT_FOUND.into(),
            UserError::OnboardingCompleted => {
                Self::new(code::INVALID_OPERATION).with_message(message)
            }
            UserError::EmptyPatch | UserError::OnboardingTooNew => {
                Self::new(code::VALIDATION_ERROR).with_message(message)
            }
        }
    }
}

/// Refused fields as the wire shows them.
pub fn field_errors(errors: Vec<aggregates::entity::FieldError>) -> Vec<FieldError> {
    errors
        .into_iter()
        .map(|error| FieldError { field: error.pointer, message: error.message })
        .collect()
}
