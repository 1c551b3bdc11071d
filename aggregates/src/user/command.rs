//! What can be asked of a person's account.

use serde_json::{Map, Value};

/// An intent. The maps are JSON as the wire has it; deciding checks them.
#[derive(Clone, Debug, PartialEq)]
pub enum UserCommand {
    /// First authenticated request, with what the token says; a repetition changes nothing.
    Register {
        profile: Map<String, Value>,
    },
    UpdateProfile {
        patch: Map<String, Value>,
    },
    /// `privacySettings`, `notificationSettings`, `wellnessPreferences`, `onboardingPreferences`.
    UpdatePreferences {
        patch: Map<String, Value>,
    },
    RequestErasure,
}
