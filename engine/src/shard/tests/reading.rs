//! Opening, idle pauses, faults and expired iterators (R1, I14).

use super::rig::{Did, Reply, Rig, after, mapping, ms, record, seq, success};
use crate::intake::{Intake, Page, intake};
use crate::position::Position;
use crate::shard::{Exit, FetchFault, ShardAction, ShardEvent};

fn gaps(times: &[u64]) -> Vec<u64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn r1_an_idle_shard_is_read_once_per_idle_interval_from_start_to_start() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.reads = Box::new(|_| Reply::After(300, Ok(())));
    rig.run(5500);
    assert_eq!(rig.fetches(), [0, 1000, 2000, 3000, 4000, 5000]);
}

#[test]
fn r1_a_shard_that_is_behind_is_read_as_fast_as_its_limit_allows() {
    let mut rig = Rig::new(mapping(|m| m.polling.maximum_records = 10));
    rig.put(1..=45);
    rig.run(3000);
    assert_eq!(rig.fetches(), [0, 200, 400, 600, 800, 1600, 2600], "asked for at once, then idle");
    assert_eq!(rig.stored, after(45));
}

#[test]
fn r1_a_full_page_says_backlog_where_the_service_does_not_tell() {
    let mut rig = Rig::new(mapping(|m| m.polling.maximum_records = 10));
    rig.behind = |_, _| None;
    rig.put(1..=20);
    rig.run(1000);
    assert_eq!(rig.fetches(), [0, 200, 400]);
}

#[test]
fn a_shard_that_stays_empty_is_read_ever_more_slowly_and_at_once_faster_with_the_first_record() {
    let mut rig = Rig::new(mapping(|m| {
        m.polling.idle_interval = ms(250);
        m.polling.maximum_idle_interval = ms(2000);
    }));
    rig.put_at(12_000, [1]);
    rig.run(14_500);
    let gaps = gaps(&rig.fetches());
    assert_eq!(gaps[..10], [250, 250, 250, 250, 250, 500, 1000, 2000, 2000, 2000]);
    let found = rig.invocations()[0].0;
    let next = rig.fetches().into_iter().find(|at| *at > found).unwrap();
    assert_eq!(next - found, 250);
}

#[test]
fn while_a_whole_batch_waits_the_tip_is_read_once_a_minute_and_at_once_when_it_is_taken() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 2));
    rig.function = Box::new(|_| Reply::After(25_000, success()));
    rig.put(1..=8);
    rig.run(80_000);
    // The first batch is taken at once, the fourth waits until 75 s; then nothing waits.
    assert_eq!(rig.fetches()[..5], [0, 60_000, 75_000, 76_000, 77_000]);

    let mut rig = Rig::new(mapping(|m| m.batch_size = 2));
    rig.function = Box::new(|_| Reply::After(25_000, success()));
    rig.put(1..=3);
    rig.run(3_000);
    assert_eq!(rig.fetches(), [0, 1000, 2000, 3000], "another record may join the batch that waits");

    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.parallelization_factor = 2;
    }));
    rig.function = Box::new(|_| Reply::After(25_000, success()));
    (1..=3).for_each(|n| rig.put_keyed(n, Some("one lane"), 0));
    rig.run(3_000);
    assert_eq!(rig.fetches(), [0, 1000, 2000, 3000], "the other lane is idle");
}

#[test]
fn a_page_of_records_that_cannot_be_decoded_is_not_the_tip_of_a_shard_and_does_not_slow_its_reads() {
    let page = |skipped| Intake { skipped, ..Intake::default() };
    for (skipped, is_tip) in [(vec![], true), (vec![seq(1)], false)] {
        let mut rig = Rig::new(mapping(|_| {}));
        rig.reads = Box::new(|_| Reply::Never);
        rig.run(0);
        rig.checks_each_step = false;
        rig.inject(ShardEvent::Fetched(page(skipped)));
        assert_eq!(rig.machine.tip_read().is_some(), is_tip);
    }
    // As many as were asked for: there may be more.
    let mut rig = Rig::new(mapping(|m| m.polling.maximum_records = 2));
    rig.reads = Box::new(|_| Reply::Never);
    rig.run(0);
    rig.checks_each_step = false;
    rig.inject(ShardEvent::Fetched(page(vec![seq(1), seq(2)])));
    rig.run(500);
    assert_eq!(rig.fetches(), [0, 200]);
}

