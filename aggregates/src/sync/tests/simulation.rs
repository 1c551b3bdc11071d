//! Sync invariants 1, 5, 7, 9 to 14, 18, 22 and 23 over random histories of several phones.

use proptest::collection::vec;
use proptest::prelude::*;

use super::fleet::{Fate, Fleet, Step};

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::RequestLost),
        2 => Just(Fate::ReplyLost),
        1 => Just(Fate::Doubled),
        1 => Just(Fate::Delayed),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..3_usize;
    let target = 0..14_usize;
    prop_oneof![
        2 => device.clone().prop_map(|device| Step::Start { device }),
        4 => (device.clone(), proptest::option::of(0..7_usize))
            .prop_map(|(device, session)| Step::Consume { device, session }),
        6 => (device.clone(), target.clone(), any::<bool>())
            .prop_map(|(device, target, whole)| Step::Edit { device, target, whole }),
        2 => (device.clone(), 0..7_usize, 0..4_usize)
            .prop_map(|(device, target, status)| Step::Status { device, target, status }),
        2 => (device.clone(), 0..7_usize, 0..7_usize)
            .prop_map(|(device, target, session)| Step::Move { device, target, session }),
        1 => (device.clone(), target).prop_map(|(device, target)| Step::Delete { device, target }),
        7 => (device.clone(), 1..6_usize, fate())
            .prop_map(|(device, items, fate)| Step::Push { device, items, fate }),
        2 => (0..9_usize).prop_map(|which| Step::Deliver { which }),
        6 => (device, 1..8_usize, 1..9_usize, fate(), any::<bool>()).prop_map(
            |(device, limit, pages, fate, busy)| Step::Pull { device, limit, pages, fate, busy }
        ),
        1 => (1..50_i64).prop_map(|minutes| Step::Wait { minutes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn sync_10_phones_converge_whatever_the_network_does(steps in vec(step(), 1..120)) {
        let mut fleet = Fleet::new(3);
        for step in &steps {
            fleet.step(step);
        }
        fleet.quiesce();
    }
}
