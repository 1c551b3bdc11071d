//! What the parts of a person's profile and preferences may hold.

use crate::conflict::{Nulls, Policy};
use crate::entity::{Field, Kind};

const fn field(name: &'static str, kind: Kind) -> Field {
    Field::new(name, kind, Policy::LocalWins(Nulls::Count))
}

const fn flag(name: &'static str) -> Field {
    field(name, Kind::Bool).not_null()
}

/// What the identity provider says at the first request.
pub(super) const REGISTRATION: &[Field] = &[
    field("email", Kind::Text { min: 3, max: 254 }),
    flag("emailVerified"),
    field("phoneNumber", Kind::Text { min: 3, max: 32 }),
    flag("phoneNumberVerified"),
    field("username", Kind::Text { min: 1, max: 50 }),
    field("name", Kind::Text { min: 1, max: 100 }),
    field("avatarUrl", Kind::Text { min: 1, max: 2048 }),
    field("authProvider", Kind::Enum(&["COGNITO", "GOOGLE", "PHONE", "EMAIL"])).not_null(),
];

/// What people may change about themselves. `userType` is not theirs to change.
pub(super) const PROFILE: &[Field] = &[
    field("username", Kind::Text { min: 1, max: 50 }).not_null(),
    field("name", Kind::Text { min: 2, max: 100 }).not_null(),
    field("dateOfBirth", Kind::Date),
    field("avatarUrl", Kind::Text { min: 1, max: 2048 }),
    field("wellnessPreferences", Kind::Text { min: 0, max: 2000 }),
];

/// `privacySettings` without its health block.
pub(super) const PRIVACY: &[Field] = &[
    flag("allowAnalytics"),
    flag("shareUsageData"),
    flag("marketingEmails"),
    // Days.
    field("dataRetentionPeriod", Kind::Int { min: 1, max: 3650 }).not_null(),
];

/// `privacySettings.health`.
pub(super) const HEALTH: &[Field] = &[
    flag("allowHealthDataUpload"),
    field("blockedMetrics", Kind::TextList { max_items: 200, max_len: 64 }).not_null(),
    flag("allowAggregation"),
];

/// `notificationSettings`.
pub(super) const NOTIFICATIONS: &[Field] = &[
    flag("pushNotifications"),
    flag("emailNotifications"),
    flag("achievementAlerts"),
    flag("goalReminders"),
];

/// `onboardingPreferences`.
pub(super) const ONBOARDING: &[Field] = &[
    field("schemaVersion", Kind::Int { min: 1, max: 1_000_000 }).not_null(),
    field("answers", Kind::Object).not_null(),
    flag("completed"),
    field("completedAt", Kind::Instant),
];
