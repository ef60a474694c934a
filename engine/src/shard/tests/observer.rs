//! What just breaks an invariant, next to what just does not: the observer must see the difference.

use super::invariants::{LANE, answered, ended, given, invoked, read, seqs, windowed};
use super::rig::{START, after, failed_at, mapping, ms, seq, success};
use crate::event::{EventContext, encoded_len};
use crate::failure::Condition;
use crate::invariant::{Fact, Given, Seen, Setting, check_one};
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};
use crate::position::Position;
use crate::record::{Batch, Data, Record};
use crate::request::RequestId;
use crate::shard::{Exit, LaneId};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;

/// Records 1 to 4 arrive 10 s apart from 0 on, with two keys in turn.
fn stream() -> [Record; 4] {
    [1, 2, 3, 4].map(|n: u64| {
        let arrival = Wall::from_millis(10_000 * (n.cast_signed() - 1));
        let key = if n.is_multiple_of(2) { "even" } else { "odd" };
        Record::new(seq(n), Some(key.into()), Some(arrival), Data::Raw("x".into()))
    })
}

/// What is broken of one invariant by facts that are seen at these times after the start.
fn at(
    id: &str,
    change: impl FnOnce(&mut EventSourceMapping),
    facts: Vec<(u64, Fact)>,
) -> Option<&'static str> {
    let mapping = mapping(change);
    let seen = |(millis, fact): (u64, Fact)| {
        let wall = Wall::from_millis(millis.cast_signed());
        Seen { at: Now { mono: Mono::from_millis(START + millis), wall }, fact }
    };
    let history: Vec<_> = facts.into_iter().map(seen).collect();
    check_one(id, Setting { mapping: &mapping, stream: &stream() }, &history)
        .err()
        .map(|broken| broken.invariant)
}

/// The same for facts at the start of a run from the oldest record on.
fn of(id: &str, change: impl FnOnce(&mut EventSourceMapping), facts: Vec<Fact>) -> Option<&'static str> {
    let begun = Fact::Begun(Position::TrimHorizon);
    at(id, change, [begun].into_iter().chain(facts).map(|fact| (0, fact)).collect())
}

fn none(_: &mut EventSourceMapping) {}

fn once(m: &mut EventSourceMapping) {
    m.maximum_retry_attempts = Some(0);
}

fn windows(m: &mut EventSourceMapping) {
    m.tumbling_window = Some(ms(20_000));
    m.maximum_retry_attempts = Some(0);
}

fn all() -> Fact {
    read(&[1, 2, 3, 4])
}

#[test]
fn i1_a_batch_is_an_unbroken_run_of_what_was_read() {
    assert_eq!(of("I1", none, vec![all(), invoked(1, &[1, 2])]), None);
    for (records, why) in [
        (vec![2], "1 comes first, regardless of its key"),
        (vec![1, 3], "2 is left out"),
        (vec![2, 1], "out of order"),
        (vec![1, 1], "twice"),
        (vec![1, 2, 3, 4, 5], "5 was not read"),
    ] {
        assert_eq!(of("I1", none, vec![all(), invoked(1, &records)]), Some("I1"), "{why}");
    }
    assert_eq!(of("I1", none, vec![all(), invoked(1, &[1]), ended(success()), invoked(2, &[2])]), None);
}

#[test]
fn i1_only_a_record_beyond_the_limit_lets_the_next_one_pass() {
    let batch = Batch::new(vec![stream()[0].clone()]).unwrap();
    let exact = encoded_len(&batch, &EventContext::new(&mapping(none), "shard".into()), None);
    let limited = |limit| of("I1", |m| m.payload_limit = Some(limit), vec![all(), invoked(1, &[2])]);
    assert_eq!((limited(exact - 1), limited(exact)), (None, Some("I1")));
}

