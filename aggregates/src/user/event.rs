//! What can happen to a person's account.

use serde::{Deserialize, Serialize};

use super::preferences::HealthPrivacy;
use crate::entity::{Edit, Fields};
use crate::event::{
    DecodeError, Encoded, EventType, Purpose, StoredEvent, from_payload, to_payload,
};

/// `aggregate_type` of a person's stream; its id is the user's.
pub const TYPE: &str = "user";

/// What happened to a person's account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum UserEvent {
    #[serde(rename = "user.registered")]
    Registered(UserRegistered),
    #[serde(rename = "user.profile_updated")]
    ProfileUpdated(UserProfileUpdated),
    #[serde(rename = "user.preferences_updated")]
    PreferencesUpdated(UserPreferencesUpdated),
    #[serde(rename = "user.health_privacy_changed")]
    HealthPrivacyChanged(UserHealthPrivacyChanged),
    #[serde(rename = "user.erasure_requested")]
    ErasureRequested(UserErasureRequested),
}

/// A person was seen for the first time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserRegistered {
    /// What is known so far, by wire name: `email`, `name`.
    pub profile: Fields,
    pub edit: Edit,
}

/// A person changed their profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserProfileUpdated {
    /// The new values by wire name; null clears.
    pub set: Fields,
    pub edit: Edit,
}

/// A person changed preferences other than those for health data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserPreferencesUpdated {
    /// Changed keys of `privacySettings`.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub privacy: Fields,
    /// Changed keys of `notificationSettings`.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub notifications: Fields,
    /// `wellnessPreferences` if changed; null clears.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub profile: Fields,
    /// `onboardingPreferences` as a whole after the change, if changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onboarding: Option<Fields>,
    pub edit: Edit,
}

/// A person changed what they allow for their health data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserHealthPrivacyChanged {
    /// The rules from here on.
    pub health: HealthPrivacy,
    pub edit: Edit,
}

/// A person asked for everything about them to be erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserErasureRequested {
    pub edit: Edit,
}

const fn event_type(name: &'static str, summary: &'static str) -> EventType {
    EventType { name, version: 1, aggregate: TYPE, purpose: Some(Purpose::Identity), summary }
}

static TYPES: [EventType; 5] = [
    event_type("user.registered", "A person was seen for the first time."),
    event_type("user.profile_updated", "A person changed their profile."),
    event_type("user.preferences_updated", "A person changed their preferences."),
    event_type("user.health_privacy_changed", "A person changed the rules for health data."),
    event_type("user.erasure_requested", "A person asked for their data to be erased."),
];

impl cqrs_es::DomainEvent for UserEvent {
    fn event_type(&self) -> String {
        self.descriptor().name.to_owned()
    }

    fn event_version(&self) -> String {
        self.descriptor().version.to_string()
    }
}

impl StoredEvent for UserEvent {
    fn types() -> &'static [EventType] {
        &TYPES
    }

    fn descriptor(&self) -> &'static EventType {
        let index = match self {
            Self::Registered(_) => 0,
            Self::ProfileUpdated(_) => 1,
            Self::PreferencesUpdated(_) => 2,
            Self::HealthPrivacyChanged(_) => 3,
            Self::ErasureRequested(_) => 4,
        };
        &TYPES[index]
    }

    fn encode(&self) -> Encoded {
        let payload = match self {
            Self::Registered(data) => to_payload(data),
            Self::ProfileUpdated(data) => to_payload(data),
            Self::PreferencesUpdated(data) => to_payload(data),
            Self::HealthPrivacyChanged(data) => to_payload(data),
            Self::ErasureRequested(data) => to_payload(data),
        };
        Encoded { payload, blob: Vec::new() }
    }

    fn decode(event_type: &str, payload: &str, _blob: &[u8]) -> Result<Self, DecodeError> {
        let t = event_type;
        match t {
            "user.registered" => from_payload(t, payload).map(Self::Registered),
            "user.profile_updated" => from_payload(t, payload).map(Self::ProfileUpdated),
            "user.preferences_updated" => from_payload(t, payload).map(Self::PreferencesUpdated),
            "user.health_privacy_changed" => {
                from_payload(t, payload).map(Self::HealthPrivacyChanged)
            }
            "user.erasure_requested" => from_payload(t, payload).map(Self::ErasureRequested),
            _ => Err(DecodeError::unknown(t)),
        }
    }
}
