//! The model against the native traces: it must say what the service was seen to do.

use std::cell::RefCell;

use super::lane::Act;
use super::*;
use crate::failure::Condition;

const BIG: usize = (1 << 20) + 1;

/// One run over records that are read at once at time 0, in a shard that is closed.
fn run(rules: &Rules, records: Vec<Rec>, function: &mut dyn FnMut(&Call) -> Answer) -> Told {
    let page = Page { asked: 0, at: 0, records, is_tip: true, is_end: true };
    run_pages(rules, &[page], function)
}

fn run_pages(rules: &Rules, pages: &[Page], function: &mut dyn FnMut(&Call) -> Answer) -> Told {
    let function = RefCell::new(function);
    let answered = |call: &Call| Reply { after: 10, answer: (*function.borrow_mut())(call) };
    let expected = expect(rules, pages, 0, None, &answered, &|_, _| (0, true));
    let acts: Vec<_> = expected.lanes.iter().flatten().cloned().collect();
    Told { expected, acts }
}

struct Told {
    expected: Expected,
    acts: Vec<(u64, Act)>,
}

impl Told {
    fn calls(&self) -> Vec<Call> {
        let call = |(_, act): &(u64, Act)| match act {
            Act::Invoke { call, .. } => Some(call.clone()),
            Act::Discard { .. } => None,
        };
        self.acts.iter().filter_map(call).collect()
    }

    fn batches(&self) -> Vec<Vec<u64>> {
        self.calls().into_iter().map(|call| call.records).collect()
    }

    fn ids(&self) -> Vec<usize> {
        let id = |(_, act): &(u64, Act)| match act {
            Act::Invoke { id, .. } => Some(*id),
            Act::Discard { .. } => None,
        };
        self.acts.iter().filter_map(id).collect()
    }

    fn gaps(&self) -> Vec<u64> {
        self.calls().windows(2).map(|pair| pair[1].at - pair[0].at - 10).collect()
    }

    fn messages(&self) -> Vec<(Vec<u64>, u32, Condition)> {
        let message = |(_, act): &(u64, Act)| match act {
            Act::Discard { records, count, condition, .. } => Some((records.clone(), *count, *condition)),
            Act::Invoke { .. } => None,
        };
        self.acts.iter().filter_map(message).collect()
    }
}

fn recs(numbers: std::ops::RangeInclusive<u64>) -> Vec<Rec> {
    numbers.map(Rec::new).collect()
}

const SPENT: Condition = Condition::RetryAttemptsExhausted;
const OLD: Condition = Condition::RecordAgeExceeded;

fn throws_at(bad: u64) -> impl FnMut(&Call) -> Answer {
    move |call| if call.records.contains(&bad) { Answer::Error } else { Answer::good() }
}

fn reports(bad: u64) -> impl FnMut(&Call) -> Answer {
    move |call| if call.records.contains(&bad) { Answer::failed(vec![bad]) } else { Answer::good() }
}

#[test]
fn r24_the_model_never_invokes_an_oversized_record_and_counts_each_try() {
    for (retries, count) in [(0, 1), (2, 3)] {
        let rules = Rules { payload_limit: Some(1000), retries: Some(retries), ..Rules::default() };
        let mut records = recs(1..=2);
        records[0].size = 2000;
        let told = run(&rules, records, &mut |_| Answer::good());
        assert_eq!((told.batches(), told.messages()), (vec![vec![2]], vec![(vec![1], count, SPENT)]));
    }
}

#[test]
fn r27_the_model_discards_only_the_expired_prefix() {
    let rules = Rules { age: Some(60_000), batch_size: 10, wall: 80_000, ..Rules::default() };
    let mut records = recs(0..=5);
    for fresh in &mut records[1..] {
        fresh.arrival = Some(79_000);
    }
    let told = run(&rules, records, &mut |_| Answer::good());
    assert_eq!((told.batches(), told.messages()), (vec![vec![1, 2, 3, 4, 5]], vec![(vec![0], 1, OLD)]));
}

#[test]
fn r28_the_model_ends_retrying_at_the_records_expiry() {
    let rules = Rules { age: Some(1000), ..Rules::default() };
    let told = run(&rules, recs(1..=1), &mut |_| Answer::Error);
    assert_eq!(told.batches().len(), 5);
    assert_eq!(told.messages(), [(vec![1], 5, OLD)]);
    assert_eq!(told.acts.last().unwrap().0, 1001, "the wait ends when the record expires");
}

