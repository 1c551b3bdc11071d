//! A person: profile, preferences and what they allow to be done with their data.
//!
//! Created at the first authenticated request, with whatever the token says; everything is
//! optional. Invariants: a completed onboarding never becomes incomplete; after a request for
//! erasure nothing changes any more; health uploads follow [`HealthPrivacy`] and nothing else.

mod aggregate;
mod command;
mod decide;
mod error;
mod event;
mod preferences;
mod state;
mod tables;

#[cfg(test)]
mod tests;

pub use command::UserCommand;
pub use error::UserError;
pub use event::{
    TYPE, UserErasureRequested, UserEvent, UserHealthPrivacyChanged, UserPreferencesUpdated,
    UserProfileUpdated, UserRegistered,
};
pub use preferences::{HealthPrivacy, ONBOARDING_SCHEMA_VERSION};
pub use state::{AccountStatus, User};