#[test]
fn i2_i3_a_checkpoint_goes_forward_and_covers_what_is_ours_and_done() {
    let done = || vec![all(), invoked(1, &[1, 2]), ended(success())];
    let then = |facts: Vec<Fact>| done().into_iter().chain(facts).collect::<Vec<_>>();
    assert_eq!(of("I2", none, then(vec![Fact::Stored(after(1)), Fact::Storing(after(2))])), None);
    assert_eq!(of("I2", none, then(vec![Fact::Stored(after(2)), Fact::Storing(after(1))])), Some("I2"));
    let from = |start: Position, facts: Vec<Fact>| {
        at("I3", none, [Fact::Begun(start)].into_iter().chain(facts).map(|fact| (0, fact)).collect())
    };
    let one = |n| vec![read(&[2, 3, 4]), invoked(1, &[n]), ended(success()), Fact::Stored(after(n))];
    assert_eq!(from(Position::At(seq(2)), one(2)), None, "1 is not ours");
    assert_eq!(from(Position::At(seq(2)), one(3)), Some("I3"), "2 is");
    assert_eq!(from(Position::After(seq(1)), one(2)), None);
    assert_eq!(from(Position::After(seq(1)), one(3)), Some("I3"));
}

#[test]
fn i3_nothing_is_given_up_that_has_attempts_left() {
    let failed = |outcome: Outcome, numbers: &[u64]| {
        vec![all(), invoked(1, numbers), ended(outcome), Fact::Discarding(given(numbers))]
    };
    let error = || Outcome::FunctionError;
    assert_eq!(of("I3", once, failed(error(), &[1])), None);
    assert_eq!(of("I3", once, failed(error(), &[1, 2])), None);
    assert_eq!(of("I3", once, failed(success(), &[1])), Some("I3"), "it succeeded");
    assert_eq!(of("I3", none, failed(error(), &[1])), Some("I3"), "without a maximum");
    let twice = |m: &mut EventSourceMapping| m.maximum_retry_attempts = Some(1);
    assert_eq!(of("I3", twice, failed(error(), &[1])), Some("I3"), "one more try");
    let not_reached = Outcome::NotReached { retry_after: None };
    assert_eq!(of("I3", once, failed(not_reached, &[1])), Some("I3"), "it was not reached");
    let bisecting = |m: &mut EventSourceMapping| {
        once(m);
        m.bisect_batch_on_function_error = true;
    };
    assert_eq!(of("I3", bisecting, failed(error(), &[1])), None);
    assert_eq!(of("I3", bisecting, failed(error(), &[1, 2])), Some("I3"), "it is split first");
    assert_eq!(of("I3", once, failed(Outcome::TooLarge, &[1])), None);
    assert_eq!(of("I3", once, failed(Outcome::TooLarge, &[1, 2])), Some("I3"), "it is split first");
    let mut uncounted = failed(error(), &[1]);
    uncounted[3] = Fact::Discarding(Given { count: 0, ..given(&[1]) });
    assert_eq!(of("I3", once, uncounted), Some("I3"), "R29");
    let small = |m: &mut EventSourceMapping| m.payload_limit = Some(10);
    assert_eq!(of("I3", small, vec![all(), Fact::Discarding(given(&[1]))]), None, "R24");
    assert_eq!(of("I3", small, vec![all(), Fact::Discarding(given(&[1, 2]))]), Some("I3"), "alone each");
}

#[test]
fn i4_attempts_are_counted_and_request_ids_are_of_one_batch() {
    let again =
        |id, numbers: &[u64], outcome| vec![all(), invoked(1, &[1]), ended(outcome), invoked(id, numbers)];
    let error = || Outcome::FunctionError;
    assert_eq!(of("I4", once, again(1, &[1], error())), Some("I4"), "no attempt is left");
    assert_eq!(of("I4", once, again(1, &[1], Outcome::NotReached { retry_after: None })), None);
    assert_eq!(of("I4", none, again(1, &[1], error())), None);
    assert_eq!(of("I4", none, again(2, &[1], error())), Some("I4"), "another id");
    assert_eq!(of("I4", none, again(2, &[2], success())), None);
    assert_eq!(of("I4", none, again(1, &[2], success())), Some("I4"), "another batch");
}

