//! What a shard holds is what it says, and what waits lets go of what it does not need (I13).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::rig::{Reply, Rig, mapping, ms, seq, success};
use crate::intake::{Page, intake};
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};
use crate::position::Position;
use crate::record::{Data, Record};
use crate::shard::{Invocation, PlaceRule, ShardAction, ShardEvent, ShardMachine};
use crate::time::{Mono, Now, Wall};

/// Bytes that are still referenced.
#[derive(Clone, Default)]
struct Memory(Arc<AtomicUsize>);

struct Allocation(Vec<u8>, Memory);

impl AsRef<[u8]> for Allocation {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.1.0.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl Memory {
    fn allocate(&self, bytes: usize) -> Bytes {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Bytes::from_owner(Allocation(vec![b'x'; bytes], self.clone()))
    }

    fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn page(&self, numbers: std::ops::RangeInclusive<u64>, bytes: usize) -> Page {
        let key = |n: u64| Some(format!("key-{}", n % 20));
        let record = |n| Record::new(seq(n), key(n), None, Data::Raw(self.allocate(bytes)));
        Page { records: numbers.map(record).collect(), millis_behind: Some(1), ..Page::default() }
    }
}

type Function = fn(&Invocation) -> Option<Outcome>;

/// A machine with surroundings that answer at once: one page, a function, and no destination that takes anything.
struct Shard {
    machine: ShardMachine,
    now: Now,
    pages: Vec<Page>,
    function: Function,
}

impl Shard {
    fn new(mapping: Arc<EventSourceMapping>, pages: Vec<Page>, function: Function) -> Self {
        let now = Now { mono: Mono::from_millis(1), wall: Wall::from_millis(1_000) };
        let machine = ShardMachine::new(mapping, "shard".into(), Position::TrimHorizon, 7, now);
        Self { machine, now, pages, function }
    }

    fn run(&mut self, millis: u64) {
        let until = self.now.mono + ms(millis);
        while self.now.mono < until {
            while let Some(action) = self.machine.poll_action(self.now) {
                let event = match action {
                    ShardAction::Open { .. } => ShardEvent::Opened,
                    ShardAction::Fetch { .. } => {
                        let page = self.pages.pop().unwrap_or_default();
                        ShardEvent::Fetched(intake(page, self.machine.position(), |_| true))
                    }
                    ShardAction::Invoke(invocation) => match (self.function)(&invocation) {
                        Some(outcome) => ShardEvent::Invoked { lane: invocation.lane, outcome },
                        None => continue,
                    },
                    ShardAction::Reserve { lane } => ShardEvent::Granted { lane },
                    ShardAction::Release { .. }
                    | ShardAction::Discard { .. }
                    | ShardAction::ReportGap(_)
                    | ShardAction::ListStream
                    | ShardAction::Exit(_) => continue,
                    ShardAction::Checkpoint { .. } => ShardEvent::Checkpointed,
                };
                self.machine.handle_event(self.now, event);
            }
            self.now.mono = self.now.mono + ms(10);
        }
    }

