//! When a batch is formed (R3, R4, R6, R13, R19, I13).

use super::rig::{Did, Reply, Rig, after, mapping, ms, record, success};

#[test]
fn r6_trim_horizon_delivers_thirty_records_as_ten_and_ten_and_ten() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 10));
    rig.put(1..=30);
    rig.close_at(0);
    rig.run(10_000);
    assert_eq!(rig.batches(), [(1..=10).collect::<Vec<_>>(), (11..=20).collect(), (21..=30).collect()]);
    let counters = rig.machine.counters();
    assert_eq!((counters.polled, counters.invoked, counters.failed, counters.dropped), (30, 30, 0, 0));
}

#[test]
fn r3_without_a_window_one_record_is_invoked_at_once() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.put([1]);
    rig.run(10);
    assert_eq!(rig.invocations(), [(0, vec![1])]);
}

#[test]
fn r3a_a_full_batch_does_not_wait_for_its_window() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 3;
        m.batching_window = ms(300_000);
    }));
    rig.put(1..=7);
    rig.run(1000);
    assert_eq!(rig.invocations(), [(0, vec![1, 2, 3]), (0, vec![4, 5, 6])]);
}

#[test]
fn r3b_an_underfilled_batch_is_invoked_when_its_window_closes() {
    let mut rig = Rig::new(mapping(|m| m.batching_window = ms(5000)));
    rig.put([1, 2]);
    rig.put_at(3000, [3]);
    rig.put_at(5500, [4]);
    rig.run(20_000);
    assert_eq!(rig.invocations(), [(5000, vec![1, 2, 3]), (10_000, vec![4])]);
}

#[test]
fn r4_the_next_window_starts_when_the_previous_invocation_finishes() {
    let mut rig = Rig::new(mapping(|m| m.batching_window = ms(5000)));
    rig.function = Box::new(|_| Reply::After(1700, success()));
    rig.put([1]);
    rig.put_at(5500, [2]);
    rig.run(30_000);
    assert_eq!(rig.invocations(), [(5000, vec![1]), (5000 + 1700 + 5000, vec![2])]);
}

#[test]
fn r4_a_record_that_comes_after_the_invocation_waits_for_the_window_that_began_at_its_end() {
    let mut rig = Rig::new(mapping(|m| m.batching_window = ms(5000)));
    rig.function = Box::new(|_| Reply::After(1700, success()));
    rig.put([1]);
    rig.put_at(8000, [2]);
    rig.run(30_000);
    assert_eq!(rig.invocations(), [(5000, vec![1]), (11_700, vec![2])]);
}

#[test]
fn r4_after_a_long_silence_a_record_waits_for_the_rest_of_the_running_window() {
    let mut rig = Rig::new(mapping(|m| m.batching_window = ms(5000)));
    rig.put_at(61_000, [1]);
    rig.run(100_000);
    assert_eq!(rig.invocations(), [(65_000, vec![1])], "windows tile from the start: 60 s to 65 s");
}

#[test]
fn r4_a_record_on_a_windows_boundary_waits_one_whole_window_and_never_longer() {
    let mut rig = Rig::new(mapping(|m| m.batching_window = ms(5000)));
    rig.put_at(60_000, [1]);
    rig.run(100_000);
    assert_eq!(rig.invocations(), [(65_000, vec![1])]);
}

#[test]
fn r3_the_end_of_the_shard_closes_the_window() {
    let mut rig = Rig::new(mapping(|m| m.batching_window = ms(300_000)));
    rig.put([1, 2]);
    rig.close_at(2000);
    rig.run(10_000);
    assert_eq!(rig.invocations(), [(2000, vec![1, 2])]);
}

#[test]
fn r19_the_shard_is_blocked_while_its_batch_is_in_flight_but_pages_are_read_on() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 2));
    rig.function = Box::new(|_| Reply::After(10_000, success()));
    rig.put([1, 2]);
    rig.put_at(1000, [3, 4, 5]);
    rig.run(9999);
    assert_eq!(rig.batches(), [[1, 2]]);
    assert_eq!(rig.machine.snapshot(rig.now()).buffered_records, 5);
    rig.run(50_000);
    assert_eq!(rig.invocations(), [(0, vec![1, 2]), (10_000, vec![3, 4]), (20_000, vec![5])]);
}

#[test]
fn r13_the_checkpoint_moves_to_the_last_record_of_a_successful_batch_only() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 2));
    rig.function = Box::new(|_| Reply::After(100, success()));
    rig.put([1, 2, 3]);
    rig.run(1000);
    assert_eq!(rig.checkpoints(), [(100, after(2)), (200, after(3))]);
    assert_eq!(rig.stored, after(3));
}

#[test]
fn i13_reading_stops_at_the_buffer_budget_and_goes_on_when_there_is_room() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 10;
        m.polling.buffer_bytes = 20_000;
    }));
    rig.function = Box::new(|_| Reply::After(60_000, success()));
    for n in 1..=100 {
        rig.put_sized(n, 900);
    }
    rig.run(59_000);
    let snapshot = rig.machine.snapshot(rig.now());
    assert!(snapshot.buffered_bytes >= 20_000, "{snapshot:?}");
    assert!(snapshot.buffered_bytes < 40_000, "one page over the budget at most: {snapshot:?}");
    let read = rig.fetches().len();
    rig.run(2000);
    assert!(rig.fetches().len() > read, "ten records made room");
}

#[test]
fn i13_nothing_is_read_into_a_buffer_that_is_exactly_full() {
    let footprint = record(1, 100).footprint();
    let mut rig = Rig::new(mapping(|m| m.polling.buffer_bytes = 2 * footprint));
    rig.page = 1;
    rig.function = Box::new(|_| Reply::Never);
    (1..=3).for_each(|n| rig.put_sized(n, 100));
    rig.run(10_000);
    let snapshot = rig.machine.snapshot(rig.now());
    assert_eq!((snapshot.buffered_records, snapshot.buffered_bytes), (2, 2 * footprint));
    assert_eq!(rig.fetches().len(), 2);
}

#[test]
fn i13_a_record_larger_than_the_budget_is_read_when_the_buffer_is_empty() {
    let mut rig = Rig::new(mapping(|m| m.polling.buffer_bytes = 1000));
    rig.page = 1;
    for n in 1..=3 {
        rig.put_sized(n, 5000);
    }
    rig.close_at(0);
    rig.function = Box::new(|_| Reply::After(10, success()));
    rig.run(60_000);
    assert_eq!(rig.batches(), [[1], [2], [3]]);
    assert!(rig.exit().is_some());
}

#[test]
fn i13_a_full_buffer_closes_the_window_because_nothing_more_can_join_the_batch() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 10_000;
        m.batching_window = ms(300_000);
        m.polling.buffer_bytes = 10_000;
    }));
    for n in 1..=40 {
        rig.put_sized(n, 1000);
    }
    rig.run(20_000);
    let delivered: usize = rig.batches().iter().map(Vec::len).sum();
    assert!(delivered >= 30, "a full buffer must not wait five minutes: {delivered}");
}

#[test]
fn a_page_is_limited_by_the_average_record_so_that_it_fits_the_budget() {
    let mut rig = Rig::new(mapping(|m| m.polling.buffer_bytes = 100 << 10));
    rig.run(10);
    assert_eq!(rig.trace[1].1, Did::Fetch(100), "1 KiB is assumed");
}