#[test]
fn i6_three_records_are_at_most_five_batches() {
    let parts: [&[u64]; 6] = [&[1, 2, 3], &[1], &[2, 3], &[2], &[3], &[1, 2]];
    let split = |count| {
        let invocations = parts
            .iter()
            .take(count)
            .zip(1..)
            .flat_map(|(numbers, id)| [invoked(id, numbers), ended(Outcome::FunctionError)]);
        [all()].into_iter().chain(invocations).collect::<Vec<_>>()
    };
    assert_eq!((of("I6", none, split(5)), of("I6", none, split(6))), (None, Some("I6")));
    let again = split(5).into_iter().chain([invoked(5, &[3])]).collect();
    assert_eq!(of("I6", none, again), None, "a retry is no new part");
    let on_another_lane = |facts: Vec<Fact>| {
        let moved = Fact::Invoked {
            lane: LaneId(1),
            request_id: RequestId::from_random(9),
            records: seqs(&[1, 2]),
            window: None,
        };
        facts.into_iter().chain([moved]).collect()
    };
    assert_eq!(of("I6", none, on_another_lane(split(5))), None);
}

#[test]
fn i7_what_succeeded_does_not_come_again() {
    let reports = |m: &mut EventSourceMapping| m.report_batch_item_failures = true;
    let next = |outcome, numbers: &[u64]| {
        of("I7", reports, vec![all(), invoked(1, &[1, 2, 3]), ended(outcome), invoked(2, numbers)])
    };
    assert_eq!((next(success(), &[4]), next(success(), &[3])), (None, Some("I7")));
    assert_eq!((next(failed_at([2]), &[2]), next(failed_at([2]), &[1, 2])), (None, Some("I7")));
    assert_eq!((next(failed_at([3, 2]), &[2, 3]), next(failed_at([3, 2]), &[3])), (None, Some("I7")));
    assert_eq!((next(failed_at([9]), &[1, 2, 3]), next(failed_at([9]), &[2, 3])), (None, Some("I7")));
    assert_eq!(next(Outcome::FunctionError, &[2]), Some("I7"));
}

#[test]
fn i13_a_page_is_asked_for_up_to_the_last_byte_of_the_buffer() {
    let footprint = stream()[0].footprint();
    let fetch = |bytes| of("I13", |m| m.polling.buffer_bytes = bytes, vec![read(&[1]), Fact::Fetching]);
    assert_eq!((fetch(footprint + 1), fetch(footprint)), (None, Some("I13")));
    assert_eq!(of("I13", |m| m.polling.buffer_bytes = 0, vec![Fact::Fetching]), None, "nothing is buffered");
}

#[test]
fn i14_every_record_is_read_once_and_in_order_from_wherever_the_run_begins() {
    let from = |start: Position, pages: &[&[u64]]| {
        let facts = [Fact::Begun(start)].into_iter().chain(pages.iter().map(|page| read(page)));
        at("I14", none, facts.map(|fact| (0, fact)).collect())
    };
    let start = || Position::TrimHorizon;
    assert_eq!(from(start(), &[&[1, 2], &[], &[3, 4]]), None);
    assert_eq!(from(start(), &[&[2]]), Some("I14"), "1 is left out");
    assert_eq!(from(start(), &[&[1], &[3]]), Some("I14"));
    assert_eq!((from(after(2), &[&[3]]), from(after(2), &[&[2]])), (None, Some("I14")));
    assert_eq!(from(after(2), &[&[4]]), Some("I14"));
    let time = || Position::AtTimestamp(7);
    assert_eq!(from(time(), &[&[2, 3], &[4]]), None, "the first page says where");
    assert_eq!((from(time(), &[&[2], &[4]]), from(time(), &[&[2, 4]])), (Some("I14"), Some("I14")));
    let opened =
        |at_start, then| of("I14", none, vec![read(&[1, 2]), Fact::Opened(at_start), Fact::Opened(then)]);
    assert_eq!(opened(after(2), after(2)), None);
    assert_eq!((opened(after(1), after(2)), opened(start(), after(2))), (Some("I14"), Some("I14")));
    for latest in [Fact::Begun(Position::Latest), Fact::Storing(Position::Latest)] {
        assert_eq!(at("I15", none, vec![(0, latest)]), Some("I15"));
    }
    let pinned = |opened| {
        at("I15", none, vec![(0, Fact::Begun(time())), (0, Fact::Opened(Position::AtTimestamp(opened)))])
    };
    assert_eq!((pinned(7), pinned(8)), (None, Some("I15")));
}