    fn counted(&self) -> usize {
        self.machine.snapshot(self.now).buffered_bytes
    }
}

/// Fails the batch from its last record on if that is the last of the page.
fn from_the_last(invocation: &Invocation) -> Option<Outcome> {
    let last = invocation.batch.last().map(|record| record.seq.number.as_str().to_owned());
    Some(Outcome::Answered(match last.as_deref() {
        Some("100") => BatchResponse::failed(["100"]),
        _ => BatchResponse::success(),
    }))
}

fn whole_batch_of_the_last(invocation: &Invocation) -> Option<Outcome> {
    let has_last = invocation.batch.records().iter().any(|record| record.seq == seq(100));
    Some(if has_last { Outcome::FunctionError } else { success() })
}

fn not_reached_for_the_last(invocation: &Invocation) -> Option<Outcome> {
    let has_last = invocation.batch.records().iter().any(|record| record.seq == seq(100));
    Some(if has_last { Outcome::NotReached { retry_after: None } } else { success() })
}

fn down_after_ninety(invocation: &Invocation) -> Option<Outcome> {
    let is_late = invocation.batch.records().iter().any(|record| record.seq > seq(90));
    Some(if is_late { Outcome::NotReached { retry_after: None } } else { success() })
}

#[test]
fn incident_75_a_stuck_record_does_not_keep_its_page() {
    const RECORD: usize = 100_000;
    let cases: [(&str, Arc<EventSourceMapping>, Function, usize); 6] = [
        ("reported", mapping(|m| m.report_batch_item_failures = true), from_the_last, 1),
        ("bisected", mapping(|m| m.bisect_batch_on_function_error = true), whole_batch_of_the_last, 1),
        ("last batch", mapping(|m| m.batch_size = 10), whole_batch_of_the_last, 10),
        ("not reached", mapping(|m| m.batch_size = 10), not_reached_for_the_last, 10),
        ("queued behind it", mapping(|m| m.batch_size = 5), down_after_ninety, 10),
        (
            "undelivered",
            mapping(|m| {
                m.batch_size = 10;
                m.maximum_retry_attempts = Some(0);
            }),
            whole_batch_of_the_last,
            10,
        ),
    ];
    for (name, mapping, function, left) in cases {
        let memory = Memory::default();
        let page = || vec![memory.page(1..=100, RECORD)];
        let mut shards: Vec<_> =
            (0..40).map(|_| Shard::new(Arc::clone(&mapping), page(), function)).collect();
        shards.iter_mut().for_each(|shard| shard.run(2_000));
        let counted: usize = shards.iter().map(Shard::counted).sum();
        assert_eq!(memory.used(), 40 * left * RECORD, "{name}");
        let share = counted as f64 / memory.used() as f64;
        assert!((1.0..1.01).contains(&share), "{name}: {counted} bytes are counted");
    }
}

#[test]
fn incident_75_while_much_of_a_page_waits_all_of_it_is_counted() {
    let memory = Memory::default();
    let fails = |invocation: &Invocation| {
        let is_late = invocation.batch.records().iter().any(|record| record.seq > seq(40));
        Some(if is_late { Outcome::FunctionError } else { success() })
    };
    let pages = vec![memory.page(1..=100, 10_000)];
    let mut shard = Shard::new(mapping(|m| m.batch_size = 10), pages, fails);
    shard.run(1_000);
    assert_eq!(shard.machine.snapshot(shard.now).buffered_records, 60);
    assert_eq!(memory.used(), 1_000_000, "copying it would free less than half");
    assert!((1_000_000..1_030_000).contains(&shard.counted()), "{}", shard.counted());
}

#[test]
fn incident_75_a_batch_that_waits_keeps_no_event_and_one_that_is_invoked_counts_it() {
    let memory = Memory::default();
    let mut shard = Shard::new(mapping(|_| {}), vec![memory.page(1..=10, 100)], |_| None);
    shard.run(100);
    let invoked = shard.machine.snapshot(shard.now);
    assert!(invoked.lanes[0].invoking);
    let batch = shard.machine.current_batch().unwrap();
    batch.event_or_encode(|_| memory.allocate(1_000_000));
    assert_eq!(shard.counted(), invoked.buffered_bytes + 1_000_000);
    drop(batch);
    let lane = crate::shard::LaneId(0);
    shard.machine.handle_event(shard.now, ShardEvent::Invoked { lane, outcome: Outcome::FunctionError });
    assert_eq!((memory.used(), shard.counted()), (1_000, invoked.buffered_bytes));
}

#[test]
fn a_batch_that_waits_for_its_place_while_nobody_reaches_the_function_keeps_no_event() {
    let memory = Memory::default();
    let mut shard = Shard::new(mapping(|_| {}), vec![memory.page(1..=10, 100)], |_| None);
    shard.machine.set_places(PlaceRule::Away);
    shard.run(100);
    let invoked = shard.machine.snapshot(shard.now);
    assert!(invoked.lanes[0].invoking);
    let batch = shard.machine.current_batch().unwrap();
    batch.event_or_encode(|_| memory.allocate(1_000_000));
    drop(batch);
    let (lane, outcome) = (crate::shard::LaneId(0), Outcome::NotReached { retry_after: None });
    shard.machine.handle_event(shard.now, ShardEvent::Invoked { lane, outcome });
    assert_eq!((memory.used(), shard.counted()), (1_000, invoked.buffered_bytes));
}

#[test]
fn a_page_that_lanes_share_takes_no_more_room_than_its_records() {
    let memory = Memory::default();
    let change = |m: &mut EventSourceMapping| m.parallelization_factor = 2;
    let mut shard = Shard::new(mapping(change), vec![memory.page(1..=9, 100)], |_| None);
    shard.run(100);
    assert_eq!(shard.counted(), shard.machine.buffered_bytes());
}

#[test]
fn incident_75_a_discard_that_waits_for_its_destination_keeps_no_event() {
    let memory = Memory::default();
    let mapping = mapping(|m| m.maximum_retry_attempts = Some(0));
    let fails: Function = |_| Some(Outcome::FunctionError);
    let mut shard = Shard::new(mapping, vec![memory.page(1..=10, 100)], fails);
    let (id, failed) = loop {
        match shard.machine.poll_action(shard.now) {
            Some(ShardAction::Discard { id, failed }) => break (id, failed),
            Some(ShardAction::Open { .. }) => shard.machine.handle_event(shard.now, ShardEvent::Opened),
            Some(ShardAction::Fetch { .. }) => {
                let page = intake(shard.pages.pop().unwrap(), shard.machine.position(), |_| true);
                shard.machine.handle_event(shard.now, ShardEvent::Fetched(page));
            }
            Some(ShardAction::Invoke(Invocation { lane, batch, .. })) => {
                batch.event_or_encode(|_| memory.allocate(1_000_000));
                drop(batch);
                let outcome = Outcome::FunctionError;
                shard.machine.handle_event(shard.now, ShardEvent::Invoked { lane, outcome });
            }
            _ => unreachable!("nothing else is to be done"),
        }
    };
    assert_eq!(memory.used(), 1_000, "the function's event is gone");
    let before = shard.counted();
    failed.batch.event_or_encode(|_| memory.allocate(2_000_000));
    drop(failed);
    assert_eq!(shard.counted(), before + 2_000_000);
    shard.machine.handle_event(shard.now, ShardEvent::DeliverFailed(id));
    assert_eq!((memory.used(), shard.counted()), (1_000, before));
}

#[test]
fn incident_75_what_lanes_finish_ahead_of_a_stuck_key_takes_little_room_and_is_counted() {
    let memory = Memory::default();
    let stuck = |invocation: &Invocation| {
        let is_stuck = invocation.batch.records().iter().any(|record| record.seq == seq(1));
        Some(if is_stuck { Outcome::FunctionError } else { success() })
    };
    let pages = (0..10).rev().map(|page| memory.page(page * 5_000 + 1..=(page + 1) * 5_000, 10)).collect();
    let mapping = mapping(|m| {
        m.parallelization_factor = 10;
        m.batch_size = 100;
        m.polling.buffer_bytes = usize::MAX;
    });
    let mut shard = Shard::new(mapping, pages, stuck);
    shard.run(5_000);
    let snapshot = shard.machine.snapshot(shard.now);
    let unresolved = shard.machine.buffered_bytes();
    assert!((1_000..25_000).contains(&snapshot.buffered_records), "{}", snapshot.buffered_records);
    let ahead = snapshot.buffered_bytes - unresolved;
    assert!(ahead >= 50_000 * 4, "the slots are counted: {ahead}");
    assert!(ahead < 100 * snapshot.buffered_records + 50_000 * 8 + unresolved, "{ahead}");
}

#[test]
fn incident_75_an_open_windows_state_is_counted() {
    let mut rig = Rig::new(mapping(|m| m.tumbling_window = Some(ms(10_000))));
    let state = format!("{{\"text\":\"{}\"}}", "x".repeat(5_000));
    let answer = BatchResponse::success().with_state(state);
    rig.function = Box::new(move |_| Reply::Now(Outcome::Answered(answer.clone())));
    rig.put_keyed(1, None, 0);
    rig.run(1_000);
    let snapshot = rig.machine.snapshot(rig.now());
    assert_eq!(snapshot.buffered_records, 0);
    assert!((5_000..5_200).contains(&snapshot.buffered_bytes), "{}", snapshot.buffered_bytes);
}
