use aggregates::consumption::CONTRACT;
use aggregates::entity::{Created, Deleted, EntityEvent, EntityFact, Updated};
use proptest::prelude::*;

use super::parts::{edit, fields, maybe_resolution};

pub fn event() -> impl Strategy<Value = EntityEvent> {
    prop_oneof![
        (fields(CONTRACT.fields, false), edit())
            .prop_map(|(fields, edit)| EntityFact::Created(Created { fields, edit })),
        (fields(CONTRACT.fields, true), maybe_resolution(), edit()).prop_map(
            |(set, resolution, edit)| EntityFact::Updated(Updated { set, resolution, edit })
        ),
        edit().prop_map(|edit| EntityFact::Deleted(Deleted { edit })),
    ]
    .prop_map(|fact| EntityEvent { contract: &CONTRACT, fact })
}