#[test]
fn i16_a_stop_counts_what_it_cuts_and_leaves_nothing_unstored() {
    let stop = || (0, Fact::Stopping(Mono::from_millis(START + 9)));
    let exit = |when, cut| (when, Fact::Exited(Exit::Stopped { cut }));
    let begun = || vec![(0, Fact::Begun(Position::TrimHorizon)), (0, all()), (0, invoked(1, &[1])), stop()];
    let then = |facts: Vec<(u64, Fact)>| at("I16", none, begun().into_iter().chain(facts).collect());
    assert_eq!((then(vec![exit(9, 1)]), then(vec![exit(8, 1)])), (None, Some("I16")), "at the deadline");
    assert_eq!((then(vec![exit(9, 0)]), then(vec![exit(9, 2)])), (Some("I16"), Some("I16")));
    let done = |when| (when, ended(success()));
    let stored = || (8, Fact::Stored(after(1)));
    assert_eq!(then(vec![done(8), stored(), exit(8, 0)]), None);
    assert_eq!(then(vec![done(8), stored(), exit(8, 1)]), Some("I16"), "nothing was cut");
    assert_eq!(then(vec![done(8), exit(8, 0)]), Some("I16"), "not stored");
    assert_eq!(then(vec![done(8), (8, Fact::StoreFailed), exit(8, 0)]), None);
    assert_eq!(then(vec![done(8), exit(9, 0)]), None, "too late to store it");
    assert_eq!((then(vec![done(9), exit(9, 1)]), then(vec![done(9), exit(9, 0)])), (None, None), "just then");
    assert_eq!(
        (then(vec![done(9), exit(9, 2)]), then(vec![done(8), stored(), exit(9, 1)])),
        (Some("I16"), Some("I16"))
    );
    assert_eq!(then(vec![(0, Fact::Opened(Position::TrimHorizon))]), Some("I16"));
    let unasked = vec![(0, Fact::Begun(Position::TrimHorizon)), exit(9, 0)];
    assert_eq!(at("I16", none, unasked), Some("I16"));
    let end = |stored: Position| of("I16", none, vec![Fact::Stored(stored), Fact::Exited(Exit::ShardEnd)]);
    assert_eq!((end(Position::ShardEnd), end(after(4))), (None, Some("I16")));
}

/// A call of a window of 20 s.
fn call(id: u128, numbers: &[u64], change: impl FnOnce(&mut WindowCall)) -> Fact {
    let Fact::Invoked { window: Some(mut window), records, request_id, .. } = windowed(id, numbers, 0, "{}")
    else {
        unreachable!()
    };
    change(&mut window);
    Fact::Invoked { lane: LANE, request_id, records, window: Some(window) }
}

#[test]
fn i8_a_call_tells_its_window_as_it_is() {
    let first = |change: fn(&mut WindowCall)| of("I8", windows, vec![all(), call(1, &[1], change)]);
    assert_eq!(first(|_| {}), None);
    for (why, change) in [
        ("longer", (|call| call.end = call.end + ms(1)) as fn(&mut WindowCall)),
        ("not aligned", |call| (call.start, call.end) = (Wall::from_millis(-1), Wall::from_millis(19_999))),
        ("final with records", |call| call.is_final = true),
        ("early for no reason", |call| call.is_terminated_early = true),
        ("a state of nowhere", |call| call.state = "{ }".into()),
        ("an earlier window", |call| {
            (call.start, call.end) = (Wall::from_millis(-20_000), Wall::from_millis(0));
        }),
    ] {
        assert_eq!(first(change), Some("I8"), "{why}");
    }
    let opened = || vec![all(), call(1, &[1], |_| {}), answered("{}")];
    let empty = opened().into_iter().chain([call(2, &[], |call| call.is_final = false)]).collect();
    assert_eq!(of("I8", windows, empty), Some("I8"), "no records and not final");
    assert_eq!(of("I8", windows, vec![call(1, &[], |_| {})]), Some("I8"), "no window is open");
    assert_eq!(of("I8", none, vec![all(), invoked(1, &[])]), Some("I8"), "no windows");
    assert_eq!(of("I8", none, vec![all(), invoked(1, &[1])]), None);
}

