use aggregates::entity::{SupersededReason, SyncRecoveryEvent, SyncSuperseded};
use proptest::prelude::*;
use proptest::sample::select;

use super::parts::{edit, free_fields, id, maybe_resolution};

prop_compose! {
    pub fn event()(
        (entity_type, entity_id) in ("[a-z]{1,20}", id()),
        payload in free_fields(),
        reason in select(vec![SupersededReason::Deleted, SupersededReason::LostMerge]),
        (resolution, edit) in (maybe_resolution(), edit()),
        request_id in prop::option::of(".{0,20}"),
    ) -> SyncRecoveryEvent {
        SyncRecoveryEvent::Superseded(SyncSuperseded {
            entity_type, entity_id, payload, reason, resolution, request_id, edit,
        })
    }
}
