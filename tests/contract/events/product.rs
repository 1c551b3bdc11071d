use aggregates::product::{
    CONTRACT, CatalogueProductEvent, ProductDefined, ProductUpdated, ProductWithdrawn,
};
use proptest::prelude::*;

use super::parts::{edit, fields};

pub fn event() -> impl Strategy<Value = CatalogueProductEvent> {
    prop_oneof![
        (fields(CONTRACT.fields, false), edit()).prop_map(|(fields, edit)| {
            CatalogueProductEvent::Defined(ProductDefined { fields, edit })
        }),
        (fields(CONTRACT.fields, true), edit()).prop_map(|(set, edit)| {
            CatalogueProductEvent::Updated(ProductUpdated { set, edit })
        }),
        edit().prop_map(|edit| CatalogueProductEvent::Withdrawn(ProductWithdrawn { edit })),
    ]
}