#[test]
fn i8_a_window_is_closed_by_a_later_record_the_shards_end_or_idleness_and_not_before() {
    let close = |page: Fact, when| {
        let facts = [(0, Fact::Begun(Position::TrimHorizon)), (0, page), (0, windowed(1, &[1], 0, "{}"))];
        let last = [(0, answered("{}")), (when, windowed(2, &[], 0, "{}"))];
        at("I8", windows, facts.into_iter().chain(last).collect())
    };
    assert_eq!((close(read(&[1, 2, 3]), 0), close(read(&[1, 2]), 0)), (None, Some("I8")));
    assert_eq!((close(read(&[1]), 120_000), close(read(&[1]), 119_999)), (None, Some("I8")));
    let last = Fact::Read { kept: seqs(&[1]), filtered: Vec::new(), ends: true };
    assert_eq!(close(last, 0), None);
}

#[test]
fn i8_a_state_beyond_one_megabyte_and_no_smaller_one_ends_its_window_early() {
    let large = |bytes: usize| format!("{{\"s\":\"{}\"}}", "x".repeat(bytes - 8));
    let then = |bytes: usize, is_early: bool, facts: Vec<Fact>| {
        let answer = Outcome::Answered(BatchResponse::success().with_state(large(bytes)));
        let last = call(2, &[], |call| {
            call.state = large(bytes).into();
            call.is_terminated_early = is_early;
        });
        let begun = vec![all(), windowed(1, &[1], 0, "{}"), ended(answer), last];
        of("I8", windows, begun.into_iter().chain(facts).collect())
    };
    let next = |bytes: usize, is_early: bool| then(bytes, is_early, Vec::new());
    assert_eq!((next(1 << 20, false), next(1 << 20, true)), (None, Some("I8")));
    assert_eq!((next((1 << 20) + 1, true), next((1 << 20) + 1, false)), (None, Some("I8")));
    let rest = |start| then((1 << 20) + 1, true, vec![answered("{}"), windowed(3, &[2], start, "{}")]);
    assert_eq!((rest(0), rest(20_000)), (None, Some("I8")), "the rest of the window has its times");
}

#[test]
fn i8_a_window_that_is_closed_stays_closed_in_this_run_and_the_next() {
    let closed =
        || vec![all(), windowed(1, &[1], 0, "{}"), answered("{}"), windowed(2, &[], 0, "{}"), answered("{}")];
    let then = |facts: Vec<Fact>| of("I8", windows, closed().into_iter().chain(facts).collect());
    assert_eq!(then(vec![windowed(3, &[2], 20_000, "{}")]), None, "a late record joins the next window");
    let second = || {
        vec![windowed(3, &[3], 20_000, "{}"), answered("{}"), windowed(4, &[], 20_000, "{}"), answered("{}")]
    };
    let third = |start| second().into_iter().chain([windowed(5, &[4], start, "{}")]).collect::<Vec<_>>();
    // Only records of a later window end one; here the end of the shard does.
    let end = Fact::Read { kept: Vec::new(), filtered: Vec::new(), ends: true };
    let ended = |facts: Vec<Fact>| [end.clone()].into_iter().chain(facts).collect::<Vec<_>>();
    assert_eq!((then(ended(third(40_000))), then(ended(third(20_000)))), (None, Some("I8")));

    let again = || [Fact::Begun(Position::TrimHorizon), all()];
    let next_run = |facts: Vec<Fact>| then(again().into_iter().chain(facts).collect());
    assert_eq!(next_run(vec![windowed(3, &[1], 0, "{}")]), None, "what was closed may be forgotten");
    assert_eq!(next_run(vec![windowed(3, &[2], 20_000, "{}")]), None, "or be stored");
    assert_eq!(next_run(vec![windowed(3, &[1], 20_000, "{}")]), Some("I8"), "1 was in the window before");
    assert_eq!(next_run(vec![windowed(3, &[1], 40_000, "{}")]), Some("I8"), "but nothing else");
    assert_eq!(next_run(ended(third(20_000))), Some("I8"), "closed again in this run");
    let open = [all(), windowed(1, &[1], 0, "{}"), answered("{}")];
    let after_open = open.into_iter().chain(again()).chain([windowed(3, &[1], 20_000, "{}")]).collect();
    assert_eq!(of("I8", windows, after_open), Some("I8"), "it was open");
}

