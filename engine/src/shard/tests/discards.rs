//! Discarded batches, their destination, and the checkpoint behind them (R72, R74, R75, I3).

use super::rig::{Did, Reply, Rig, after, mapping, ms, success};
use crate::mapping::{EventSourceMapping, OnDestinationFailure};
use crate::outcome::Outcome;
use crate::position::Position;
use crate::shard::{Exit, ShardEvent};

/// Batches of one, no retries; records below `good` always fail.
fn failing_below(good: u64, change: impl FnOnce(&mut EventSourceMapping)) -> Rig {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
        change(m);
    }));
    rig.function = Box::new(move |call| {
        Reply::Now(if call.records[0] < good { Outcome::FunctionError } else { success() })
    });
    rig
}

fn deliveries(rig: &Rig) -> Vec<u64> {
    rig.trace.iter().filter(|(_, did)| matches!(did, Did::Discard { .. })).map(|(at, _)| *at).collect()
}

#[test]
fn r72_one_message_per_discarded_batch_and_none_for_failed_tries_or_success() {
    let mut rig = failing_below(3, |m| m.maximum_retry_attempts = Some(2));
    rig.put(1..=4);
    rig.run(60_000);
    assert_eq!(rig.messages(), [(vec![1], 3), (vec![2], 3)]);
    let counters = rig.machine.counters();
    assert_eq!((counters.delivered, counters.dropped, counters.delivery_failures), (2, 0, 0));
}

#[test]
fn r75_and_i3_the_next_batch_does_not_wait_for_a_delivery_but_the_checkpoint_does() {
    let mut rig = failing_below(2, |_| {});
    rig.destination = Some(Box::new(|_| Reply::After(5000, true)));
    rig.put(1..=3);
    rig.run(4999);
    assert_eq!(rig.invocations(), [(0, vec![1]), (0, vec![2]), (0, vec![3])]);
    assert_eq!(rig.checkpoints(), []);
    assert_eq!(rig.machine.snapshot(rig.now()).undelivered_discards, 1);
    rig.run(1);
    assert_eq!(rig.checkpoints(), [(5000, after(3))], "2 and 3 were done ahead");
}

#[test]
fn i3_a_refused_delivery_is_tried_again_with_backoff_and_holds_the_checkpoint() {
    let mut rig = failing_below(2, |_| {});
    rig.destination = Some(Box::new(|n| Reply::Now(n == 4)));
    rig.put(1..=2);
    rig.run(60_000);
    let at = deliveries(&rig);
    let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(at.len(), 4);
    assert!((200..=300).contains(&gaps[0]) && (400..=600).contains(&gaps[1]), "{gaps:?}");
    assert_eq!(rig.checkpoints(), [(at[3], after(2))]);
    let counters = rig.machine.counters();
    assert_eq!((counters.delivered, counters.dropped, counters.delivery_failures), (1, 0, 3));
}

#[test]
fn r74_with_drop_a_refused_delivery_is_counted_once_and_the_checkpoint_passes() {
    let mut rig = failing_below(3, |m| m.on_destination_failure = OnDestinationFailure::Drop);
    rig.destination = Some(Box::new(|n| Reply::Now(n != 1)));
    rig.put(1..=3);
    rig.run(60_000);
    assert_eq!(rig.messages(), [(vec![1], 1), (vec![2], 1)], "not sent again; later ones are");
    assert_eq!(rig.stored, after(3));
    let counters = rig.machine.counters();
    assert_eq!((counters.delivered, counters.dropped, counters.delivery_failures), (1, 1, 1));
}

#[test]
fn r76_i3_without_a_destination_a_discard_is_counted_as_dropped_before_the_checkpoint_passes() {
    let mut rig = failing_below(2, |_| {});
    rig.destination = None;
    rig.put([1, 2]);
    rig.run(60_000);
    assert_eq!(rig.stored, after(2));
    let counters = rig.machine.counters();
    assert_eq!((counters.delivered, counters.dropped, counters.delivery_failures), (0, 1, 0));
}

#[test]
fn at_most_ten_discards_are_undelivered_then_the_shard_waits() {
    let mut rig = failing_below(100, |_| {});
    rig.destination = Some(Box::new(|n| if n == 1 { Reply::After(50_000, true) } else { Reply::Never }));
    rig.put(1..=30);
    rig.run(49_000);
    assert_eq!(rig.batches().len(), 10);
    assert_eq!(rig.machine.snapshot(rig.now()).undelivered_discards, 10);
    rig.run(2000);
    assert_eq!(rig.batches().len(), 11, "one was delivered, one more is invoked");
    assert_eq!(rig.stored, after(1));
}

#[test]
fn a_retry_waits_too_while_ten_discards_are_undelivered() {
    let mut rig = failing_below(100, |m| m.maximum_retry_attempts = Some(1));
    rig.destination = Some(Box::new(|_| Reply::Never));
    rig.put(1..=30);
    rig.run(600_000);
    assert_eq!(rig.batches().len(), 20, "ten batches, two tries each");
}

#[test]
fn discards_are_delivered_one_at_a_time_in_the_shards_order() {
    let mut rig = failing_below(100, |_| {});
    rig.destination = Some(Box::new(|n| Reply::After(100 / n as u64, true)));
    rig.put(1..=4);
    rig.run(60_000);
    let order: Vec<_> = rig.messages().into_iter().map(|(records, _)| records[0]).collect();
    assert_eq!(order, [1, 2, 3, 4]);
    assert_eq!(deliveries(&rig), [0, 100, 150, 183]);
    assert_eq!(rig.stored, after(4));
}

#[test]
fn i9_the_shards_end_waits_for_the_last_delivery() {
    let mut rig = failing_below(100, |m| m.checkpoint_interval = ms(3_600_000));
    rig.destination = Some(Box::new(|n| Reply::After(1000, n > 2)));
    rig.put([1]);
    rig.close_at(0);
    rig.run(2900);
    assert_eq!(rig.checkpoints(), []);
    rig.run(60_000);
    assert_eq!(rig.checkpoints().len(), 1);
    assert_eq!((rig.stored.clone(), rig.exit()), (Position::ShardEnd, Some(Exit::ShardEnd)));
}

#[test]
fn answers_about_another_delivery_change_nothing_and_count_nothing() {
    let mut rig = failing_below(2, |_| {});
    rig.destination = Some(Box::new(|_| Reply::After(100, false)));
    rig.put([1]);
    rig.run(50);
    let settled = rig.discard_ids[0];
    rig.run(100);
    let before = (rig.machine.clone(), *rig.machine.counters());
    for event in
        [ShardEvent::Delivered(settled), ShardEvent::Dropped(settled), ShardEvent::DeliverFailed(settled)]
    {
        rig.inject(event.clone());
        assert_eq!(
            (rig.machine.clone(), *rig.machine.counters()),
            before,
            "{event:?} while nothing is under way"
        );
    }
}

#[test]
fn a_delivery_that_recovered_leaves_no_backoff_to_the_next_one() {
    let mut rig = failing_below(3, |_| {});
    rig.destination = Some(Box::new(|n| Reply::Now(![1, 2, 3, 5].contains(&n))));
    rig.put(1..=2);
    rig.run(60_000);
    let at = deliveries(&rig);
    assert_eq!(at.len(), 6);
    assert_eq!(at[4], at[3], "the next message is sent at once");
    assert!((200..=300).contains(&(at[5] - at[4])), "{at:?}");
}
