use cqrs_es::Aggregate;

use super::*;
use crate::StoredEvent;

fn skip(position: i64, parked_at: Option<i64>, by: &str, reference: &str) -> SkipCommand {
    SkipCommand::Skip {
        projector: "health-rollup".to_owned(),
        position,
        parked_at,
        by: by.to_owned(),
        reference: reference.to_owned(),
    }
}

#[test]
fn a_skip_is_recorded_once_and_reads_back() {
    let mut record = Skip::default();
    let events = record.decide(skip(7, Some(7), "ada@desk", "OPS-12")).unwrap();
    let [event @ ProjectionEvent::EventSkipped(data)] = events.as_slice() else {
        panic!("one event")
    };
    assert_eq!((data.projector.as_str(), data.position), ("health-rollup", 7));
    let stored = event.encode();
    let again = ProjectionEvent::decode("projection.event_skipped", &stored.payload, &[]);
    assert_eq!(again.as_ref(), Ok(event));
    record.apply(event.clone());
    let repeated = record.decide(skip(7, Some(7), "ada@desk", "OPS-12"));
    assert_eq!(repeated, Err(SkipError::Recorded));
}

#[test]
fn only_the_event_the_projector_stopped_at_can_be_skipped() {
    let refused = |command| Skip::default().decide(command).unwrap_err();
    assert_eq!(refused(skip(7, None, "ada@desk", "OPS-12")), SkipError::NotParked);
    let elsewhere = SkipError::Elsewhere { parked_at: 6 };
    assert_eq!(refused(skip(7, Some(6), "ada@desk", "OPS-12")), elsewhere);
}

#[test]
fn a_skip_says_who_and_refers_to_why() {
    let refused = |command| Skip::default().decide(command).unwrap_err();
    assert_eq!(refused(skip(7, Some(7), " ", "OPS-12")), SkipError::Anonymous);
    for prose in ["", "she reported chest pain", "naïve", "a\nb", &"x".repeat(81)] {
        assert_eq!(refused(skip(7, Some(7), "ada@desk", prose)), SkipError::BadReference);
    }
    assert!(Skip::default().decide(skip(7, Some(7), "ada@desk", "https://t/OPS#12")).is_ok());
}

#[test]
fn a_skip_is_readable_whatever_keys_are_left() {
    assert!(ProjectionEvent::types().iter().all(|entry| entry.purpose.is_none()));
}
