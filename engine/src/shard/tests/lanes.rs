//! Several batches of one shard at once, each of other keys (R48 to R50).

use std::collections::BTreeMap;

use super::rig::{Did, Reply, Rig, after, mapping, success};
use crate::outcome::Outcome;
use crate::position::Position;
use crate::shard::LaneId;

fn rig(factor: usize) -> Rig {
    let mut rig = Rig::new(mapping(|m| {
        m.parallelization_factor = factor;
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(1);
    }));
    rig.checks_each_step = false;
    rig
}

fn lanes(rig: &Rig) -> BTreeMap<u64, LaneId> {
    let lane = |(_, did): &(u64, Did)| match did {
        Did::Invoke { records, lane, .. } => Some((records[0], *lane)),
        _ => None,
    };
    rig.trace.iter().filter_map(lane).collect()
}

#[test]
fn r48_keys_keep_their_order_in_a_lane_of_their_own_and_lanes_run_at_once() {
    let mut rig = rig(10);
    for n in 1..=100 {
        // No multiple of the number of lanes: a key does not keep its lane by taking turns.
        rig.put_keyed(n, Some(&format!("key-{}", n % 17)), 0);
    }
    rig.function = Box::new(|call| Reply::After(100 + call.records[0] * 7 % 50, success()));
    rig.run(60_000);
    let lanes = lanes(&rig);
    assert_eq!(lanes.len(), 100);
    for (n, lane) in &lanes {
        assert_eq!(lanes[&((n - 1) % 17 + 1)], *lane, "one key, one lane");
    }
    let begun: Vec<u64> = rig.batches().concat();
    for key in 0..17 {
        let of_key: Vec<_> = begun.iter().filter(|n| *n % 17 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    let at_once = rig.invocations().iter().filter(|(at, _)| *at == rig.invocations()[0].0).count();
    assert!(at_once > 5, "{at_once} lanes began together");
    assert_eq!(rig.stored, after(100));
}

#[test]
fn r48_records_without_a_key_keep_the_order_of_the_shard_in_the_first_lane() {
    let mut rig = rig(10);
    (1..=5).for_each(|n| rig.put_keyed(n, None, 0));
    rig.function = Box::new(|_| Reply::After(10, success()));
    rig.run(1000);
    assert_eq!(rig.batches(), [[1], [2], [3], [4], [5]]);
    assert!(lanes(&rig).values().all(|lane| *lane == LaneId(0)));
}

/// Two keys of different lanes.
fn two_keys() -> [String; 2] {
    let mut rig = rig(2);
    for n in 1..=10 {
        rig.put_keyed(n, Some(&n.to_string()), 0);
    }
    rig.run(1000);
    let lanes = lanes(&rig);
    let of = |lane| lanes.iter().find(|(_, of)| **of == LaneId(lane)).unwrap().0.to_string();
    [of(0), of(1)]
}

#[test]
fn r50_a_failing_lane_blocks_its_own_keys_only_and_the_checkpoint_waits_for_it() {
    let [bad, good] = two_keys();
    let mut rig = rig(2);
    for n in 1..=9 {
        rig.put_keyed(n, Some(if n == 2 || n == 5 { &bad } else { &good }), 0);
    }
    rig.function = Box::new(|call| match call.records[0] {
        2 => Reply::After(1000, Outcome::FunctionError),
        _ => Reply::After(1, success()),
    });
    rig.run(900);
    let mut begun = rig.batches().concat();
    begun.sort_unstable();
    assert_eq!(begun, [1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(rig.stored, after(1), "I2: 2 is unresolved");
    let lane = &rig.machine.snapshot(rig.now()).lanes;
    assert_eq!(lane.iter().map(|lane| lane.queued).sum::<usize>(), 1, "5 waits behind 2");
    rig.run(10_000);
    assert_eq!(rig.messages(), [(vec![2], 2)]);
    assert_eq!(rig.stored, after(9));
}

#[test]
fn r50_what_lanes_finished_above_the_checkpoint_comes_again_after_a_crash() {
    let [bad, good] = two_keys();
    let mut rig = rig(2);
    for n in 1..=4 {
        rig.put_keyed(n, Some(if n == 2 { &bad } else { &good }), 0);
    }
    rig.function = Box::new(|call| match call.records[0] {
        2 => Reply::Never,
        _ => Reply::Now(success()),
    });
    rig.run(1000);
    rig.crash(true);
    rig.function = Box::new(|_| Reply::Now(success()));
    rig.run(1000);
    let mut again = rig.batches().concat();
    again.drain(..4);
    again.sort_unstable();
    assert_eq!(again, [2, 3, 4]);
    assert_eq!(rig.stored, after(4));
}

#[test]
fn r50_a_stuck_lane_stops_the_reader_only_far_ahead_of_it() {
    let [bad, good] = two_keys();
    let mut rig = Rig::new(mapping(|m| {
        m.parallelization_factor = 2;
        m.batch_size = 10_000;
    }));
    rig.checks_each_step = false;
    for n in 1..=130_000 {
        rig.put_keyed(n, Some(if n == 1 { &bad } else { &good }), 0);
    }
    rig.function = Box::new(|call| match call.records[0] {
        1 => Reply::After(700_000, success()),
        _ => Reply::Now(success()),
    });
    rig.run(600_000);
    let finished = |rig: &Rig| rig.batches().iter().skip(1).map(Vec::len).sum::<usize>();
    assert_eq!(finished(&rig), 99_999, "ten pages, without the record that is stuck");
    assert_eq!(rig.stored, Position::TrimHorizon);
    assert!(rig.machine.poll_timeout(rig.now()).is_none(), "and nothing spins");
    rig.run(200_000);
    assert_eq!((finished(&rig), rig.stored.clone()), (129_999, after(130_000)));
}

#[test]
fn r48_one_lane_may_fill_its_batches_from_records_that_lie_apart() {
    let [one, other] = two_keys();
    let mut rig = Rig::new(mapping(|m| m.parallelization_factor = 2));
    rig.checks_each_step = false;
    for n in 1..=6 {
        rig.put_keyed(n, Some(if n % 2 == 0 { &one } else { &other }), 0);
    }
    rig.run(1000);
    let mut batches = rig.batches();
    batches.sort();
    assert_eq!(batches, [[1, 3, 5], [2, 4, 6]]);
    assert_eq!(rig.stored, after(6));
}
