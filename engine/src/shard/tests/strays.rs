//! Events that answer nothing are ignored; nothing panics.

use super::rig::{Reply, Rig, after, mapping, success};
use crate::intake::{Intake, Page, intake};
use crate::outcome::Outcome;
use crate::position::Position;
use crate::shard::{Exit, FetchFault, LaneId, ShardEvent};
use crate::time::Mono;

/// Every event that answers an action.
fn answers() -> Vec<ShardEvent> {
    let page = Page { records: vec![super::rig::record(77, 10)], end_of_shard: true, ..Page::default() };
    vec![
        ShardEvent::Opened,
        ShardEvent::OpenFailed(FetchFault::Other),
        ShardEvent::OpenFailed(FetchFault::Trimmed),
        ShardEvent::FetchFailed(FetchFault::Trimmed),
        ShardEvent::FetchFailed(FetchFault::NotFound { unlisted: None }),
        ShardEvent::Fetched(intake(page, &Position::TrimHorizon, |_| true)),
        ShardEvent::Fetched(Intake::default()),
        ShardEvent::FetchFailed(FetchFault::IteratorExpired),
        ShardEvent::FetchFailed(FetchFault::Other),
        ShardEvent::Invoked { lane: LaneId(0), outcome: success() },
        ShardEvent::Invoked { lane: LaneId(9), outcome: Outcome::FunctionError },
        ShardEvent::Granted { lane: LaneId(0) },
        ShardEvent::Granted { lane: LaneId(9) },
        ShardEvent::Checkpointed,
        ShardEvent::CheckpointFailed,
    ]
}

#[test]
fn events_that_answer_nothing_leave_a_machine_as_it_is() {
    let fresh = Rig::new(mapping(|_| {}));
    let mut idle = Rig::new(mapping(|_| {}));
    idle.put([1]);
    idle.run(500);
    let mut ended = Rig::new(mapping(|_| {}));
    ended.put([1]);
    ended.close_at(0);
    ended.store = Box::new(|_| Reply::Now(false));
    ended.run(10);
    for (name, mut rig) in [("fresh", fresh), ("idle", idle), ("ended", ended)] {
        for event in answers() {
            let before = rig.machine.clone();
            rig.inject(event.clone());
            assert_eq!(rig.machine, before, "{name}: {event:?}");
        }
    }
}

#[test]
fn an_answer_to_a_fetch_does_not_answer_an_open_and_the_other_way_round() {
    let mut opening = Rig::new(mapping(|_| {}));
    opening.opens = Box::new(|_| Reply::Never);
    opening.run(10);
    let mut fetching = Rig::new(mapping(|_| {}));
    fetching.reads = Box::new(|_| Reply::Never);
    fetching.run(10);
    let is_open = |event: &ShardEvent| matches!(event, ShardEvent::Opened | ShardEvent::OpenFailed(_));
    let is_fetch = |event: &ShardEvent| matches!(event, ShardEvent::Fetched(_) | ShardEvent::FetchFailed(_));
    for event in answers() {
        let before = opening.machine.clone();
        if is_fetch(&event) {
            opening.inject(event.clone());
            assert_eq!(opening.machine, before, "opening: {event:?}");
        }
        let before = fetching.machine.clone();
        if is_open(&event) {
            fetching.inject(event.clone());
            assert_eq!(fetching.machine, before, "fetching: {event:?}");
        }
    }
}

#[test]
fn a_machine_that_exited_ignores_everything() {
    let mut rig = Rig::resuming(mapping(|_| {}), Position::ShardEnd);
    rig.run(10);
    assert_eq!(rig.exit(), Some(Exit::ShardEnd));
    let before = rig.machine.clone();
    let more = [
        ShardEvent::LeaseLost,
        ShardEvent::Stop { deadline: Mono::from_millis(1) },
        ShardEvent::Pause,
        ShardEvent::Resume,
    ];
    for event in answers().into_iter().chain(more) {
        rig.inject(event.clone());
        assert_eq!(rig.machine, before, "{event:?}");
        assert_eq!(rig.machine.poll_action(rig.now()), None);
        assert_eq!(rig.machine.poll_timeout(rig.now()), None);
    }
}

#[test]
fn i16_what_ends_after_its_cut_resolves_nothing() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
    }));
    rig.function = Box::new(|call| match call.records[0] {
        1 => Reply::Now(success()),
        2 => Reply::Now(Outcome::FunctionError),
        _ => Reply::Never,
    });
    rig.destination = Some(Box::new(|_| Reply::Never));
    rig.store = Box::new(|_| Reply::After(1000, true));
    rig.put([1, 2, 3]);
    rig.run(10);
    rig.stop(0);
    rig.settle();
    assert_eq!(rig.exit(), None, "the checkpoint is still being written");
    rig.machine.handle_event(rig.now(), ShardEvent::Invoked { lane: LaneId(0), outcome: success() });
    rig.machine.handle_event(rig.now(), ShardEvent::Delivered(rig.discard_ids[0]));
    assert_eq!(rig.machine.snapshot(rig.now()).buffered_records, 2);
    rig.run(60_000);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 1 }));
    assert_eq!((rig.checkpoints().len(), rig.stored.clone()), (1, after(1)));
}