#[test]
fn a_failed_open_or_read_is_tried_again_after_a_backoff_that_success_ends() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.opens = Box::new(|n| Reply::Now(n == 3));
    rig.reads = Box::new(|n| Reply::Now(if n <= 2 { Err(FetchFault::Other) } else { Ok(()) }));
    rig.put([1]);
    rig.run(60_000);
    let opened: Vec<_> = rig.opened().into_iter().map(|(at, _)| at).collect();
    let open_gaps = gaps(&opened);
    assert_eq!(opened.len(), 3);
    assert!((200..=300).contains(&open_gaps[0]) && (400..=600).contains(&open_gaps[1]), "{open_gaps:?}");
    assert_eq!(rig.stored, after(1));
    assert_eq!(rig.machine.snapshot(rig.now()).read_failures, 0);
}

#[test]
fn i14_an_expired_iterator_reopens_at_the_pinned_start_if_nothing_was_read() {
    let start = Position::AtTimestamp(1_690_000_000_000);
    let mut rig = Rig::resuming(mapping(|_| {}), start.clone());
    rig.reads = Box::new(|n| Reply::Now(if n == 2 { Err(FetchFault::IteratorExpired) } else { Ok(()) }));
    rig.put_at(1500, [1]);
    rig.run(10_000);
    assert_eq!(rig.opened(), [(0, start.clone()), (1000, start)]);
    assert_eq!(rig.batches(), [[1]]);
}

#[test]
fn i14_an_expired_iterator_reopens_after_the_last_record_read_although_none_is_resolved() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::After(30_000, success()));
    rig.reads = Box::new(|n| Reply::Now(if n == 3 { Err(FetchFault::IteratorExpired) } else { Ok(()) }));
    rig.put([1, 2]);
    rig.put_at(500, [3]);
    rig.put_at(2500, [4]);
    rig.run(120_000);
    assert_eq!(rig.opened(), [(0, Position::TrimHorizon), (2000, after(3))]);
    assert_eq!(rig.batches(), [vec![1, 2], vec![3, 4]]);
}

#[test]
fn i14_an_iterator_that_expires_again_and_again_backs_off() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.reads = Box::new(|_| Reply::Now(Err(FetchFault::IteratorExpired)));
    rig.run(100_000);
    let opened: Vec<_> = rig.opened().into_iter().map(|(at, _)| at).collect();
    let gaps = gaps(&opened);
    assert_eq!(gaps[0], 0, "at once the first time");
    assert!(gaps[1] >= 200 && gaps[2] >= 400 && gaps[5] >= 3200, "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 60_000));
}

#[test]
fn r15_a_page_whose_records_were_all_filtered_moves_the_checkpoint() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.reads = Box::new(|_| Reply::Never);
    rig.run(0);
    let intake = Intake { scanned: Some(seq(9)), polled: 9, ..Intake::default() };
    rig.inject(ShardEvent::Fetched(intake));
    rig.settle();
    assert_eq!(rig.checkpoints(), [(0, after(9))]);
}

