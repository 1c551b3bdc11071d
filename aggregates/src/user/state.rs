//! The state of a person's account and how events change it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::event::UserEvent;
use super::preferences::{HealthPrivacy, default_notifications, default_privacy};
use crate::UserId;
use crate::entity::time::format_instant;
use crate::entity::{Edit, Fields};

/// Whether an account may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    /// Nothing has happened yet.
    #[default]
    Unknown,
    Active,
    /// Erasure was requested.
    Deleted,
}

/// A person's account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Events of the stream so far: the wire's `version`.
    pub version: i64,
    pub status: AccountStatus,
    /// Profile by wire name; empty fields are absent.
    pub profile: Fields,
    /// `privacySettings` where they differ from the defaults, without the health block.
    pub privacy: Fields,
    pub notifications: Fields,
    pub onboarding: Fields,
    pub health: HealthPrivacy,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
}

impl User {
    /// Folds one event.
    pub fn fold(&mut self, event: &UserEvent) {
        match event {
            UserEvent::Registered(data) => {
                self.touch(&data.edit);
                self.created_at_ms = data.edit.at_ms;
                self.status = AccountStatus::Active;
                merge(&mut self.profile, &data.profile);
            }
            UserEvent::ProfileUpdated(data) => {
                self.touch(&data.edit);
                merge(&mut self.profile, &data.set);
            }
            UserEvent::PreferencesUpdated(data) => {
                self.touch(&data.edit);
                merge(&mut self.privacy, &data.privacy);
                merge(&mut self.notifications, &data.notifications);
                merge(&mut self.profile, &data.profile);
                if let Some(onboarding) = &data.onboarding {
                    self.onboarding = onboarding.clone();
                }
            }
            UserEvent::HealthPrivacyChanged(data) => {
                self.touch(&data.edit);
                self.health = data.health.clone();
            }
            UserEvent::ErasureRequested(data) => {
                self.touch(&data.edit);
                self.status = AccountStatus::Deleted;
            }
        }
    }

    fn touch(&mut self, edit: &Edit) {
        self.version += 1;
        self.updated_at_ms = edit.at_ms;
    }

    /// All of `privacySettings`, defaults included.
    pub fn privacy_to_wire(&self) -> Map<String, Value> {
        let mut wire: Map<String, Value> = default_privacy().into_iter().collect();
        wire.extend(self.privacy.clone());
        wire.insert("health".to_owned(), self.health.to_wire());
        wire
    }

    /// All of `notificationSettings`, defaults included.
    pub fn notifications_to_wire(&self) -> Map<String, Value> {
        let mut wire: Map<String, Value> = default_notifications().into_iter().collect();
        wire.extend(self.notifications.clone());
        wire
    }

    /// The account as the wire shows it.
    pub fn to_wire(&self, id: UserId) -> Map<String, Value> {
        let fields = super::tables::REGISTRATION.iter().chain(super::tables::PROFILE);
        let mut wire: Map<String, Value> = fields
            .map(|field| {
                let value = self.profile.get(field.name).cloned();
                (field.name.to_owned(), value.unwrap_or(Value::Null))
            })
            .collect();
        for flag in ["emailVerified", "phoneNumberVerified"] {
            wire.entry(flag).and_modify(|value| {
                if value.is_null() {
                    *value = false.into();
                }
            });
        }
        let onboarding: Map<String, Value> = self.onboarding.clone().into_iter().collect();
        let onboarding =
            if onboarding.is_empty() { Value::Null } else { Value::Object(onboarding) };
        let status = if self.status == AccountStatus::Deleted { "DELETED" } else { "ACTIVE" };
        wire.insert("id".to_owned(), id.to_string().into());
        wire.insert("userType".to_owned(), "STANDARD".into());
        wire.insert("accountStatus".to_owned(), status.into());
        wire.insert("privacySettings".to_owned(), self.privacy_to_wire().into());
        wire.insert("notificationSettings".to_owned(), self.notifications_to_wire().into());
        wire.insert("onboardingPreferences".to_owned(), onboarding);
        wire.insert("version".to_owned(), self.version.into());
        wire.insert("createdAt".to_owned(), format_instant(self.created_at_ms).into());
        wire.insert("updatedAt".to_owned(), format_instant(self.updated_at_ms).into());
        wire
    }
}

fn merge(into: &mut Fields, set: &Fields) {
    for (name, value) in set {
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
}
