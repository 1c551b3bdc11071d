//! The rules of an account's commands.

use serde_json::{Map, Value};

use super::command::UserCommand;
use super::error::UserError;
use super::event::{
    UserErasureRequested, UserEvent, UserHealthPrivacyChanged, UserPreferencesUpdated,
    UserProfileUpdated, UserRegistered,
};
use super::preferences::{Patch, default_notifications, default_privacy, merge_onboarding};
use super::state::{AccountStatus, User};
use super::tables::{PROFILE, REGISTRATION};
use crate::entity::{Context, Fields, normalise_strict};

impl User {
    /// Decides a command: no event where nothing changes.
    ///
    /// # Errors
    /// [`UserError`] where the account's state or the patch do not allow it.
    pub fn decide(&self, command: UserCommand, ctx: &Context) -> Result<Vec<UserEvent>, UserError> {
        match (self.status, command) {
            (AccountStatus::Deleted, UserCommand::RequestErasure) => Ok(Vec::new()),
            (AccountStatus::Deleted, _) => Err(UserError::Gone),
            (AccountStatus::Unknown, UserCommand::Register { profile }) => register(&profile, ctx),
            (AccountStatus::Unknown, _) => Err(UserError::NotFound),
            (AccountStatus::Active, UserCommand::Register { .. }) => Ok(Vec::new()),
            (AccountStatus::Active, UserCommand::UpdateProfile { patch }) => {
                self.update_profile(patch, ctx)
            }
            (AccountStatus::Active, UserCommand::UpdatePreferences { patch }) => {
                self.update_preferences(&patch, ctx)
            }
            (AccountStatus::Active, UserCommand::RequestErasure) => {
                let edit = ctx.edit();
                Ok(vec![UserEvent::ErasureRequested(UserErasureRequested { edit })])
            }
        }
    }

    fn update_profile(
        &self,
        mut patch: Map<String, Value>,
        ctx: &Context,
    ) -> Result<Vec<UserEvent>, UserError> {
        if patch.is_empty() {
            return Err(UserError::EmptyPatch);
        }
        // Older clients send it along; roles come from elsewhere.
        patch.remove("userType");
        let set = checked(PROFILE, &patch)?;
        let set = changes(&set, |name| self.profile.get(name).cloned());
        if set.is_empty() {
            return Ok(Vec::new());
        }
        let data = UserProfileUpdated { set, edit: ctx.edit() };
        Ok(vec![UserEvent::ProfileUpdated(data)])
    }

    fn update_preferences(
        &self,
        patch: &Map<String, Value>,
        ctx: &Context,
    ) -> Result<Vec<UserEvent>, UserError> {
        if patch.is_empty() {
            return Err(UserError::EmptyPatch);
        }
        let patch = Patch::read(patch)?;
        let (privacy, notifications) = (default_privacy(), default_notifications());
        let mut profile = Fields::new();
        if let Some(wellness) = &patch.wellness {
            profile.insert("wellnessPreferences".to_owned(), wellness.clone());
        }
        let onboarding = match &patch.onboarding {
            Some(onboarding) => Some(merge_onboarding(&self.onboarding, onboarding)?),
            None => None,
        };
        let update = UserPreferencesUpdated {
            privacy: changes(&patch.privacy, |name| {
                self.privacy.get(name).or_else(|| privacy.get(name)).cloned()
            }),
            notifications: changes(&patch.notifications, |name| {
                self.notifications.get(name).or_else(|| notifications.get(name)).cloned()
            }),
            profile: changes(&profile, |name| self.profile.get(name).cloned()),
            onboarding: onboarding.filter(|onboarding| *onboarding != self.onboarding),
            edit: ctx.edit(),
        };
        let mut events = Vec::new();
        let says_something = !update.privacy.is_empty()
            || !update.notifications.is_empty()
            || !update.profile.is_empty()
            || update.onboarding.is_some();
        if says_something {
            events.push(UserEvent::PreferencesUpdated(update));
        }
        let health = patch.health_after(&self.health);
        if health != self.health {
            let data = UserHealthPrivacyChanged { health, edit: ctx.edit() };
            events.push(UserEvent::HealthPrivacyChanged(data));
        }
        Ok(events)
    }
}

fn register(profile: &Map<String, Value>, ctx: &Context) -> Result<Vec<UserEvent>, UserError> {
    let mut profile = checked(REGISTRATION, profile)?;
    profile.retain(|_, value| !value.is_null());
    Ok(vec![UserEvent::Registered(UserRegistered { profile, edit: ctx.edit() })])
}

fn checked(
    table: &[crate::entity::Field],
    patch: &Map<String, Value>,
) -> Result<Fields, UserError> {
    let mut errors = Vec::new();
    let mut fields = normalise_strict(table, patch, "", &mut errors);
    if let Some(url) = fields.get("avatarUrl").and_then(Value::as_str)
        && !url.starts_with("https://")
        && !url.starts_with("http://")
    {
        let message = "must be a web address";
        errors.push(crate::entity::FieldError::new("avatarUrl", "invalid_url", message));
        fields.remove("avatarUrl");
    }
    if errors.is_empty() { Ok(fields) } else { Err(UserError::Invalid(errors)) }
}

/// The part of a patch that differs from what is there.
fn changes(patch: &Fields, current: impl Fn(&str) -> Option<Value>) -> Fields {
    patch
        .iter()
        .filter(|(name, value)| current(name).unwrap_or(Value::Null) != **value)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
