//! What a run of events makes dirty.

use std::collections::BTreeSet;

use aggregates::health_batch::{Applied, HealthBatchEvent};
use aggregates::subject::SubjectEvent;
use aggregates::user::UserEvent;
use aggregates::{AnyEvent, Purpose, Recorded};

use super::DayKey;

/// What one person's events of a page change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The person's health data was erased: all rows go first.
    pub wiped: bool,
    /// The rows to compute anew, afterwards.
    pub days: BTreeSet<DayKey>,
    /// The person's health watermark after the last upload; 0 where there is none.
    pub health_seq: i64,
}

impl Scope {
    /// Takes in the next event of the person.
    pub fn hear(&mut self, event: &Recorded) {
        match event.event() {
            Some(AnyEvent::HealthBatch(HealthBatchEvent::Applied(applied))) => {
                self.days.extend(days_of(applied));
                self.health_seq = self.health_seq.max(applied.facts.health_seq);
            }
            Some(AnyEvent::Subject(SubjectEvent::KeyDestroyed(destroyed)))
                if destroyed.purpose == Purpose::Health =>
            {
                self.wiped = true;
                self.days.clear();
            }
            _ => {}
        }
    }
}

/// Whether a person's rows are hidden after an event; none if it says nothing about that.
pub fn hidden_after(event: &Recorded) -> Option<bool> {
    match event.event()? {
        AnyEvent::User(user) => match &**user {
            UserEvent::HealthPrivacyChanged(rules) => Some(!rules.health.allow_aggregation),
            _ => None,
        },
        AnyEvent::Subject(SubjectEvent::KeyDestroyed(destroyed)) => {
            (destroyed.purpose == Purpose::Identity).then_some(true)
        }
        _ => None,
    }
}

/// The scope of a person's events, in order of position.
pub fn scope<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Scope {
    let mut scope = Scope::default();
    for event in events {
        scope.hear(event);
    }
    scope
}

/// Exactly the rows whose content an upload may change: the day each row is on, and for corrected
/// rows also the day it was on.
fn days_of(applied: &Applied) -> impl Iterator<Item = DayKey> {
    let corrected = applied.corrected.iter().flat_map(|one| [&one.before, &one.after]);
    applied.recorded.iter().chain(corrected).chain(&applied.deleted).filter_map(DayKey::of)
}