#[test]
fn r30_the_model_gives_two_batches_of_expired_records_two_messages() {
    let rules = Rules { age: Some(60_000), batch_size: 1, wall: 80_000, ..Rules::default() };
    let told = run(&rules, recs(1..=2), &mut |_| Answer::good());
    assert_eq!(told.messages(), [(vec![1], 1, OLD), (vec![2], 1, OLD)]);
}

#[test]
fn r37_and_r38_the_model_resets_the_budget_with_progress_and_discards_the_suffix() {
    let rules = Rules { partial: true, retries: Some(1), ..Rules::default() };
    let told = run(&rules, recs(1..=4), &mut reports(2));
    assert_eq!(told.batches(), [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2, 3, 4]]);
    assert_eq!(told.messages(), [(vec![2, 3, 4], 2, SPENT)]);
    assert_eq!(told.ids(), [1, 2, 2]);

    let rules = Rules { partial: true, retries: Some(3), batch_size: 3, ..Rules::default() };
    let told = run(&rules, recs(0..=5), &mut reports(5));
    assert_eq!(told.batches(), [vec![0, 1, 2], vec![3, 4, 5], vec![5], vec![5], vec![5], vec![5]]);
    assert_eq!(told.messages(), [(vec![5], 4, SPENT)]);
}

#[test]
fn r43_the_model_bisects_as_the_service_did() {
    let rules = Rules { bisect: true, retries: Some(1), ..Rules::default() };
    let told = run(&rules, recs(1..=4), &mut throws_at(2));
    assert_eq!(told.batches(), [vec![1, 2, 3, 4], vec![1, 2], vec![1], vec![2], vec![2], vec![3, 4]]);
    assert_eq!(told.messages(), [(vec![2], 2, SPENT)]);
    assert_eq!(told.ids(), [1, 2, 3, 4, 4, 5]);
    assert_eq!(told.gaps(), [0, 0, 0, 200, 0]);
}

#[test]
fn r44_the_model_cuts_before_it_bisects_as_the_service_did() {
    let rules = Rules { bisect: true, partial: true, retries: Some(1), ..Rules::default() };
    let told = run(&rules, recs(1..=4), &mut reports(2));
    assert_eq!(told.batches(), [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2], vec![2], vec![3, 4]]);
    assert_eq!((told.messages(), told.gaps()), (vec![(vec![2], 2, SPENT)], vec![0, 0, 200, 0]));
}

fn windowed() -> Rules {
    Rules { tumbling: Some(10_000), wall: 20_000, batch_size: 2, ..Rules::default() }
}

fn arriving(arrivals: &[i64]) -> Vec<Rec> {
    let numbered = (1..).zip(arrivals);
    numbered.map(|(n, at)| Rec { arrival: Some(*at), ..Rec::new(n) }).collect()
}

/// Counts records in its state.
fn counting(call: &Call) -> Answer {
    let state = String::from_utf8(call.window.as_ref().unwrap().state.to_vec()).unwrap();
    let before: usize = state.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    Answer::state(&format!("{{\"n\":{}}}", before + call.records.len()))
}

fn windows(told: &Told) -> Vec<(Vec<u64>, i64, String, bool, bool)> {
    let told = told.calls().into_iter().map(|call| {
        let window = call.window.unwrap();
        let state = if window.state.len() > 100 { Vec::from("big") } else { window.state.to_vec() };
        (call.records, window.start, String::from_utf8(state).unwrap(), window.is_final, window.is_early)
    });
    told.collect()
}

#[test]
fn r67_the_model_closes_a_window_when_a_later_record_comes_and_at_the_shards_end() {
    let told = run(&windowed(), arriving(&[12_000, 12_500, 13_000, 21_000, 11_000]), &mut counting);
    let expected = [
        (vec![1, 2], 10_000, "{}", false),
        (vec![3], 10_000, "{\"n\":2}", false),
        (vec![], 10_000, "{\"n\":3}", true),
        (vec![4, 5], 20_000, "{}", false),
        (vec![], 20_000, "{\"n\":2}", true),
    ];
    let expected: Vec<_> = expected
        .map(|(records, start, state, is_final)| (records, start, state.to_owned(), is_final, false))
        .into();
    assert_eq!(windows(&told), expected, "the last record is late and joins the open window");
    assert_eq!(told.gaps(), [0, 0, 0, 0]);
}

