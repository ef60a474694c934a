//! Places for invocations: asked for, waited for, used at once or given back.

use super::rig::{Did, Reply, Rig, mapping, ms, success};
use crate::failure::Condition;
use crate::mapping::EventSourceMapping;
use crate::outcome::Outcome;
use crate::record::Record;
use crate::shard::{Exit, LaneId, LastResult, PlaceRule, ShardEvent};

/// A rig whose invocations need places, each of which is granted after so many milliseconds.
fn limited(wait: u64, change: impl FnOnce(&mut EventSourceMapping)) -> Rig {
    let mut rig = Rig::new(mapping(change));
    rig.set_places(PlaceRule::Limited);
    rig.places = Box::new(move |_| Reply::After(wait, true));
    rig
}

fn count(rig: &Rig, which: fn(&Did) -> bool) -> usize {
    rig.trace.iter().filter(|(_, did)| which(did)).count()
}

fn reservations(rig: &Rig) -> usize {
    count(rig, |did| matches!(did, Did::Reserve(_)))
}

fn releases(rig: &Rig) -> usize {
    count(rig, |did| matches!(did, Did::Release(_)))
}

#[test]
fn incident_72_waiting_for_a_place_spends_no_attempt_has_no_backoff_and_comes_before_the_functions_time() {
    let mut rig = limited(300_000, |m| m.maximum_retry_attempts = Some(0));
    rig.put([1]);
    rig.run(299_999);
    assert_eq!(rig.batches(), Vec::<Vec<u64>>::new());
    let waiting = rig.machine.snapshot(rig.now());
    assert!(waiting.lanes[0].waits_for_place && !waiting.lanes[0].invoking);
    assert_eq!((waiting.last_result, waiting.counters.invoked), (LastResult::NoRecords, 0));
    rig.run(10);
    assert_eq!(rig.invocations(), [(300_000, vec![1])]);
    assert_eq!(reservations(&rig), 1, "asked once");
    assert!(!rig.machine.snapshot(rig.now()).lanes[0].waits_for_place);
}

#[test]
fn incident_72_the_functions_time_begins_when_the_place_is_granted() {
    let mut rig = limited(0, |m| m.timeout = ms(5000));
    rig.places = Box::new(|_| Reply::Never);
    rig.put([1]);
    rig.run(60_000);
    rig.machine.handle_event(rig.now(), ShardEvent::Granted { lane: LaneId(0) });
    let Some(crate::shard::ShardAction::Invoke(invocation)) = rig.machine.poll_action(rig.now()) else {
        panic!("the place is not used");
    };
    assert_eq!(invocation.deadline, rig.now().mono + ms(5000));
}

#[test]
fn i5_a_record_that_expires_while_it_waits_for_a_place_is_given_up_at_once_and_the_batch_is_filled_again() {
    let mut rig = limited(100_000, |m| {
        m.batch_size = 2;
        m.maximum_record_age = Some(ms(60_000));
    });
    rig.put_keyed(1, None, 0);
    rig.put_keyed(2, None, 40_001);
    rig.put_keyed(3, None, 40_002);
    rig.run(99_999);
    let given_up: Vec<_> = rig.trace.iter().filter(|(_, did)| matches!(did, Did::Discard { .. })).collect();
    assert!(matches!(
        given_up[..],
        [(60_001, Did::Discard { records, condition: Condition::RecordAgeExceeded, .. })] if *records == [1]
    ));
    rig.run(2);
    assert_eq!(rig.invocations(), [(100_000, vec![2, 3])]);
}

#[test]
fn a_batch_that_waits_for_a_place_grows() {
    let mut rig = limited(10_000, |_| {});
    rig.put([1]);
    rig.put_at(2000, [2, 3]);
    rig.run(10_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3]]);
}

#[test]
fn a_batch_that_was_due_when_its_place_was_asked_for_is_due_when_it_is_granted() {
    let full = 6 * (size_of::<Record>() + "key-1".len() + "x".len() + "1".len());
    let mut rig = limited(10_000, |m| {
        m.batching_window = ms(300_000);
        m.batch_size = 100;
        m.parallelization_factor = 2;
        // All records together fill the buffer, those of one lane do not.
        m.polling.buffer_bytes = full;
    });
    rig.places = Box::new(|n| Reply::After(if n == 1 { 5000 } else { 10_000 }, true));
    for n in 1..=6 {
        rig.put_keyed(n, Some(&format!("key-{n}")), 0);
    }
    rig.run(4000);
    assert_eq!(rig.machine.snapshot(rig.now()).buffered_bytes, full);
    rig.run(2000);
    assert!((1..full).contains(&rig.machine.snapshot(rig.now()).buffered_bytes), "a lane is done");
    rig.run(5000);
    assert_eq!(rig.invocations().len(), 2, "both lanes");
    assert_eq!(releases(&rig), 0);
}

