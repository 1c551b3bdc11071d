use aggregates::entity::Fields;
use aggregates::session::{
    CONTRACT, ConsumptionAttached, ConsumptionChanged, ConsumptionDetached, Dose, EndReason,
    SessionCancelled, SessionDeleted, SessionEnded, SessionEvent, SessionPaused, SessionResumed,
    SessionStarted, SessionUpdated,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::parts::{self, edit, id, maybe_resolution};

pub fn event() -> impl Strategy<Value = SessionEvent> {
    prop_oneof![own(), doses()]
}

fn set() -> impl Strategy<Value = Fields> {
    parts::fields(CONTRACT.fields, true)
}

/// What happens to the session itself.
fn own() -> impl Strategy<Value = SessionEvent> {
    let change = || (set(), maybe_resolution(), edit());
    let reason = select(vec![EndReason::Requested, EndReason::Idle, EndReason::Replaced]);
    prop_oneof![
        (parts::fields(CONTRACT.fields, false), any::<Option<i64>>(), edit()).prop_map(
            |(fields, ended_at_ms, edit)| {
                SessionEvent::Started(SessionStarted { fields, ended_at_ms, edit })
            }
        ),
        change().prop_map(|(set, resolution, edit)| {
            SessionEvent::Updated(SessionUpdated { set, resolution, edit })
        }),
        change().prop_map(|(set, resolution, edit)| {
            SessionEvent::Paused(SessionPaused { set, resolution, edit })
        }),
        change().prop_map(|(set, resolution, edit)| {
            SessionEvent::Resumed(SessionResumed { set, resolution, edit })
        }),
        (any::<i64>(), reason, change()).prop_map(|(ended_at_ms, reason, change)| {
            let (set, resolution, edit) = change;
            SessionEvent::Ended(SessionEnded { ended_at_ms, reason, set, resolution, edit })
        }),
        (any::<i64>(), change()).prop_map(|(ended_at_ms, (set, resolution, edit))| {
            SessionEvent::Cancelled(SessionCancelled { ended_at_ms, set, resolution, edit })
        }),
        edit().prop_map(|edit| SessionEvent::Deleted(SessionDeleted { edit })),
    ]
}

/// What happens to its consumptions.
fn doses() -> impl Strategy<Value = SessionEvent> {
    let end = any::<Option<i64>>;
    prop_oneof![
        (id(), dose(), end(), edit()).prop_map(|(consumption_id, dose, ended_at_ms, edit)| {
            let data = ConsumptionAttached { consumption_id, dose, ended_at_ms, edit };
            SessionEvent::ConsumptionAttached(data)
        }),
        (id(), dose(), end(), edit()).prop_map(|(consumption_id, dose, ended_at_ms, edit)| {
            let data = ConsumptionChanged { consumption_id, dose, ended_at_ms, edit };
            SessionEvent::ConsumptionChanged(data)
        }),
        (id(), end(), edit()).prop_map(|(consumption_id, ended_at_ms, edit)| {
            let data = ConsumptionDetached { consumption_id, ended_at_ms, edit };
            SessionEvent::ConsumptionDetached(data)
        }),
    ]
}

prop_compose! {
    fn dose()(
        (at_ms, duration_ms) in any::<(i64, i64)>(),
        product in prop::option::of(id()),
    ) -> Dose {
        Dose { at_ms, duration_ms, product_id: product.map(|id| id.to_string()) }
    }
}
