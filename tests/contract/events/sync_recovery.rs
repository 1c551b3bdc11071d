use aggregates::entity::{SupersededChange, SupersededReason, SyncRecoveryEvent, SyncSuperseded};
use proptest::prelude::*;
use proptest::sample::select;

use super::parts::{edit, free_fields, id, maybe_resolution};

prop_compose! {
    pub fn event()(
        (entity_type, entity_id) in ("[a-z]{1,20}", id()),
        change in prop::option::of(select(vec![
            SupersededChange::Create,
            SupersededChange::Update,
        ])),
        (base_version, stored_version) in any::<(Option<i64>, Option<i64>)>(),
        payload in free_fields(),
        reason in select(vec![SupersededReason::Deleted, SupersededReason::LostMerge]),
        (resolution, edit) in (maybe_resolution(), edit()),
        request_id in prop::option::of(".{0,20}"),
    ) -> SyncRecoveryEvent {
        SyncRecoveryEvent::Superseded(SyncSuperseded {
            entity_type, entity_id, change, base_version, stored_version, payload, reason,
            resolution, request_id, edit,
        })
    }
}
