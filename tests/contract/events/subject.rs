use aggregates::subject::{KeyCreated, KeyDestroyed, SubjectEvent};
use proptest::prelude::*;
use proptest::sample::select;

use super::parts::{id, purpose};

pub fn event() -> impl Strategy<Value = SubjectEvent> {
    let reason = select(vec!["user_request", "drill", "retention"]);
    prop_oneof![
        (id(), purpose(), "[0-9a-f]{64}").prop_map(|(key_id, purpose, commitment)| {
            SubjectEvent::KeyCreated(KeyCreated { key_id, purpose, commitment })
        }),
        (id(), purpose(), reason).prop_map(|(key_id, purpose, reason)| {
            SubjectEvent::KeyDestroyed(KeyDestroyed { key_id, purpose, reason: reason.to_owned() })
        }),
    ]
}
