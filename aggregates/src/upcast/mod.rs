//! Old events lifted to their current version, on read.
//!
//! The log is never rewritten. A step is pure and total: JSON of version N in, JSON of version
//! N + 1 out. Each aggregate has a file of steps, listed in [`STEPS`]; [`check`] holds the whole
//! chain against the registry, and the server refuses to start with a hole in it.

mod sync_recovery;

use std::borrow::Cow;
use std::collections::BTreeSet;

use cqrs_es::persist::{EventUpcaster, SerializedEvent};
use serde_json::Value;

use crate::registry;

/// One step of one event type.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub event_type: &'static str,
    /// The version it reads; it writes the next one.
    pub from: u32,
    pub lift: fn(Value) -> Value,
}

/// Why an event could not be lifted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpcastError {
    #[error("{event_type} is not a known event type")]
    Unknown { event_type: String },
    #[error("{event_type} version {version} is newer than this program, which knows {current}")]
    Newer { event_type: String, version: u32, current: u32 },
    #[error("{event_type} version {version} has no step to the next version")]
    Hole { event_type: String, version: u32 },
    #[error("the payload of {event_type} version {version} is not JSON")]
    Payload { event_type: String, version: u32 },
}

/// All steps there are.
pub fn steps() -> impl Iterator<Item = &'static Step> {
    STEPS.iter()
}

const STEPS: [Step; 1] = [sync_recovery::SUPERSEDED_1];

/// The payload in the current version of its type.
///
/// # Errors
/// [`UpcastError`] for unknown types, versions of the future and holes in the chain.
pub fn to_current<'a>(
    event_type: &str,
    version: u32,
    payload: &'a str,
) -> Result<Cow<'a, str>, UpcastError> {
    let entry = registry::find(event_type)
        .ok_or_else(|| UpcastError::Unknown { event_type: event_type.to_owned() })?;
    lift(event_type, version, entry.version, payload, &STEPS)
}

fn lift<'a>(
    event_type: &str,
    version: u32,
    current: u32,
    payload: &'a str,
    steps: &[Step],
) -> Result<Cow<'a, str>, UpcastError> {
    if version == current {
        return Ok(Cow::Borrowed(payload));
    }
    let event_type = || event_type.to_owned();
    if version > current {
        return Err(UpcastError::Newer { event_type: event_type(), version, current });
    }
    let mut value: Value = serde_json::from_str(payload)
        .map_err(|_| UpcastError::Payload { event_type: event_type(), version })?;
    for from in version..current {
        let step = steps
            .iter()
            .find(|step| step.event_type == event_type() && step.from == from)
            .ok_or_else(|| UpcastError::Hole { event_type: event_type(), version: from })?;
        value = (step.lift)(value);
    }
    Ok(Cow::Owned(value.to_string()))
}

/// Every version from 1 to the current one has exactly one step onward, and no step is left over.
///
/// # Errors
/// The first hole, or a step that is double or leads nowhere, as [`UpcastError::Hole`].
pub fn check() -> Result<(), UpcastError> {
    let mut wanted: BTreeSet<(&str, u32)> = registry::types()
        .flat_map(|entry| (1..entry.version).map(move |from| (entry.name, from)))
        .collect();
    for step in steps() {
        if !wanted.remove(&(step.event_type, step.from)) {
            return Err(UpcastError::Hole {
                event_type: step.event_type.to_owned(),
                version: step.from,
            });
        }
    }
    match wanted.pop_first() {
        Some((event_type, version)) => {
            Err(UpcastError::Hole { event_type: event_type.to_owned(), version })
        }
        None => Ok(()),
    }
}

/// The same step for aggregates that are loaded through cqrs-es.
impl EventUpcaster for Step {
    fn can_upcast(&self, event_type: &str, event_version: &str) -> bool {
        event_type == self.event_type && event_version.parse() == Ok(self.from)
    }

    fn upcast(&self, event: SerializedEvent) -> SerializedEvent {
        SerializedEvent {
            payload: (self.lift)(event.payload),
            event_version: (self.from + 1).to_string(),
            ..event
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn add_rating(mut value: Value) -> Value {
        value["rating"] = json!(null);
        value
    }

    fn rename(mut value: Value) -> Value {
        value["stars"] = value["rating"].take();
        value
    }

    const CHAIN: [Step; 2] = [
        Step { event_type: "test.happened", from: 1, lift: add_rating },
        Step { event_type: "test.happened", from: 2, lift: rename },
    ];

    #[test]
    fn lifts_step_by_step_to_the_current_version() {
        let lifted = lift("test.happened", 1, 3, r#"{"a":1}"#, &CHAIN).unwrap();
        let value: Value = serde_json::from_str(&lifted).unwrap();
        assert_eq!(value, json!({"a": 1, "rating": null, "stars": null}));
    }

    #[test]
    fn current_payloads_pass_untouched() {
        assert!(matches!(lift("test.happened", 3, 3, "{}", &CHAIN), Ok(Cow::Borrowed("{}"))));
    }

    #[test]
    fn refuses_holes_and_the_future() {
        assert!(matches!(
            lift("test.happened", 1, 4, "{}", &CHAIN),
            Err(UpcastError::Hole { version: 3, .. })
        ));
        assert!(matches!(
            lift("test.happened", 9, 3, "{}", &CHAIN),
            Err(UpcastError::Newer { .. })
        ));
        assert!(matches!(to_current("no.such", 1, "{}"), Err(UpcastError::Unknown { .. })));
    }

    #[test]
    fn the_registry_has_no_hole() {
        assert_eq!(check(), Ok(()));
    }
}
