use cqrs_es::test::TestFramework;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::UserId;
use crate::entity::Context;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("an object") };
    map
}

fn decide(user: &User, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
    user.decide(command, &Context::now(1_000))
}

fn profile(value: Value) -> UserCommand {
    UserCommand::UpdateProfile { patch: object(value) }
}

fn preferences(value: Value) -> UserCommand {
    UserCommand::UpdatePreferences { patch: object(value) }
}

fn after(commands: Vec<UserCommand>) -> User {
    let mut user = User::default();
    let register = UserCommand::Register { profile: Map::new() };
    for command in std::iter::once(register).chain(commands) {
        for event in decide(&user, command).unwrap() {
            user.fold(&event);
        }
    }
    user
}

fn problems(command: UserCommand) -> Vec<(String, &'static str)> {
    let Err(UserError::Invalid(errors)) = decide(&after(vec![]), command) else {
        panic!("refused")
    };
    errors.into_iter().map(|error| (error.pointer, error.code)).collect()
}

#[test]
fn registration_needs_nothing_and_happens_once() {
    let user = after(vec![]);
    assert_eq!((user.status, user.version), (AccountStatus::Active, 1));
    let again = UserCommand::Register { profile: object(json!({"name": "Ada"})) };
    assert_eq!(decide(&user, again), Ok(vec![]));
    assert_eq!(decide(&User::default(), profile(json!({"name": "Ada"}))), Err(UserError::NotFound));
}

#[test]
fn a_profile_takes_what_is_declared_and_nothing_else() {
    let patch = json!({"name": "Ada", "dateOfBirth": "1990-12-10", "userType": "ADMIN"});
    let user = after(vec![profile(patch.clone())]);
    assert_eq!(user.profile["name"], "Ada");
    assert!(!user.profile.contains_key("userType"));
    assert_eq!(decide(&user, profile(patch)), Ok(vec![]));
    assert_eq!(decide(&user, profile(json!({}))), Err(UserError::EmptyPatch));
    let wrong = json!({
        "name": "A", "username": "u".repeat(51), "avatarUrl": "javascript:x", "role": "admin",
        "dateOfBirth": "10.12.1990",
    });
    let mut found = problems(profile(wrong));
    found.sort();
    assert_eq!(
        found,
        [
            ("/avatarUrl", "invalid_url"),
            ("/dateOfBirth", "invalid_date"),
            ("/name", "too_short"),
            ("/role", "unknown_key"),
            ("/username", "too_long"),
        ]
        .map(|(pointer, code)| (pointer.to_owned(), code))
    );
}

#[test]
fn everything_is_allowed_until_somebody_says_otherwise() {
    let user = after(vec![]);
    assert!(user.health.allows("heart_rate") && user.health.allow_aggregation);
    let wire = user.to_wire(UserId(Uuid::from_u128(1)));
    assert_eq!(
        wire["privacySettings"],
        json!({
            "allowAnalytics": true, "shareUsageData": true, "marketingEmails": false,
            "dataRetentionPeriod": 365,
            "health": {
                "allowHealthDataUpload": true, "blockedMetrics": [], "allowAggregation": true,
            },
        })
    );
    assert_eq!(wire["notificationSettings"]["goalReminders"], json!(true));
    assert_eq!(wire["onboardingPreferences"], Value::Null);
}

#[test]
fn health_rules_are_an_event_of_their_own() {
    let user = after(vec![]);
    let patch = preferences(json!({
        "privacySettings": {"marketingEmails": true, "health": {"blockedMetrics": ["heart_rate"]}},
    }));
    let events = decide(&user, patch.clone()).unwrap();
    assert!(matches!(
        events[..],
        [UserEvent::PreferencesUpdated(_), UserEvent::HealthPrivacyChanged(_)]
    ));
    let user = after(vec![patch.clone()]);
    assert!(!user.health.allows("heart_rate") && user.health.allows("steps"));
    assert_eq!(decide(&user, patch), Ok(vec![]));
    // A patch of one rule leaves the others.
    let user = after(vec![
        preferences(json!({"privacySettings": {"health": {"blockedMetrics": ["steps"]}}})),
        preferences(json!({"privacySettings": {"health": {"allowAggregation": false}}})),
    ]);
    assert!(!user.health.allows("steps") && !user.health.allow_aggregation);
    let off = json!({"privacySettings": {"health": {"allowHealthDataUpload": false}}});
    assert!(!after(vec![preferences(off)]).health.allows("anything"));
}

#[test]
fn a_setting_nobody_knows_is_refused_where_it_stands() {
    let found = problems(preferences(json!({
        "privacySettings": {
            "allowAnalytics": "no", "allowTracking": false,
            "health": {"blockMetrics": ["x"], "allowAggregation": null},
        },
        "notificationSettings": {"pushNotifications": 3},
        "theme": "dark",
    })));
    let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
    for pointer in [
        "/privacySettings/allowAnalytics",
        "/privacySettings/allowTracking",
        "/privacySettings/health/blockMetrics",
        "/privacySettings/health/allowAggregation",
        "/notificationSettings/pushNotifications",
        "/theme",
    ] {
        assert!(pointers.contains(&pointer), "{pointer} in {pointers:?}");
    }
    assert_eq!(pointers.len(), 6);
}

#[test]
fn onboarding_merges_by_question_and_stays_completed() {
    let onboarding = |value| preferences(json!({"onboardingPreferences": value}));
    let done = "2026-03-01T20:00:00.000Z";
    let user = after(vec![
        onboarding(json!({"schemaVersion": 1, "answers": {"goal": "less", "pace": 2}})),
        onboarding(json!({"answers": {"pace": 3}, "completedAt": done})),
    ]);
    assert_eq!(user.onboarding["answers"], json!({"goal": "less", "pace": 3}));
    for undo in [json!({"completedAt": null}), json!({"completed": false})] {
        assert_eq!(decide(&user, onboarding(undo)), Err(UserError::OnboardingCompleted));
    }
    let later = onboarding(json!({"completedAt": "2027-01-01T00:00:00Z"}));
    assert_eq!(decide(&user, later), Ok(vec![]));
    let newer = onboarding(json!({"schemaVersion": ONBOARDING_SCHEMA_VERSION + 1}));
    assert_eq!(decide(&user, newer), Err(UserError::OnboardingTooNew));
}

#[test]
fn after_a_request_for_erasure_nothing_changes() {
    let user = after(vec![UserCommand::RequestErasure]);
    assert_eq!(decide(&user, UserCommand::RequestErasure), Ok(vec![]));
    assert_eq!(decide(&user, profile(json!({"name": "Ada"}))), Err(UserError::Gone));
    let register = UserCommand::Register { profile: Map::new() };
    assert_eq!(decide(&user, register), Err(UserError::Gone));
}

#[test]
fn the_aggregate_writes_what_it_decides() {
    let registered =
        decide(&User::default(), UserCommand::Register { profile: Map::new() }).unwrap();
    let named = profile(json!({"name": "Ada"}));
    let expected = decide(&after(vec![]), named.clone()).unwrap();
    TestFramework::<User>::with(Context::now(1_000))
        .given(registered)
        .when(named)
        .then_expect_events(expected);
}
