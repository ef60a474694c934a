//! A stop (I16): what is in flight ends, nothing new starts, one last checkpoint, never past its deadline.

use super::rig::{Reply, Rig, after, failed_at, mapping, ms, success};
use crate::outcome::Outcome;
use crate::position::Position;
use crate::shard::{Exit, ShardEvent};

#[test]
fn i16_the_batch_in_flight_ends_its_checkpoint_is_written_and_nothing_new_starts() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.checkpoint_interval = ms(3_600_000);
    }));
    rig.function = Box::new(|_| Reply::After(1000, success()));
    rig.put(1..=5);
    rig.run(1500);
    assert_eq!(rig.stored, after(1));
    rig.stop(25_000);
    let reads = rig.fetches().len();
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
    assert_eq!((rig.now_millis(), rig.fetches().len()), (2000, reads));
    assert_eq!(
        (rig.batches().len(), rig.stored.clone()),
        (2, after(2)),
        "the interval does not hold the last one"
    );
}

#[test]
fn i16_an_idle_shard_stops_at_once() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.run(500);
    rig.stop(25_000);
    rig.settle();
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
}

#[test]
fn i16_a_stop_before_the_first_action_starts_nothing() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.stop(25_000);
    rig.settle();
    assert_eq!(rig.trace.len(), 1);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
}

#[test]
fn i16_a_hung_read_or_open_does_not_hold_a_stop() {
    for hung in ["open", "read"] {
        let mut rig = Rig::new(mapping(|_| {}));
        match hung {
            "open" => rig.opens = Box::new(|_| Reply::Never),
            _ => rig.reads = Box::new(|_| Reply::Never),
        }
        rig.run(500);
        rig.stop(25_000);
        rig.settle();
        assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }), "{hung}");
    }
}

#[test]
fn i16_the_deadline_cuts_an_invocation_which_spends_no_attempt_and_comes_again() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
    }));
    rig.function = Box::new(|call| match (call.records[0], call.nth) {
        (2, 1) => Reply::Never,
        _ => Reply::Now(success()),
    });
    rig.put(1..=2);
    rig.run(500);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 1 }));
    assert_eq!(rig.now_millis(), 25_500);
    assert_eq!((rig.stored.clone(), rig.messages().len()), (after(1), 0));
    assert_eq!(rig.machine.counters().failed, 0);
    rig.crash(false);
    rig.run(1000);
    assert_eq!(rig.batches(), [[1], [2], [2]]);
    assert_eq!(rig.stored, after(2));
}

#[test]
fn i16_a_deadline_that_is_already_over_cuts_at_once() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::Never);
    rig.put([1]);
    rig.run(500);
    rig.stop(0);
    rig.settle();
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 1 }));
}

#[test]
fn i16_a_batch_that_fails_while_stopping_is_not_retried_nor_split_any_further() {
    for outcome in [Outcome::FunctionError, failed_at([3]), Outcome::NotReached { retry_after: None }] {
        let mut rig = Rig::new(mapping(|m| {
            m.bisect_batch_on_function_error = true;
            m.report_batch_item_failures = true;
        }));
        rig.function = Box::new(move |_| Reply::After(1000, outcome.clone()));
        rig.put(1..=4);
        rig.run(500);
        rig.stop(25_000);
        rig.run(60_000);
        assert_eq!((rig.batches().len(), rig.now_millis()), (1, 1000));
        assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
    }
}

#[test]
fn i16_a_prefix_that_succeeded_while_stopping_is_in_the_last_checkpoint() {
    let mut rig = Rig::new(mapping(|m| m.report_batch_item_failures = true));
    rig.function = Box::new(|_| Reply::After(1000, failed_at([3])));
    rig.put(1..=4);
    rig.run(500);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!(rig.stored, after(2));
}

