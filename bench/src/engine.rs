//! The engine alone: what the state machine costs per record, and how fast events are written.

use std::sync::Arc;
use std::time::Duration;

use shardmill::engine::{
    EventContext, MappingBuilder, Mono, Now, Outcome, ShardAction, ShardEvent, ShardMachine, Wall, encode,
    intake,
};
use shardmill::{Batch, BatchResponse, Position};

use crate::library;
use crate::measure::{Bound, Fallible, Figure, Stopwatch, ns_per};
use crate::memory_source::Pages;

const PAGES: Pages = Pages { pages: 100, records: 2_000, bytes: 1_024 };

/// All features off; then lanes and age on; then encoding. The samples of one run follow each other.
pub(crate) fn figures(runs: usize) -> Fallible<Vec<Figure>> {
    let (mut plain, mut lanes, mut encoding) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        plain.push(machine(library::mapping())?);
        lanes.push(machine(
            library::mapping().parallelization_factor(10).maximum_record_age(Duration::from_secs(3_600)),
        )?);
        encoding.push(gigabytes_a_second()?);
    }
    let figure = |name, unit, samples, bound| Figure { name, unit, samples, bound };
    Ok(vec![
        figure("engine, all features off", "ns/record", plain, Bound::AtMost { goal: 100.0, floor: 300.0 }),
        figure(
            "engine, 10 lanes and an age limit",
            "ns/record",
            lanes,
            Bound::AtMost { goal: 200.0, floor: 600.0 },
        ),
        figure("events written", "GB/s", encoding, Bound::AtLeast { goal: 1.0, floor: 0.5 }),
    ])
}

/// Takes the pages through a machine whose surroundings answer at once; the time that making and freeing the records
/// takes is left out.
fn machine(mapping: MappingBuilder) -> Fallible<f64> {
    let mapping = Arc::new(mapping.build()?);
    let mut now = Now { mono: Mono::from_millis(1), wall: Wall::from_millis(1_000) };
    let mut machine = ShardMachine::new(mapping, "shard".into(), Position::TrimHorizon, 1, now);
    let (mut spent, mut handled, mut made) = (Duration::ZERO, 0, 0);
    // Keeps the records alive until the watch is stopped.
    let mut kept = Vec::with_capacity(64);
    while handled < PAGES.pages * PAGES.records {
        // A page is made outside of the measured time, whenever the machine asks for one.
        let mut page = None;
        let watch = Stopwatch::of_this_thread();
        let mut asked = false;
        while let Some(action) = machine.poll_action(now) {
            let event = match action {
                ShardAction::Open { .. } => ShardEvent::Opened,
                ShardAction::Fetch { .. } => {
                    asked = true;
                    continue;
                }
                ShardAction::Invoke(invocation) => {
                    handled += invocation.batch.len() as u64;
                    kept.push(invocation.batch);
                    let outcome = Outcome::Answered(BatchResponse::success());
                    ShardEvent::Invoked { lane: invocation.lane, outcome }
                }
                ShardAction::Discard { id, .. } => ShardEvent::Dropped(id),
                ShardAction::Reserve { lane } => ShardEvent::Granted { lane },
                ShardAction::ReportGap(_) | ShardAction::ListStream | ShardAction::Release { .. } => continue,
                ShardAction::Checkpoint { .. } => ShardEvent::Checkpointed,
                ShardAction::Exit(_) => return Err("the machine exits".into()),
            };
            machine.handle_event(now, event);
        }
        spent += watch.lap().cpu;
        kept.clear();
        if asked {
            page = Some(PAGES.make(made));
            made += 1;
        }
        let watch = Stopwatch::of_this_thread();
        if let Some(page) = page {
            machine.handle_event(now, ShardEvent::Fetched(intake(page, machine.position(), |_| true)));
        }
        spent += watch.lap().cpu;
        now.mono = now.mono + Duration::from_millis(1);
    }
    Ok(ns_per(spent, handled))
}

/// Events of 100 records of 1 KB each.
fn gigabytes_a_second() -> Fallible<f64> {
    let mapping = library::mapping().build()?;
    let context = EventContext::new(&mapping, "shardId-000000000000".into());
    let page = Pages { pages: 1, records: 100, bytes: 1_024 }.make(0);
    let batch = Batch::new(page.records).ok_or("an empty page")?;
    let watch = Stopwatch::of_this_thread();
    let mut bytes = 0;
    for _ in 0..2_000 {
        bytes += std::hint::black_box(encode(std::hint::black_box(&batch), &context, None)).len();
    }
    Ok(bytes as f64 / watch.lap().cpu.as_secs_f64() / 1e9)
}
