use aggregates::user::{
    HealthPrivacy, UserErasureRequested, UserEvent, UserHealthPrivacyChanged,
    UserPreferencesUpdated, UserProfileUpdated, UserRegistered,
};
use proptest::prelude::*;

use super::parts::{edit, free_fields};

pub fn event() -> impl Strategy<Value = UserEvent> {
    prop_oneof![
        (free_fields(), edit()).prop_map(|(profile, edit)| {
            UserEvent::Registered(UserRegistered { profile, edit })
        }),
        (free_fields(), edit()).prop_map(|(set, edit)| {
            UserEvent::ProfileUpdated(UserProfileUpdated { set, edit })
        }),
        preferences().prop_map(UserEvent::PreferencesUpdated),
        (health(), edit()).prop_map(|(health, edit)| {
            UserEvent::HealthPrivacyChanged(UserHealthPrivacyChanged { health, edit })
        }),
        edit().prop_map(|edit| UserEvent::ErasureRequested(UserErasureRequested { edit })),
    ]
}

prop_compose! {
    fn preferences()(
        (privacy, notifications, profile) in (free_fields(), free_fields(), free_fields()),
        onboarding in prop::option::of(free_fields()),
        edit in edit(),
    ) -> UserPreferencesUpdated {
        UserPreferencesUpdated { privacy, notifications, profile, onboarding, edit }
    }
}

prop_compose! {
    fn health()(
        (allow_upload, allow_aggregation) in any::<(bool, bool)>(),
        blocked_metrics in prop::collection::btree_set("[a-z_]{1,20}", 0..4),
    ) -> HealthPrivacy {
        HealthPrivacy { allow_upload, blocked_metrics, allow_aggregation }
    }
}
