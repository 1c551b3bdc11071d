use aggregates::entity::{
    CONTRACTS, Created, Deleted, EntityContract, EntityEvent, EntityFact, Updated,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::parts::{edit, fields, maybe_resolution};

/// An event of any plain entity type there is.
pub fn event() -> impl Strategy<Value = EntityEvent> {
    let plain: Vec<_> = CONTRACTS.into_iter().filter(|contract| contract.plain).collect();
    select(plain).prop_flat_map(event_of)
}

fn event_of(contract: &'static EntityContract) -> impl Strategy<Value = EntityEvent> {
    prop_oneof![
        (fields(contract.fields, false), edit())
            .prop_map(|(fields, edit)| EntityFact::Created(Created { fields, edit })),
        (fields(contract.fields, true), maybe_resolution(), edit()).prop_map(
            |(set, resolution, edit)| EntityFact::Updated(Updated { set, resolution, edit })
        ),
        edit().prop_map(|edit| EntityFact::Deleted(Deleted { edit })),
    ]
    .prop_map(move |fact| EntityEvent { contract, fact })
}
