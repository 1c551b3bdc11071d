use aggregates::access::{AccessEvent, AccessRevealed, Revealed};
use proptest::prelude::*;

use super::parts::id;

prop_compose! {
    pub fn event()(
        (by, channel, reason) in ("[a-z]{1,9}@[a-z]{1,9}", "[a-z]{1,5}", ".{1,40}"),
        what in what(),
    ) -> AccessEvent {
        AccessEvent::Revealed(AccessRevealed { by, channel, reason, what })
    }
}

fn what() -> impl Strategy<Value = Revealed> {
    prop_oneof![
        prop::collection::btree_set(1i64.., 1..5).prop_map(|positions| Revealed::Positions {
            positions: positions.into_iter().collect(),
        }),
        ("[a-z_]{1,12}", id(), 1i64..).prop_map(|(aggregate_type, id, upto)| Revealed::Stream {
            aggregate_type,
            aggregate_id: id.to_string(),
            upto,
        }),
    ]
}
