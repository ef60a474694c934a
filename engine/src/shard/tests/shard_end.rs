//! The end of a shard (I9): stored when everything is resolved, with the shards that follow.

use super::rig::{Did, Reply, Rig, after, mapping, ms, success};
use crate::fleet::Shard;
use crate::outcome::Outcome;
use crate::position::Position;
use crate::shard::Exit;

fn children() -> Vec<Shard> {
    let child =
        |name: &str| Shard { id: name.into(), parents: vec!["shard".into()], hash_range: None, open: true };
    vec![child("left"), child("right")]
}

#[test]
fn i9_the_end_is_stored_after_the_last_record_with_the_children_and_without_waiting_for_the_interval() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 2;
        m.checkpoint_interval = ms(3_600_000);
    }));
    rig.function = Box::new(|_| Reply::After(1000, success()));
    rig.put(1..=5);
    rig.children = children();
    rig.close_at(0);
    rig.run(60_000);
    assert_eq!(rig.checkpoints(), [(1000, after(2)), (3000, Position::ShardEnd)]);
    let handed: Vec<_> = rig
        .trace
        .iter()
        .filter_map(|(_, did)| match did {
            Did::Checkpoint(upto, children) => Some((upto == &Position::ShardEnd, children.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(handed, [(false, Vec::new()), (true, children())]);
    assert_eq!((rig.exit(), rig.now_millis()), (Some(Exit::ShardEnd), 3000));
    let snapshot = rig.machine.snapshot(rig.now());
    assert!(snapshot.ended && snapshot.children_told);
}

#[test]
fn i9_a_checkpoint_in_flight_at_the_end_is_followed_by_the_end() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    rig.function = Box::new(|_| Reply::After(100, success()));
    rig.store = Box::new(|_| Reply::After(5000, true));
    rig.put(1..=3);
    rig.close_at(0);
    rig.run(60_000);
    assert_eq!(rig.checkpoints(), [(100, after(1)), (5100, Position::ShardEnd)]);
}

#[test]
fn i9_an_empty_closed_shard_ends_at_once() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.children = children();
    rig.close_at(0);
    rig.run(1000);
    assert_eq!(
        rig.trace[2..],
        [(0, Did::Checkpoint(Position::ShardEnd, children())), (0, Did::Exit(Exit::ShardEnd))]
    );
}

#[test]
fn a_run_that_begins_at_the_end_of_a_shard_exits_without_reading() {
    let mut rig = Rig::resuming(mapping(|_| {}), Position::ShardEnd);
    assert_eq!(rig.machine.poll_timeout(rig.now()), None);
    rig.run(1000);
    assert_eq!(rig.trace, [(0, Did::Exit(Exit::ShardEnd))]);
}

#[test]
fn a_run_that_begins_after_the_last_record_of_a_closed_shard_stores_its_end() {
    let mut rig = Rig::resuming(mapping(|_| {}), after(3));
    rig.put(1..=3);
    rig.close_at(0);
    rig.run(1000);
    assert_eq!((rig.batches().len(), rig.stored.clone()), (0, Position::ShardEnd));
}

#[test]
fn i9_a_retried_batch_holds_the_end_back() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|call| Reply::Now(if call.nth < 6 { Outcome::FunctionError } else { success() }));
    rig.put([1]);
    rig.close_at(0);
    rig.run(3000);
    assert_eq!(rig.checkpoints(), []);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::ShardEnd));
}

#[test]
fn nothing_is_read_behind_the_end() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::After(60_000, success()));
    rig.put([1]);
    rig.close_at(0);
    rig.run(59_000);
    assert_eq!(rig.fetches(), [0]);
}