#[test]
fn r15_filtered_records_behind_a_kept_one_wait_for_it() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::After(700, success()));
    rig.reads = Box::new(|_| Reply::Never);
    rig.run(0);
    rig.checks_each_step = false;
    let kept = record(4, 10);
    let bytes = kept.footprint();
    let intake = Intake { records: vec![kept], bytes, scanned: Some(seq(9)), polled: 9, ..Intake::default() };
    rig.inject(ShardEvent::Fetched(intake));
    rig.settle();
    assert_eq!(rig.checkpoints(), []);
    assert!(matches!(rig.trace.last(), Some((_, Did::Invoke { .. }))));
    rig.tick(700);
    let lane = crate::shard::LaneId(0);
    rig.machine.handle_event(rig.now(), ShardEvent::Invoked { lane, outcome: success() });
    let action = rig.machine.poll_action(rig.now());
    assert!(matches!(action, Some(ShardAction::Checkpoint { upto, .. }) if upto == after(9)));
}

#[test]
fn a_pause_starts_nothing_new_and_a_resume_goes_on() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    rig.function = Box::new(|_| Reply::After(100, success()));
    rig.put([1, 2]);
    rig.close_at(0);
    rig.run(50);
    rig.inject(ShardEvent::Pause);
    rig.run(60_000);
    assert_eq!(rig.batches(), [[1]], "what is in flight ends");
    assert_eq!(rig.stored, after(1));
    rig.inject(ShardEvent::Resume);
    rig.run(60_000);
    assert_eq!((rig.batches().len(), rig.exit()), (2, Some(Exit::ShardEnd)));
}

#[test]
fn i2_a_page_of_records_that_were_read_before_moves_nothing_backwards() {
    let mut rig = Rig::resuming(mapping(|m| m.checkpoint_interval = ms(1)), after(5));
    rig.reads = Box::new(|_| Reply::Never);
    rig.run(0);
    let page = |numbers: std::ops::RangeInclusive<u64>, machine: &crate::shard::ShardMachine| {
        let records = numbers.map(|n| record(n, 10)).collect();
        ShardEvent::Fetched(intake(Page { records, ..Page::default() }, machine.position(), |_| true))
    };
    // The rig's own source is silent here, so that its bookkeeping of reads does not apply.
    rig.checks_each_step = false;
    let drive = |rig: &mut Rig, numbers| {
        let event = page(numbers, &rig.machine);
        rig.machine.handle_event(rig.now(), event);
        let mut invoked = Vec::new();
        for _ in 0..20 {
            match rig.machine.poll_action(rig.now()) {
                Some(ShardAction::Invoke(invocation)) => {
                    invoked.extend(super::rig::numbers(&invocation.batch));
                    let event = ShardEvent::Invoked { lane: invocation.lane, outcome: success() };
                    rig.machine.handle_event(rig.now(), event);
                }
                Some(ShardAction::Checkpoint { upto, .. }) => {
                    rig.stored = upto;
                    rig.machine.handle_event(rig.now(), ShardEvent::Checkpointed);
                }
                Some(_) => {}
                None => rig.tick(200),
            }
        }
        invoked
    };
    assert_eq!(drive(&mut rig, 6..=10), [6, 7, 8, 9, 10]);
    assert_eq!((rig.stored.clone(), rig.machine.position()), (after(10), &after(10)));
    assert_eq!(drive(&mut rig, 7..=8), [0_u64; 0], "a reader that reopened by time sees some twice");
    assert_eq!((rig.stored.clone(), rig.machine.position()), (after(10), &after(10)));
    assert_eq!(drive(&mut rig, 9..=11), [11]);
    assert_eq!(rig.stored, after(11));
}

#[test]
fn empty_pages_in_the_middle_of_a_shard_do_not_slow_it_down_later() {
    let mut rig = Rig::new(mapping(|m| {
        m.polling.idle_interval = ms(400);
        m.polling.maximum_idle_interval = ms(2000);
    }));
    rig.behind = |now, _| Some(if now < 4000 { 5000 } else { 0 });
    rig.run(7000);
    let gaps = gaps(&rig.fetches());
    assert_eq!(gaps[..20], [200; 20], "empty, but behind");
    // The first pause counts from when the page was asked for, 200 ms before it was permitted.
    assert_eq!(gaps[20..26], [200, 400, 400, 400, 400, 800], "only empty pages at the tip count");
}