#[test]
fn i8_only_what_succeeded_changes_the_state() {
    let partial = |m: &mut EventSourceMapping| {
        windows(m);
        m.report_batch_item_failures = true;
    };
    let answer = |failures: &[u64]| {
        let numbers = failures.iter().map(u64::to_string);
        ended(Outcome::Answered(BatchResponse::failed(numbers).with_state("{\"n\":1}")))
    };
    let next = |failures: &[u64], state| {
        of(
            "I8",
            partial,
            vec![all(), windowed(1, &[1, 2], 0, "{}"), answer(failures), windowed(2, &[2], 0, state)],
        )
    };
    assert_eq!((next(&[2], "{\"n\":1}"), next(&[2], "{}")), (None, Some("I8")));
    assert_eq!((next(&[1], "{}"), next(&[1], "{\"n\":1}")), (None, Some("I8")));
}

#[test]
fn i2_i3_a_window_holds_the_checkpoint_until_its_final_call_succeeded_or_is_delivered() {
    let with = |report, outcome: Outcome, facts: Vec<Fact>| {
        let history = [all(), windowed(1, &[1, 2], 0, "{}"), answered("{}"), windowed(2, &[], 0, "{}")];
        let change = move |m: &mut EventSourceMapping| {
            windows(m);
            m.report_batch_item_failures = report;
        };
        let facts: Vec<_> = history.into_iter().chain([ended(outcome)]).chain(facts).collect();
        of("I2", change, facts.clone()).or_else(|| of("I3", change, facts))
    };
    let stored = || Fact::Storing(after(2));
    let state = |failures: &[&str]| {
        Outcome::Answered(BatchResponse::failed(failures.iter().copied()).with_state("{}"))
    };
    assert_eq!(with(false, state(&[]), vec![stored()]), None);
    assert_eq!(with(true, state(&[]), vec![stored()]), None);
    assert_eq!(with(false, state(&["1"]), vec![stored()]), None, "R33");
    for (report, outcome) in
        [(true, state(&["1"])), (false, success()), (true, success()), (false, Outcome::FunctionError)]
    {
        assert_eq!(with(report, outcome.clone(), vec![stored()]), Some("I2"), "{report} {outcome:?}");
        let given = |start| Given { final_of: Some(Wall::from_millis(start)), ..given(&[]) };
        let given_up = || vec![Fact::Discarding(given(0)), Fact::Discarded(given(0)), stored()];
        assert_eq!(with(report, outcome.clone(), given_up()), None);
        assert_eq!(
            with(report, outcome, vec![Fact::Discarding(given(20_000))]),
            Some("I3"),
            "another window"
        );
    }
    let succeeded = Given { final_of: Some(Wall::from_millis(0)), ..given(&[]) };
    assert_eq!(with(false, state(&[]), vec![Fact::Discarding(succeeded)]), Some("I3"));
}

#[test]
fn i3_an_expired_record_is_given_up_by_the_time_of_its_message() {
    let aged = |m: &mut EventSourceMapping| m.maximum_record_age = Some(ms(5_000));
    let old = |records: &[u64], millis| Given {
        condition: Condition::RecordAgeExceeded,
        at: Wall::from_millis(millis),
        ..given(records)
    };
    let given_up =
        |records: &[u64], millis| of("I3", aged, vec![all(), Fact::Discarding(old(records, millis))]);
    assert_eq!((given_up(&[1], 5_001), given_up(&[1], 5_000)), (None, Some("I3")));
    assert_eq!((given_up(&[1, 2], 15_001), given_up(&[1, 2], 15_000)), (None, Some("I3")), "each of them");
}
