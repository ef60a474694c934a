//! States of tumbling windows that leave no room for the next event (R66, R68).

use std::sync::Arc;

use super::rig::{Did, Reply, Rig, mapping, ms};
use crate::event::{EventContext, encoded_len};
use crate::failure::FunctionResponse;
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};
use crate::record::Batch;
use crate::window::WindowCall;

/// The largest event that Lambda takes, in bytes.
const LIMIT: usize = 6_291_456;

fn windowed(limit: usize) -> Arc<EventSourceMapping> {
    mapping(|m| {
        m.tumbling_window = Some(ms(10_000));
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(1);
        m.payload_limit = Some(limit);
    })
}

fn state(bytes: usize) -> String {
    format!("{{\"t\":\"{}\"}}", "x".repeat(bytes - 8))
}

/// What an event without records takes in addition to its state.
fn frame(ends: bool) -> usize {
    let context = EventContext::new(&windowed(LIMIT), "shard".into());
    let window = WindowCall { is_final: ends, is_terminated_early: ends, ..WindowCall::default() };
    encoded_len(&Batch::empty(), &context, Some(&window))
}

/// The function answers a state of this size to the first record, and a small one to everything that follows.
fn rig(limit: usize, bytes: usize) -> Rig {
    let mut rig = Rig::new(windowed(limit));
    rig.checks_each_step = false;
    rig.function = Box::new(move |call| {
        let text = if call.records == [1] { state(bytes) } else { state(9) };
        Reply::Now(Outcome::Answered(BatchResponse::success().with_state(text)))
    });
    for (n, arrival) in [(1, 0), (2, 1_000), (3, 10_000)] {
        rig.put_keyed(n, None, arrival);
    }
    rig.run(10_000);
    rig
}

fn discards(rig: &Rig) -> Vec<(Vec<u64>, u32, Option<FunctionResponse>)> {
    let discard = |(_, did): &(u64, Did)| match did {
        Did::Discard { records, count, response, .. } => Some((records.clone(), *count, *response)),
        _ => None,
    };
    rig.trace.iter().filter_map(discard).collect()
}

#[test]
fn incident_88_a_state_that_leaves_no_room_for_the_final_event_is_a_failed_attempt_and_blocks_nothing() {
    let fits = LIMIT - frame(true);
    let ended = rig(LIMIT, fits);
    assert_eq!(ended.batches(), [vec![1], vec![], vec![2], vec![], vec![3]], "R68: the window ends early");
    assert_eq!(discards(&ended), []);

    let refused = rig(LIMIT, fits + 1);
    assert_eq!(refused.batches(), [vec![1], vec![1], vec![2], vec![], vec![3]]);
    assert_eq!(discards(&refused), [(vec![1], 2, Some(FunctionResponse::Returned))]);
}

#[test]
fn incident_88_so_is_a_smaller_state_if_the_function_takes_only_small_events() {
    let limit = 2_000;
    let fits = limit - frame(false);
    let refused = rig(limit, fits + 1);
    assert_eq!(refused.batches(), [vec![1], vec![1], vec![2], vec![], vec![3]]);
    assert_eq!(discards(&refused).len(), 1);
    let last = refused.machine.snapshot(refused.now()).last_result;
    assert_eq!(last.as_str(), "OK", "the records behind it");

    let mut taken = Rig::new(windowed(limit));
    taken.checks_each_step = false;
    let text = state(fits);
    taken.function =
        Box::new(move |_| Reply::Now(Outcome::Answered(BatchResponse::success().with_state(text.clone()))));
    taken.put_keyed(1, None, 0);
    taken.put_keyed(2, None, 10_000);
    taken.run(10_000);
    assert_eq!(taken.batches()[..2], [vec![1], vec![]], "the final call can be made");
}

#[test]
fn incident_88_the_last_result_says_that_such_an_answer_is_a_failure() {
    let mut rig = Rig::new(windowed(2_000));
    rig.checks_each_step = false;
    rig.function =
        Box::new(|_| Reply::Now(Outcome::Answered(BatchResponse::success().with_state(state(3_000)))));
    rig.put_keyed(1, None, 0);
    rig.run(5_000);
    assert_eq!(rig.machine.snapshot(rig.now()).last_result.as_str(), "PROBLEM: Function call failed");
    assert_eq!(rig.machine.counters().failed, 2);
}
