//! Events that are too large (R3, R5, R24).

use std::sync::Arc;

use super::rig::{Did, Reply, Rig, WALL_START, after, failed_at, mapping, ms, record, success};
use crate::event::{EventContext, encoded_len};
use crate::failure::Condition;
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};
use crate::record::Batch;
use crate::time::Wall;
use crate::window::WindowCall;

/// A mapping whose events may be as large as one of `records` records of 100 bytes.
fn limited(records: usize, change: impl FnOnce(&mut EventSourceMapping)) -> Arc<EventSourceMapping> {
    let context = EventContext::new(&mapping(|_| {}), "shard".into());
    let batch = Batch::new((1..=records as u64).map(|n| record(n, 100)).collect::<Vec<_>>()).unwrap();
    mapping(|m| {
        m.payload_limit = Some(encoded_len(&batch, &context, None));
        change(m);
    })
}

fn put(rig: &mut Rig, sizes: &[usize]) {
    for (n, size) in (1..).zip(sizes) {
        rig.put_sized(n, *size);
    }
}

#[test]
fn r3_a_batch_is_cut_before_its_event_exceeds_the_limit() {
    let mut rig = Rig::new(limited(3, |_| {}));
    put(&mut rig, &[100; 8]);
    rig.run(1000);
    assert_eq!(rig.batches(), [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8]]);

    let mut rig = Rig::new(limited(3, |m| m.payload_limit = m.payload_limit.map(|limit| limit - 1)));
    put(&mut rig, &[100; 4]);
    rig.run(1000);
    assert_eq!(rig.batches(), [vec![1, 2], vec![3, 4]], "a byte less, and three do not fit");
}

#[test]
fn r3_an_event_that_can_take_no_more_does_not_wait_for_its_batching_window() {
    let mut rig = Rig::new(limited(2, |m| m.batching_window = ms(60_000)));
    put(&mut rig, &[100, 100, 100]);
    rig.run(1000);
    assert_eq!(rig.batches(), [vec![1, 2]], "the third waits");
    rig.run(100_000);
    assert_eq!(rig.batches(), [vec![1, 2], vec![3]]);
}

#[test]
fn r24_the_native_trace_a_single_record_over_the_limit_spends_its_attempts_unseen() {
    for (maximum, count) in [(0, 1), (2, 3)] {
        let mut rig = Rig::new(limited(1, |m| m.maximum_retry_attempts = Some(maximum)));
        rig.function = Box::new(|_| Reply::Now(success()));
        put(&mut rig, &[100, 104, 100]);
        rig.run(10_000);
        assert_eq!(rig.batches(), [vec![1], vec![3]], "R5: base64 makes the second one too large");
        let given_up: Vec<_> = rig
            .trace
            .iter()
            .filter_map(|(_, did)| match did {
                Did::Discard { records, count, condition, response, .. } => {
                    Some((records.clone(), *count, *condition, *response))
                }
                _ => None,
            })
            .collect();
        assert_eq!(given_up, [(vec![2], count, Condition::RetryAttemptsExhausted, None)]);
        assert_eq!(rig.stored, after(3));
        assert_eq!((rig.machine.counters().invoked, rig.machine.counters().failed), (2, 0));
        assert_eq!(rig.machine.snapshot(rig.now()).last_result.as_str(), "OK", "R18: of the two others");
    }
}

#[test]
fn r24_without_a_limit_a_large_record_is_invoked() {
    let mut rig = Rig::new(mapping(|_| {}));
    put(&mut rig, &[10 << 20]);
    rig.run(1000);
    assert_eq!(rig.batches(), [vec![1]]);
}

#[test]
fn r3c_a_remainder_is_cut_again_if_it_does_not_fit_beside_its_windows_state_by_a_single_byte() {
    let state = serde_json::json!({"sum": "x".repeat(1000)}).to_string();
    let start = Wall::from_millis(WALL_START - 10_000);
    let call =
        WindowCall { start, end: start + ms(10_000), state: state.clone().into(), ..WindowCall::default() };
    let context = EventContext::new(&mapping(|_| {}), "shard".into());
    let rest = Batch::new(vec![record(2, 100), record(3, 100)]).unwrap();
    let fits = encoded_len(&rest, &context, Some(&call));
    let invoked_with = |limit| {
        let mut rig = Rig::new(mapping(|m| {
            m.tumbling_window = Some(ms(10_000));
            m.report_batch_item_failures = true;
            m.payload_limit = Some(limit);
        }));
        rig.checks_each_step = false;
        let state = state.clone();
        rig.function = Box::new(move |call| {
            let failures = if call.records == [1, 2, 3] { vec![2] } else { vec![] };
            let Outcome::Answered(answer) = failed_at(failures) else { unreachable!() };
            Reply::Now(Outcome::Answered(answer.with_state(state.clone())))
        });
        put(&mut rig, &[100, 100, 100]);
        rig.run(1000);
        rig.batches()
    };
    assert_eq!(invoked_with(fits), [vec![1, 2, 3], vec![2, 3]]);
    assert_eq!(invoked_with(fits - 1), [vec![1, 2, 3], vec![2], vec![3]]);
}