#[test]
fn a_place_whose_batch_turns_out_too_large_hastens_nothing_and_is_given_back() {
    let mut rig = limited(1000, |m| {
        m.batching_window = ms(60_000);
        m.batch_size = 2;
        m.maximum_retry_attempts = Some(0);
        m.payload_limit = Some(2000);
    });
    rig.put_sized(1, 4000);
    rig.put_sized(2, 10);
    rig.run(59_000);
    assert_eq!((rig.messages().len(), releases(&rig)), (1, 1));
    assert_eq!(rig.batches(), Vec::<Vec<u64>>::new());
    rig.run(10_000);
    assert_eq!(rig.invocations(), [(61_000, vec![2])]);
}

#[test]
fn i5_a_place_that_is_granted_when_nothing_is_left_to_invoke_is_given_back() {
    let mut rig = limited(0, |m| m.maximum_record_age = Some(ms(60_000)));
    rig.places = Box::new(|n| Reply::After(if n == 1 { 100_000 } else { 10 }, true));
    rig.put_keyed(1, None, 0);
    rig.run(100_000);
    assert_eq!((reservations(&rig), releases(&rig)), (1, 1));
    assert_eq!(rig.batches(), Vec::<Vec<u64>>::new());
    // The next record asks anew.
    rig.put_keyed_at(150_000, 2, None, 150_000);
    rig.run(60_000);
    assert_eq!((reservations(&rig), rig.invocations().len()), (2, 1));
}

#[test]
fn i16_a_lane_that_waits_for_a_place_holds_up_no_stop_and_counts_as_no_cut_invocation() {
    let mut rig = limited(0, |_| {});
    rig.places = Box::new(|_| Reply::Never);
    rig.put([1]);
    rig.run(1000);
    rig.stop(25_000);
    rig.run(1);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
}

#[test]
fn i16_a_place_that_is_granted_during_a_stop_or_a_pause_is_given_back() {
    for event in [ShardEvent::Pause, ShardEvent::Stop { deadline: crate::time::Mono::from_millis(u64::MAX) }]
    {
        let mut rig = limited(1000, |m| m.parallelization_factor = 2);
        rig.function = Box::new(|_| Reply::Never);
        rig.places = Box::new(|n| Reply::After(if n == 1 { 0 } else { 1000 }, true));
        for n in 1..=6 {
            rig.put_keyed(n, Some(&format!("key-{n}")), 0);
        }
        rig.run(500);
        assert_eq!((rig.invocations().len(), reservations(&rig)), (1, 2), "two lanes, one place");
        rig.inject(event);
        rig.run(5000);
        assert_eq!((rig.invocations().len(), releases(&rig)), (1, 1));
    }
}

#[test]
fn incident_101_while_nobody_reaches_the_function_a_lane_asks_for_a_place_instead_of_backing_off() {
    let mut rig = limited(1000, |m| m.maximum_retry_attempts = Some(0));
    rig.set_places(PlaceRule::Away);
    rig.function = Box::new(|call| match call.nth {
        1..=90 => Reply::Now(Outcome::NotReached { retry_after: None }),
        _ => Reply::Now(success()),
    });
    rig.put([1]);
    rig.run(91_001);
    assert_eq!(rig.invocations().len(), 91, "one for each grant");
    assert_eq!(rig.machine.snapshot(rig.now()).last_result, LastResult::Ok);
}

#[test]
fn incident_101_lanes_that_wait_by_themselves_ask_for_a_place_once_nobody_reaches_the_function() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|call| match call.nth {
        1..=10 => Reply::Now(Outcome::NotReached { retry_after: None }),
        _ => Reply::Now(success()),
    });
    rig.put([1]);
    // Backoff is at a minute by now.
    rig.run(150_000);
    assert_eq!(rig.invocations().len(), 10);
    let wait = rig.machine.snapshot(rig.now()).lanes[0].retry_in;
    assert!(wait > Some(ms(2000)), "{wait:?}");
    rig.set_places(PlaceRule::Away);
    rig.run(1);
    assert_eq!(rig.invocations().len(), 11);
}

#[test]
fn r23_a_lane_that_the_function_asked_to_wait_waits_while_nobody_reaches_it() {
    let mut rig = limited(0, |_| {});
    rig.set_places(PlaceRule::Away);
    rig.function = Box::new(|call| match call.nth {
        1 => Reply::Now(Outcome::NotReached { retry_after: Some(ms(30_000)) }),
        _ => Reply::Now(success()),
    });
    rig.put([1]);
    rig.run(10_000);
    rig.set_places(PlaceRule::Unlimited);
    rig.set_places(PlaceRule::Away);
    rig.run(60_000);
    assert_eq!(rig.invocations(), [(0, vec![1]), (30_000, vec![1])]);
}

#[test]
fn a_lane_that_asked_for_a_place_waits_for_it_though_places_are_unlimited_by_then() {
    let mut rig = limited(5000, |_| {});
    rig.put([1]);
    rig.run(100);
    rig.set_places(PlaceRule::Unlimited);
    rig.run(10_000);
    assert_eq!(rig.invocations(), [(5000, vec![1])]);
    assert_eq!(releases(&rig), 0);
}
