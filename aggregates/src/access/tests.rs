use cqrs_es::Aggregate;

use super::*;
use crate::{Purpose, StoredEvent};

fn reveal(reason: &str, what: Revealed) -> AccessCommand {
    AccessCommand::Reveal {
        by: "ada@desk".to_owned(),
        channel: "cli".to_owned(),
        reason: reason.to_owned(),
        what,
    }
}

fn positions(positions: &[i64]) -> Revealed {
    Revealed::Positions { positions: positions.to_vec() }
}

#[test]
fn an_access_is_recorded_once_and_reads_back() {
    let mut access = Access::default();
    let events = access.decide(reveal("  ticket 7 ", positions(&[3, 9]))).unwrap();
    let [event @ AccessEvent::Revealed(data)] = events.as_slice() else { panic!("one event") };
    assert_eq!(data.reason, "ticket 7");
    let stored = event.encode();
    assert_eq!(AccessEvent::decode("access.revealed", &stored.payload, &[]).as_ref(), Ok(event));
    access.apply(event.clone());
    assert_eq!(access.decide(reveal("again", positions(&[3]))), Err(AccessError::Recorded));
}

#[test]
fn an_access_needs_a_reason_a_reader_and_a_scope() {
    let refused = |command| Access::default().decide(command).unwrap_err();
    assert_eq!(refused(reveal(" ", positions(&[1]))), AccessError::NoReason);
    assert_eq!(refused(reveal("a\nb", positions(&[1]))), AccessError::BadReason);
    assert_eq!(refused(reveal(&"x".repeat(501), positions(&[1]))), AccessError::BadReason);
    for wrong in [vec![], vec![0], vec![2, 1], vec![4, 4], (1..=2001).collect()] {
        assert_eq!(refused(reveal("r", positions(&wrong))), AccessError::BadScope);
    }
    let stream = |upto| Revealed::Stream {
        aggregate_type: "session".to_owned(),
        aggregate_id: "s".to_owned(),
        upto,
    };
    assert_eq!(refused(reveal("r", stream(0))), AccessError::BadScope);
    assert!(Access::default().decide(reveal("r", stream(1))).is_ok());
    let AccessCommand::Reveal { channel, reason, what, .. } = reveal("r", positions(&[1]));
    let anonymous = AccessCommand::Reveal { by: " ".to_owned(), channel, reason, what };
    assert_eq!(refused(anonymous), AccessError::Anonymous);
}

#[test]
fn an_access_is_sealed_with_the_identity_of_the_person_concerned() {
    assert!(AccessEvent::types().iter().all(|entry| entry.purpose == Some(Purpose::Identity)));
}