#[test]
fn r24_a_record_that_is_never_given_up_shows_why_it_does_not_move() {
    let mut rig = Rig::new(limited(1, |_| {}));
    put(&mut rig, &[104]);
    rig.run(10_000);
    let lane = &rig.machine.snapshot(rig.now()).lanes[0];
    let oversized = lane.oversized.as_ref().unwrap();
    assert_eq!(oversized.record, Some(super::rig::seq(1)));
    assert_eq!(oversized.bytes, rig.mapping.payload_limit.unwrap() + 4, "base64 of four bytes more");
    assert!(lane.attempts > 3 && rig.batches().is_empty());
}

#[test]
fn i8_a_record_that_is_too_large_beside_its_windows_state_comes_again_in_its_own_window() {
    let start = Wall::from_millis(WALL_START - 10_000);
    let call = WindowCall { start, end: start + ms(10_000), state: "{}".into(), ..WindowCall::default() };
    let context = EventContext::new(&mapping(|_| {}), "shard".into());
    let alone = Batch::new(vec![record(2, 2000)]).unwrap();
    let limit = encoded_len(&alone, &context, Some(&call));
    let mut rig = Rig::new(mapping(|m| {
        m.tumbling_window = Some(ms(10_000));
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
        m.payload_limit = Some(limit);
    }));
    rig.checks_each_step = false;
    rig.destination = Some(Box::new(|n| if n == 1 { Reply::Never } else { Reply::Now(true) }));
    let state = serde_json::json!({"sum": "x".repeat(1000)}).to_string();
    rig.function =
        Box::new(move |_| Reply::Now(Outcome::Answered(BatchResponse::success().with_state(state.clone()))));
    put(&mut rig, &[10, 2000]);
    rig.put_keyed(3, None, 10_000);
    rig.run(5000);
    rig.crash(false);
    rig.run(5000);
    let given_up = |(_, did): &(u64, Did)| match did {
        Did::Discard { records, window: Some(window), .. } => Some((records.clone(), window.start)),
        _ => None,
    };
    let given_up: Vec<_> = rig.trace.iter().filter_map(given_up).collect();
    assert_eq!(given_up, [(vec![2], start), (vec![2], start)], "it was not delivered before the crash");
    let handled: Vec<_> = rig.batches().into_iter().flatten().collect();
    assert_eq!(handled, [1, 3, 1, 3], "with the next window's state it would not have been too large");
}

#[test]
fn r23_a_record_that_is_too_large_is_no_sign_that_the_function_is_back() {
    let mut rig = Rig::new(limited(1, |m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
        m.maximum_record_age = Some(ms(60_000));
    }));
    rig.checks_each_step = false;
    for (n, bytes, arrival) in [(1, 10, 0), (2, 3000, 60_000), (3, 10, 100_000)] {
        let mut record = record(n, bytes);
        record.arrival = Some(Wall::from_millis(WALL_START + arrival));
        rig.put_record(record);
    }
    rig.function = Box::new(|_| Reply::Now(Outcome::NotReached { retry_after: None }));
    rig.run(110_000);
    assert_eq!(rig.messages(), [(vec![1], 1), (vec![2], 1)]);
    let tries = rig.invocations();
    let gaps: Vec<_> = tries.windows(2).map(|pair| (pair[1].1[0], pair[1].0 - pair[0].0)).collect();
    let longest = gaps.iter().filter(|(of, _)| *of == 1).map(|(_, gap)| *gap).max().unwrap();
    assert!(gaps.iter().all(|(of, gap)| *of == 1 || *gap >= longest), "{gaps:?}");
    assert!(gaps.iter().any(|(of, _)| *of == 3), "{gaps:?}");
}