#[test]
fn r67_the_model_closes_an_idle_window_100_s_after_its_end_once_the_tip_was_read() {
    let page = |at, records, is_tip| Page { asked: at, at, records, is_tip, is_end: false };
    let pages = [page(0, arriving(&[21_000]), false), page(500, vec![], true), page(50_000, vec![], true)];
    let told = run_pages(&windowed(), &pages, &mut counting);
    assert_eq!(told.calls()[1].at, 110_000);
    let told = run_pages(&windowed(), &pages[..2], &mut counting);
    assert_eq!(told.calls().len(), 1, "no tip was read after the window's end");
}

#[test]
fn r68_the_model_ends_a_window_early_when_its_state_is_too_large_and_goes_on_with_none() {
    let mut big = |call: &Call| match call.records.first() {
        Some(1) => Answer::state(&"x".repeat(BIG)),
        _ => Answer::state("{\"n\":1}"),
    };
    let told = run(&windowed(), arriving(&[12_000, 12_500, 13_000]), &mut big);
    let expected = [
        (vec![1, 2], "{}", false, false),
        (vec![], "big", true, true),
        (vec![3], "{}", false, false),
        (vec![], "{\"n\":1}", true, false),
    ];
    let expected: Vec<_> =
        expected.map(|(records, state, last, early)| (records, 10_000, state.to_owned(), last, early)).into();
    assert_eq!(windows(&told), expected);
}

#[test]
fn r69_the_model_retries_a_final_call_then_discards_it_and_goes_on() {
    let rules = Rules { retries: Some(1), ..windowed() };
    let mut failing = |call: &Call| if call.records.is_empty() { Answer::Error } else { Answer::state("{}") };
    let told = run(&rules, arriving(&[12_000, 21_000]), &mut failing);
    assert_eq!(told.batches(), [vec![1], vec![], vec![], vec![2], vec![], vec![]]);
    assert_eq!(told.messages(), [(vec![], 2, SPENT), (vec![], 2, SPENT)]);
    assert_eq!(told.gaps(), [0, 200, 0, 0, 200]);
}

#[test]
fn r66_the_model_takes_an_answer_without_a_state_for_a_failure() {
    let rules = Rules { retries: Some(0), ..windowed() };
    let told = run(&rules, arriving(&[12_000]), &mut |_| Answer::good());
    assert_eq!(told.messages(), [(vec![1], 1, SPENT), (vec![], 1, SPENT)]);
}

#[test]
fn i8_the_models_checkpoint_stays_before_an_open_window() {
    let told = run(&windowed(), arriving(&[12_000, 12_500, 13_000, 21_000]), &mut counting);
    let moves: Vec<_> = told.expected.moves().into_iter().map(|at| (at, told.expected.reached(at))).collect();
    assert_eq!(moves, [(0, 0), (30, 3), (50, 5)], "at the two final calls' ends, then the shard's end");
}

#[test]
fn r48_the_models_lanes_block_alone_and_the_checkpoint_waits_for_the_lowest() {
    let rules = Rules { lanes: 2, batch_size: 1, ..Rules::default() };
    let records: Vec<_> =
        recs(1..=4).into_iter().map(|rec| Rec { lane: usize::from(rec.n > 1), ..rec }).collect();
    let told = run(&rules, records, &mut |call| {
        if call.records == [1] && call.nth == 1 { Answer::Error } else { Answer::good() }
    });
    assert_eq!(told.batches(), [[1], [1], [2], [3], [4]]);
    let reached: Vec<_> = [10, 30, 219, 220].into_iter().map(|at| told.expected.reached(at)).collect();
    assert_eq!(reached, [0, 0, 0, 5]);
    assert!(told.expected.is_ahead(10) && !told.expected.is_ahead(220));
}

#[test]
fn r15_the_models_filtered_records_count_as_processed_and_fill_no_batch() {
    let rules = Rules { batch_size: 2, ..Rules::default() };
    let records: Vec<_> = recs(1..=4).into_iter().map(|rec| Rec { filtered: rec.n < 3, ..rec }).collect();
    let told = run(&rules, records, &mut |_| Answer::good());
    assert_eq!(told.batches(), [[3, 4]]);
    assert_eq!((told.expected.reached(0), told.expected.reached(10)), (2, 5));
}

#[test]
fn r4_the_models_batching_windows_follow_one_another_from_the_last_invocations_end() {
    let rules = Rules { batching_window: 5000, ..Rules::default() };
    let page = |at, n| Page { asked: at, at, records: recs(n..=n), is_tip: true, is_end: false };
    let told = run_pages(&rules, &[page(0, 1), page(8000, 2), page(61_000, 3)], &mut |_| Answer::good());
    let times: Vec<_> = told.calls().into_iter().map(|call| call.at).collect();
    assert_eq!(times, [5000, 10_010, 65_020]);
}