#[test]
fn i16_a_discard_made_while_stopping_is_delivered_before_the_exit() {
    let mut rig = Rig::new(mapping(|m| m.maximum_retry_attempts = Some(0)));
    rig.function = Box::new(|_| Reply::After(1000, Outcome::FunctionError));
    rig.destination = Some(Box::new(|_| Reply::After(1000, true)));
    rig.put([1]);
    rig.run(500);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
    assert_eq!((rig.now_millis(), rig.stored.clone()), (2000, after(1)));
}

#[test]
fn i16_a_destination_that_refuses_while_stopping_is_not_tried_again() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
    }));
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.destination = Some(Box::new(|_| Reply::After(1000, false)));
    rig.put([1, 2]);
    rig.run(500);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!((rig.messages().len(), rig.now_millis()), (1, 1000));
    assert_eq!(rig.stored, Position::TrimHorizon, "both are redelivered");
}

#[test]
fn i16_a_hung_destination_holds_a_stop_until_its_deadline_and_no_longer() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
    }));
    rig.function =
        Box::new(|call| Reply::Now(if call.records[0] == 1 { success() } else { Outcome::FunctionError }));
    rig.destination = Some(Box::new(|_| Reply::Never));
    rig.put([1, 2]);
    rig.run(500);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }), "no invocation was cut");
    assert_eq!((rig.now_millis(), rig.stored.clone()), (25_500, after(1)));
}

#[test]
fn i16_a_checkpoint_that_fails_at_a_stop_is_tried_until_the_deadline_and_no_longer() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.store = Box::new(|_| Reply::Now(false));
    rig.put([1]);
    rig.run(10);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
    assert_eq!(rig.now_millis(), 25_010);
    assert!(rig.checkpoints().len() > 5);
}

#[test]
fn i16_a_checkpoint_that_recovers_before_the_deadline_ends_the_stop() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.store = Box::new(|n| Reply::Now(n == 3));
    rig.put([1]);
    rig.run(10);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!((rig.exit(), rig.stored.clone()), (Some(Exit::Stopped { cut: 0 }), after(1)));
    assert!(rig.now_millis() < 2000);
}

#[test]
fn i16_the_last_checkpoint_may_still_be_written_when_the_deadline_has_passed() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::After(1000, success()));
    rig.store = Box::new(|_| Reply::After(300, true));
    rig.put([1]);
    rig.run(500);
    rig.stop(500);
    rig.run(60_000);
    assert_eq!((rig.exit(), rig.stored.clone()), (Some(Exit::Stopped { cut: 0 }), after(1)));
    assert_eq!(rig.now_millis(), 1300);
}

#[test]
fn i16_a_shard_that_ends_while_stopping_is_stored_as_ended() {
    let mut rig = Rig::new(mapping(|m| m.checkpoint_interval = ms(3_600_000)));
    rig.function = Box::new(|_| Reply::After(1000, success()));
    rig.put([1]);
    rig.close_at(0);
    rig.run(500);
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!((rig.exit(), rig.stored.clone()), (Some(Exit::ShardEnd), Position::ShardEnd));
}

#[test]
fn i16_a_second_stop_changes_nothing() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::After(1000, success()));
    rig.put([1]);
    rig.run(500);
    rig.stop(25_000);
    let before = rig.machine.clone();
    rig.stop(0);
    assert_eq!(rig.machine, before);
    rig.run(60_000);
    assert_eq!((rig.exit(), rig.stored.clone()), (Some(Exit::Stopped { cut: 0 }), after(1)));
}

#[test]
fn i16_a_paused_shard_stops_without_waiting_for_its_deadline() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
    }));
    rig.function = Box::new(|_| Reply::After(1000, Outcome::FunctionError));
    rig.put([1, 2]);
    rig.run(500);
    rig.inject(ShardEvent::Pause);
    rig.run(1000);
    assert_eq!((rig.messages().len(), rig.machine.snapshot(rig.now()).undelivered_discards), (0, 1));
    rig.stop(25_000);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
    assert_eq!(rig.now_millis(), 1500, "what a pause holds back is redelivered");
    assert_eq!(rig.stored, Position::TrimHorizon);
}
