//! Preferences: their defaults and how a patch is merged into them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::UserError;
use super::tables::{HEALTH, NOTIFICATIONS, ONBOARDING, PRIVACY};
use crate::entity::{FieldError, Fields, normalise_strict};

/// The newest onboarding questionnaire this server knows.
pub const ONBOARDING_SCHEMA_VERSION: i64 = 1;

/// What a person allows for their health data. Everything, until they say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthPrivacy {
    /// Whether samples may be uploaded at all.
    pub allow_upload: bool,
    /// Metric codes whose samples are refused.
    pub blocked_metrics: BTreeSet<String>,
    /// Whether samples may be summed up into rollups.
    pub allow_aggregation: bool,
}

impl Default for HealthPrivacy {
    fn default() -> Self {
        Self { allow_upload: true, blocked_metrics: BTreeSet::new(), allow_aggregation: true }
    }
}

impl HealthPrivacy {
    /// Whether samples of this metric may be stored.
    pub fn allows(&self, metric: &str) -> bool {
        self.allow_upload && !self.blocked_metrics.contains(metric)
    }

    /// The block as the wire shows it.
    pub fn to_wire(&self) -> Value {
        serde_json::json!({
            "allowHealthDataUpload": self.allow_upload,
            "blockedMetrics": self.blocked_metrics,
            "allowAggregation": self.allow_aggregation,
        })
    }

    fn patched(&self, patch: &Fields) -> Self {
        let mut patched = self.clone();
        let flag = |name: &str| patch.get(name).and_then(Value::as_bool);
        if let Some(allow) = flag("allowHealthDataUpload") {
            patched.allow_upload = allow;
        }
        if let Some(allow) = flag("allowAggregation") {
            patched.allow_aggregation = allow;
        }
        match patch.get("blockedMetrics") {
            Some(Value::Array(metrics)) => {
                patched.blocked_metrics = texts(metrics).collect();
            }
            Some(Value::Object(delta)) => {
                let part = |key: &str| delta.get(key).and_then(Value::as_array);
                for metric in part("$remove").into_iter().flat_map(|metrics| texts(metrics)) {
                    patched.blocked_metrics.remove(&metric);
                }
                patched
                    .blocked_metrics
                    .extend(part("$add").into_iter().flat_map(|metrics| texts(metrics)));
            }
            _ => {}
        }
        patched
    }
}

fn texts(values: &[Value]) -> impl Iterator<Item = String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned)
}

/// What a valid patch asks for, on top of what is there.
#[derive(Debug, Default)]
pub(super) struct Patch {
    pub privacy: Fields,
    pub notifications: Fields,
    pub wellness: Option<Value>,
    pub onboarding: Option<Fields>,
    pub health: Option<Fields>,
}

impl Patch {
    /// Reads a patch of preferences; every key must be known.
    pub(super) fn read(patch: &Map<String, Value>) -> Result<Self, UserError> {
        let mut read = Self::default();
        let mut errors = Vec::new();
        for (key, value) in patch {
            match (key.as_str(), value) {
                ("privacySettings", Value::Object(privacy)) => {
                    read.read_privacy(privacy, &mut errors);
                }
                ("notificationSettings", Value::Object(notifications)) => {
                    let parent = "/notificationSettings";
                    read.notifications =
                        normalise_strict(NOTIFICATIONS, notifications, parent, &mut errors);
                }
                ("onboardingPreferences", Value::Object(onboarding)) => {
                    let parent = "/onboardingPreferences";
                    read.onboarding =
                        Some(normalise_strict(ONBOARDING, onboarding, parent, &mut errors));
                }
                ("wellnessPreferences", _) => {
                    let own = Map::from_iter([(key.clone(), value.clone())]);
                    let mut fields =
                        normalise_strict(super::tables::PROFILE, &own, "", &mut errors);
                    read.wellness = fields.remove(key);
                }
                ("privacySettings" | "notificationSettings" | "onboardingPreferences", _) => {
                    errors.push(FieldError::new(key, "not_an_object", "must be an object"));
                }
                _ => errors.push(FieldError::new(key, "unknown_key", "is not a known setting")),
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(UserError::Invalid(errors)) }
    }

    fn read_privacy(&mut self, privacy: &Map<String, Value>, errors: &mut Vec<FieldError>) {
        let mut rest = privacy.clone();
        match rest.remove("health") {
            None => {}
            Some(Value::Object(health)) => {
                let parent = "/privacySettings/health";
                self.health = Some(normalise_strict(HEALTH, &health, parent, errors));
            }
            Some(_) => {
                let mut error = FieldError::new("health", "not_an_object", "must be an object");
                error.pointer.insert_str(0, "/privacySettings");
                errors.push(error);
            }
        }
        self.privacy = normalise_strict(PRIVACY, &rest, "/privacySettings", errors);
    }

    /// The health block after the patch.
    pub(super) fn health_after(&self, before: &HealthPrivacy) -> HealthPrivacy {
        self.health.as_ref().map_or_else(|| before.clone(), |patch| before.patched(patch))
    }
}

/// The onboarding after a patch: answers are merged per question, null takes one back, and what
/// was completed stays completed, as of the first time.
pub(super) fn merge_onboarding(before: &Fields, patch: &Fields) -> Result<Fields, UserError> {
    let version = patch.get("schemaVersion").and_then(Value::as_i64);
    if version.is_some_and(|version| version > ONBOARDING_SCHEMA_VERSION) {
        return Err(UserError::OnboardingTooNew);
    }
    let was_completed = is_completed(before);
    let taken_back = patch.get("completed") == Some(&Value::Bool(false))
        || patch.get("completedAt").is_some_and(Value::is_null);
    if was_completed && taken_back {
        return Err(UserError::OnboardingCompleted);
    }
    let mut after = before.clone();
    for (key, value) in patch {
        let keep = was_completed && key == "completedAt" && before.contains_key(key);
        match value {
            _ if keep => {}
            Value::Null => {
                after.remove(key);
            }
            Value::Object(answers) => {
                let known = after.get(key).and_then(Value::as_object).cloned();
                let mut merged = known.unwrap_or_default();
                for (question, answer) in answers {
                    if answer.is_null() {
                        merged.remove(question);
                    } else {
                        merged.insert(question.clone(), answer.clone());
                    }
                }
                after.insert(key.clone(), Value::Object(merged));
            }
            value => {
                after.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(after)
}

fn is_completed(onboarding: &Fields) -> bool {
    onboarding.get("completed") == Some(&Value::Bool(true))
        || onboarding.contains_key("completedAt")
}

/// `privacySettings` of somebody who never changed them.
pub(super) fn default_privacy() -> Fields {
    Fields::from([
        ("allowAnalytics".to_owned(), true.into()),
        ("shareUsageData".to_owned(), true.into()),
        ("marketingEmails".to_owned(), false.into()),
        ("dataRetentionPeriod".to_owned(), 365.into()),
    ])
}

/// `notificationSettings` of somebody who never changed them.
pub(super) fn default_notifications() -> Fields {
    NOTIFICATIONS.iter().map(|field| (field.name.to_owned(), true.into())).collect()
}