#[test]
fn a_shard_that_was_idle_then_behind_starts_over_at_the_idle_interval() {
    let mut rig = Rig::new(mapping(|m| {
        m.polling.idle_interval = ms(400);
        m.polling.maximum_idle_interval = ms(2000);
    }));
    rig.behind = |now, _| Some(if (6000..8000).contains(&now) { 5000 } else { 0 });
    rig.run(12_000);
    let fetches = rig.fetches();
    let gaps = gaps(&fetches);
    let tip = fetches.iter().position(|at| *at >= 8000).unwrap();
    assert!(gaps[..tip].contains(&2000) && gaps[tip - 1] == 200, "{gaps:?}");
    assert_eq!(gaps[tip..tip + 6], [200, 400, 400, 400, 400, 800]);
}

#[test]
fn r1_a_mebibyte_in_a_page_says_backlog_where_the_service_does_not_tell() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.behind = |_, _| None;
    rig.put_sized(1, 1 << 20);
    rig.run(500);
    assert_eq!(rig.fetches(), [0, 200]);
}

#[test]
fn i13_large_records_make_pages_smaller_and_small_ones_larger_again() {
    let mut rig = Rig::new(mapping(|m| m.polling.buffer_bytes = 1 << 20));
    rig.page = 2;
    for n in 1..=4 {
        rig.put_sized(n, 100 << 10);
    }
    for n in 5..=30 {
        rig.put_sized(n, 10);
    }
    rig.run(5000);
    let limits: Vec<_> = rig
        .trace
        .iter()
        .filter_map(|(_, did)| match did {
            Did::Fetch(limit) => Some(*limit),
            _ => None,
        })
        .collect();
    assert_eq!(limits[0], 1024);
    assert!(limits[2] < 15, "{limits:?}");
    assert!(*limits.last().unwrap() > 1000, "{limits:?}");
}

#[test]
fn what_a_record_comes_to_is_a_running_average_of_the_pages() {
    let mut rig = Rig::new(mapping(|_| {}));
    let assumed = rig.machine.record_bytes();
    assert_eq!(assumed, 1024, "before the first page tells");
    let footprints = [record(1, 100), record(2, 300)].map(|record| record.footprint());
    rig.put_sized(1, 100);
    rig.put_sized(2, 300);
    rig.run(100);
    assert_eq!(
        rig.machine.record_bytes(),
        usize::midpoint(assumed, usize::midpoint(footprints[0], footprints[1]))
    );
}

#[test]
fn failures_of_reads_in_a_row_are_shown_and_forgotten_with_a_page() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.reads = Box::new(|n| Reply::Now(if n <= 3 { Err(FetchFault::Other) } else { Ok(()) }));
    rig.run_while(60_000, |rig| rig.fetches().len() < 3);
    assert_eq!(rig.machine.snapshot(rig.now()).read_failures, 3);
    rig.run(60_000);
    assert_eq!(rig.machine.snapshot(rig.now()).read_failures, 0);
}

#[test]
fn i13_pages_of_which_nothing_is_kept_take_no_memory_behind_a_record_that_is_stuck() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.page = 1;
    rig.keeps = |record| record.seq == seq(1);
    rig.put(1..=2_001);
    rig.function =
        Box::new(|call| if call.nth == 1 { Reply::After(300_000, success()) } else { Reply::Never });
    let size = |rig: &Rig| format!("{:?}", rig.machine).len();
    rig.run(100_000);
    let (read, before) = (rig.fetches().len(), size(&rig));
    rig.run(190_000);
    assert!(rig.fetches().len() > read + 500, "it is read on");
    assert!(size(&rig) < before + 100, "{before} grew to {}", size(&rig));
    rig.run(300_000);
    assert_eq!(rig.stored, after(2_001), "R15");
}
