use aggregates::projection::{EventSkipped, ProjectionEvent};
use proptest::prelude::*;

prop_compose! {
    pub fn event()(
        (projector, position) in ("[a-z-]{1,12}", 1i64..),
        (by, reference) in ("[a-z]{1,9}@[a-z]{1,9}", "[A-Z]{1,4}-[0-9]{1,5}"),
    ) -> ProjectionEvent {
        ProjectionEvent::EventSkipped(EventSkipped { projector, position, by, reference })
    }
}
