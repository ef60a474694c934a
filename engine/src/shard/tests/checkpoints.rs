//! When the checkpoint is written (I2), and what is redelivered after a crash.

use super::rig::{Reply, Rig, after, failed_at, mapping, ms, success};
use crate::outcome::Outcome;
use crate::position::Position;
use crate::shard::{Exit, ShardEvent};

#[test]
fn checkpoints_are_coalesced_to_one_per_interval() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.checkpoint_interval = ms(1000);
    }));
    rig.function = Box::new(|_| Reply::After(100, success()));
    rig.put(1..=25);
    rig.run(10_000);
    assert_eq!(rig.checkpoints(), [(100, after(1)), (1100, after(11)), (2100, after(21)), (3100, after(25))]);
    assert_eq!(rig.machine.snapshot(rig.now()).checkpoint, after(25));
}

#[test]
fn one_checkpoint_is_in_flight_at_a_time_and_the_next_takes_all_that_came_meanwhile() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    rig.function = Box::new(|_| Reply::After(100, success()));
    rig.store = Box::new(|_| Reply::After(350, true));
    rig.put(1..=6);
    rig.run(10_000);
    assert_eq!(rig.checkpoints(), [(100, after(1)), (450, after(4)), (800, after(6))]);
}

#[test]
fn nothing_is_written_when_nothing_moved() {
    let mut rig = Rig::resuming(mapping(|_| {}), after(9));
    rig.run(60_000);
    assert_eq!(rig.checkpoints(), []);
}

#[test]
fn a_failed_checkpoint_backs_off_and_then_writes_the_newest_position() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    rig.function = Box::new(|_| Reply::After(50, success()));
    rig.store = Box::new(|n| Reply::Now(n == 4));
    rig.put(1..=4);
    rig.run(60_000);
    let writes = rig.checkpoints();
    let gaps: Vec<_> = writes.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(writes.len(), 4);
    assert!((200..=300).contains(&gaps[0]) && (400..=600).contains(&gaps[1]), "{gaps:?}");
    assert!((800..=1200).contains(&gaps[2]), "{gaps:?}");
    assert_eq!((writes[0].1.clone(), writes[3].1.clone()), (after(1), after(4)));
    assert_eq!(rig.machine.snapshot(rig.now()).checkpoint_failures, 0);
    assert_eq!(rig.batches().len(), 4, "a store that fails stops no batch");
}

#[test]
fn a_failing_store_does_not_let_the_shard_end() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.put([1]);
    rig.close_at(0);
    rig.store = Box::new(|n| Reply::Now(n > 3));
    rig.run(100);
    assert_eq!(rig.exit(), None);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::ShardEnd));
}

#[test]
fn i2_a_checkpoint_never_passes_a_batch_that_is_retried() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 3;
        m.report_batch_item_failures = true;
    }));
    rig.function = Box::new(|call| match call.nth {
        1..=3 if call.records.contains(&5) => Reply::Now(failed_at([5])),
        _ => Reply::Now(success()),
    });
    rig.put(1..=9);
    rig.run(100);
    assert_eq!(rig.stored, after(4));
    rig.run(60_000);
    assert_eq!(rig.stored, after(9));
}

#[test]
fn after_a_crash_exactly_the_records_above_the_checkpoint_come_again() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 2;
        m.checkpoint_interval = ms(1000);
    }));
    rig.function = Box::new(|_| Reply::After(100, success()));
    rig.put(1..=8);
    rig.close_at(0);
    rig.run(350);
    assert_eq!((rig.stored.clone(), rig.batches().len()), (after(2), 4));
    rig.crash(false);
    rig.run(60_000);
    let again: Vec<_> = rig.batches().into_iter().skip(4).collect();
    assert_eq!(again, [[3, 4], [5, 6], [7, 8]]);
    assert_eq!(rig.stored, Position::ShardEnd);
    assert!(
        rig.ids()[..4].iter().all(|id| !rig.ids()[4..].contains(id)),
        "another run has other request ids"
    );
}

#[test]
fn after_a_crash_a_batch_has_all_its_attempts_again() {
    let mut rig = Rig::new(mapping(|m| m.maximum_retry_attempts = Some(1)));
    rig.function = Box::new(|call| match call.nth {
        1 => Reply::Now(Outcome::FunctionError),
        2 => Reply::Never,
        _ => Reply::Now(Outcome::FunctionError),
    });
    rig.put([1]);
    rig.run(1000);
    rig.crash(false);
    rig.run(1000);
    assert_eq!(rig.batches().len(), 4);
    assert_eq!(rig.messages(), [(vec![1], 2)]);
}

#[test]
fn after_a_crash_a_discard_that_was_waiting_for_its_destination_comes_again() {
    let mut rig = Rig::new(mapping(|m| m.maximum_retry_attempts = Some(0)));
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.destination = Some(Box::new(|n| if n == 1 { Reply::Never } else { Reply::Now(true) }));
    rig.put([1]);
    rig.run(1000);
    assert_eq!(rig.stored, Position::TrimHorizon);
    rig.crash(false);
    rig.run(1000);
    assert_eq!((rig.messages().len(), rig.stored.clone()), (2, after(1)));
}

#[test]
fn i10_a_lost_lease_ends_the_run_at_once_and_starts_nothing() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    rig.function = Box::new(|_| Reply::After(100, success()));
    rig.store = Box::new(|_| Reply::After(1000, true));
    rig.put(1..=5);
    rig.run(250);
    let done = rig.trace.len();
    rig.inject(ShardEvent::LeaseLost);
    rig.run(60_000);
    assert_eq!(rig.trace.len(), done + 1);
    assert_eq!(rig.exit(), Some(Exit::LeaseLost));
}

#[test]
fn i10_a_lease_that_is_lost_while_stopping_ends_the_run_as_lost() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::Never);
    rig.put([1]);
    rig.run(100);
    rig.stop(1000);
    rig.inject(ShardEvent::LeaseLost);
    rig.run(10);
    assert_eq!(rig.exit(), Some(Exit::LeaseLost));
}
