//! When a lease is free, held and lost.

mod explorer;
mod heartbeat;

use super::*;

const LEASE: Duration = Duration::from_secs(10);

fn at(ms: u64) -> Mono {
    Mono::from_millis(ms)
}

fn machine() -> LeaseMachine {
    let mut machine = LeaseMachine::new(LeaseTimes::new(LEASE));
    machine.handle_event(at(0), LeaseEvent::Wanted(true));
    machine
}

fn seen(counter: u64, owner: OwnerView) -> LeaseEvent {
    LeaseEvent::Observed(view(counter, owner))
}

fn view(counter: u64, owner: OwnerView) -> LeaseView {
    LeaseView { sign: LifeSign::counter(counter), acquisition: None, owner, lease: None }
}

fn held(sent: u64) -> LeaseMachine {
    let mut machine = machine();
    machine.handle_event(at(sent), seen(0, OwnerView::Nobody));
    assert_eq!(machine.poll_action(at(sent)), Some(LeaseAction::Acquire { seen: LifeSign::counter(0) }));
    machine.handle_event(at(sent + 5), LeaseEvent::Written { sent: at(sent), counter: 1 });
    machine
}

#[test]
fn i11_another_workers_lease_is_free_only_when_its_counter_stands_still_for_a_lease_time() {
    let mut machine = machine();
    machine.handle_event(at(1_000), seen(7, OwnerView::Other));
    machine.handle_event(at(9_000), seen(8, OwnerView::Other));
    assert_eq!(machine.poll_action(at(18_999)), None);
    machine.handle_event(at(18_500), seen(8, OwnerView::Other));
    assert_eq!(machine.poll_timeout(), Some(at(19_000)));
    assert_eq!(machine.poll_action(at(19_000)), Some(LeaseAction::Acquire { seen: LifeSign::counter(8) }));
}

#[test]
fn incident_76_the_lease_of_an_owner_with_a_longer_lease_time_is_free_only_after_that_time() {
    for (owners, free_at) in [(300_000, 300_000), (10_000, 10_000), (2_000, 10_000)] {
        let mut machine = machine();
        let lease = Some(Duration::from_millis(owners));
        let shown = LeaseView { lease, ..view(7, OwnerView::Other) };
        machine.handle_event(at(0), LeaseEvent::Observed(shown));
        machine.handle_event(at(9_000), LeaseEvent::Observed(shown));
        assert_eq!((machine.poll_action(at(free_at - 1)), machine.poll_timeout()), (None, Some(at(free_at))));
        assert_eq!(
            machine.poll_action(at(free_at)),
            Some(LeaseAction::Acquire { seen: LifeSign::counter(7) })
        );
        machine.handle_event(
            at(free_at),
            LeaseEvent::Refused(Some(LeaseView { sign: LifeSign::counter(8), ..shown })),
        );
        machine.handle_event(at(free_at), LeaseEvent::Wanted(true));
        assert_eq!(machine.poll_timeout(), Some(at(2 * free_at)), "the winner's time counts as well");
    }
}

#[test]
fn a_free_lease_and_a_dead_owners_are_taken_at_once_but_only_if_wanted() {
    for owner in [OwnerView::Nobody, OwnerView::Gone] {
        let mut machine = LeaseMachine::new(LeaseTimes::new(LEASE));
        machine.handle_event(at(50), seen(3, owner));
        assert_eq!((machine.poll_action(at(50)), machine.poll_timeout()), (None, None));
        machine.handle_event(at(50), LeaseEvent::Wanted(true));
        assert_eq!(machine.poll_action(at(50)), Some(LeaseAction::Acquire { seen: LifeSign::counter(3) }));
    }
}

#[test]
fn an_owner_that_turns_out_dead_is_succeeded_before_its_lease_time_is_over() {
    let mut machine = machine();
    machine.handle_event(at(0), seen(3, OwnerView::Other));
    machine.handle_event(at(500), seen(3, OwnerView::Gone));
    assert_eq!(machine.poll_action(at(500)), Some(LeaseAction::Acquire { seen: LifeSign::counter(3) }));
}

#[test]
fn i10_validity_counts_from_when_the_write_was_sent_and_ends_before_others_may_take_over() {
    let mut machine = held(100);
    assert_eq!(machine.valid_until(), Some(at(100 + 9_000)));
    assert_eq!(machine.poll_action(at(3_432)), None, "renewed when a third of the lease time is over");
    assert_eq!(machine.poll_action(at(3_433)), Some(LeaseAction::Renew { counter: 1 }));
    machine.handle_event(at(5_000), LeaseEvent::Written { sent: at(3_433), counter: 2 });
    assert_eq!(machine.valid_until(), Some(at(3_433 + 9_000)));
}

#[test]
fn i10_a_lease_that_could_not_be_renewed_is_lost_at_its_deadline_even_while_a_write_hangs() {
    let mut machine = held(0);
    assert_eq!(machine.poll_action(at(4_000)), Some(LeaseAction::Renew { counter: 1 }));
    assert_eq!(machine.poll_timeout(), Some(at(9_000)));
    assert_eq!(machine.poll_action(at(8_999)), None);
    assert_eq!(machine.begin_write(at(9_000)), None);
    assert_eq!(machine.poll_action(at(9_000)), Some(LeaseAction::Lost));
    assert_eq!(machine.phase(), LeasePhase::Watching);
}

#[test]
fn a_pause_of_three_lease_times_loses_the_lease_before_anything_is_started() {
    let mut machine = held(0);
    assert_eq!(machine.begin_write(at(30_000)), None, "incident 18");
    assert_eq!(machine.poll_action(at(30_000)), Some(LeaseAction::Lost));
}

#[test]
fn a_checkpoint_takes_the_place_of_a_renewal_and_writes_never_overlap() {
    let mut machine = held(0);
    assert_eq!(machine.begin_write(at(3_000)), Some(1));
    assert_eq!(machine.begin_write(at(3_001)), None);
    assert_eq!(machine.poll_action(at(3_400)), None, "the renewal waits for the checkpoint");
    machine.handle_event(at(3_500), LeaseEvent::Written { sent: at(3_000), counter: 2 });
    assert_eq!(machine.poll_action(at(3_500)), None, "the checkpoint renewed the lease");
    assert_eq!(machine.poll_timeout(), Some(at(3_000 + 3_333)));
}

#[test]
fn a_refused_write_loses_the_lease_at_once() {
    let mut machine = held(0);
    assert_eq!(machine.begin_write(at(100)), Some(1));
    let taken = view(2, OwnerView::Other);
    machine.handle_event(at(120), LeaseEvent::Refused(Some(taken)));
    assert_eq!(machine.valid_until(), None);
    assert_eq!(machine.poll_action(at(120)), Some(LeaseAction::Lost));
}

#[test]
fn incident_13_a_write_of_unknown_result_that_did_happen_does_not_lose_the_lease() {
    let mut machine = held(0);
    assert_eq!(machine.poll_action(at(3_400)), Some(LeaseAction::Renew { counter: 1 }));
    machine.handle_event(at(6_000), LeaseEvent::Unknown { sent: at(3_400) });
    assert_eq!(machine.poll_action(at(6_500)), Some(LeaseAction::Renew { counter: 1 }));
    let mine = view(2, OwnerView::Me);
    machine.handle_event(at(6_510), LeaseEvent::Refused(Some(mine)));
    assert_eq!(machine.valid_until(), Some(at(3_400 + 9_000)), "it proves the lease from when it was sent");
    assert_eq!(machine.poll_action(at(6_510)), Some(LeaseAction::Renew { counter: 2 }));
}

#[test]
fn incident_15_the_same_refusal_without_an_unknown_write_is_a_loss() {
    let mut machine = held(0);
    assert_eq!(machine.begin_write(at(3_400)), Some(1));
    machine.handle_event(at(3_410), LeaseEvent::Refused(Some(view(2, OwnerView::Me))));
    assert_eq!(machine.poll_action(at(3_410)), Some(LeaseAction::Lost));
}

#[test]
fn releasing_waits_for_the_write_under_way_and_is_not_followed_by_taking_it_back() {
    let mut machine = held(0);
    assert_eq!(machine.begin_write(at(100)), Some(1));
    machine.handle_event(at(110), LeaseEvent::Release);
    assert_eq!(machine.poll_action(at(110)), None);
    machine.handle_event(at(120), LeaseEvent::Written { sent: at(100), counter: 2 });
    assert_eq!(machine.begin_write(at(120)), None);
    assert_eq!(machine.poll_action(at(120)), Some(LeaseAction::Release { counter: 2 }));
    machine.handle_event(at(130), LeaseEvent::Written { sent: at(120), counter: 3 });
    machine.handle_event(at(500), seen(3, OwnerView::Nobody));
    assert_eq!((machine.phase(), machine.poll_action(at(500))), (LeasePhase::Watching, None));
}

#[test]
fn incident_13_a_checkpoint_waits_until_a_renewal_has_found_out_about_a_write_of_unknown_result() {
    let mut machine = held(0);
    assert_eq!(machine.begin_write(at(100)), Some(1));
    machine.handle_event(at(3_400), LeaseEvent::Unknown { sent: at(100) });
    assert_eq!(machine.begin_write(at(3_400)), None);
    assert_eq!(machine.poll_timeout(), Some(at(3_900)));
    assert_eq!(machine.poll_action(at(3_900)), Some(LeaseAction::Renew { counter: 1 }));
    let mine = view(2, OwnerView::Me);
    machine.handle_event(at(3_910), LeaseEvent::Refused(Some(mine)));
    assert_eq!(machine.begin_write(at(3_910)), Some(2));
}

#[test]
fn a_release_of_unknown_result_is_tried_again_and_nothing_may_be_started_meanwhile() {
    for happened in [false, true] {
        let mut machine = held(0);
        machine.handle_event(at(100), LeaseEvent::Release);
        assert_eq!(machine.valid_until(), None, "the holder has given it up");
        assert_eq!(machine.poll_action(at(100)), Some(LeaseAction::Release { counter: 1 }));
        machine.handle_event(at(200), LeaseEvent::Unknown { sent: at(100) });
        assert_eq!((machine.poll_action(at(200)), machine.poll_timeout()), (None, Some(at(700))));
        assert_eq!(machine.poll_action(at(700)), Some(LeaseAction::Release { counter: 1 }));
        machine.handle_event(
            at(710),
            match happened {
                true => LeaseEvent::Refused(Some(view(2, OwnerView::Nobody))),
                false => LeaseEvent::Written { sent: at(700), counter: 2 },
            },
        );
        assert_eq!((machine.phase(), machine.poll_action(at(800))), (LeasePhase::Watching, None));
    }
}

#[test]
fn incident_13_a_release_after_a_renewal_of_unknown_result_that_did_happen_gives_the_lease_up() {
    let mut machine = held(0);
    assert_eq!(machine.poll_action(at(3_400)), Some(LeaseAction::Renew { counter: 1 }));
    machine.handle_event(at(4_000), LeaseEvent::Unknown { sent: at(3_400) });
    machine.handle_event(at(4_000), LeaseEvent::Release);
    assert_eq!(machine.poll_action(at(4_500)), Some(LeaseAction::Release { counter: 1 }));
    let mine = view(2, OwnerView::Me);
    machine.handle_event(at(4_510), LeaseEvent::Refused(Some(mine)));
    assert_eq!(machine.poll_action(at(4_510)), Some(LeaseAction::Release { counter: 2 }));
}

#[test]
fn incident_81_a_renewal_that_was_never_sent_does_not_hold_a_release_up() {
    let mut machine = held(0);
    assert_eq!(machine.poll_action(at(3_400)), Some(LeaseAction::Renew { counter: 1 }));
    machine.handle_event(at(3_500), LeaseEvent::Release);
    assert_eq!(machine.poll_action(at(3_500)), None, "the renewal may still be sent");
    machine.handle_event(at(3_600), LeaseEvent::NotSent);
    assert_eq!(machine.poll_action(at(3_600)), Some(LeaseAction::Release { counter: 1 }));
    machine.handle_event(at(3_610), LeaseEvent::Written { sent: at(3_600), counter: 2 });
    assert_eq!(machine.phase(), LeasePhase::Watching);
}

#[test]
fn incident_81_a_write_that_was_never_sent_is_asked_for_again() {
    let mut watching = machine();
    watching.handle_event(at(0), seen(0, OwnerView::Nobody));
    assert_eq!(watching.poll_action(at(0)), Some(LeaseAction::Acquire { seen: LifeSign::counter(0) }));
    watching.handle_event(at(10), LeaseEvent::NotSent);
    assert_eq!(watching.poll_action(at(10)), Some(LeaseAction::Acquire { seen: LifeSign::counter(0) }));
    let mut renewing = held(0);
    assert_eq!(renewing.poll_action(at(3_400)), Some(LeaseAction::Renew { counter: 1 }));
    renewing.handle_event(at(3_410), LeaseEvent::NotSent);
    assert_eq!(renewing.valid_until(), Some(at(9_000)), "nothing was proven and nothing lost");
    assert_eq!(renewing.begin_write(at(3_410)), Some(1), "a checkpoint may take its place");
    let mut releasing = held(0);
    releasing.handle_event(at(100), LeaseEvent::Release);
    assert_eq!(releasing.poll_action(at(100)), Some(LeaseAction::Release { counter: 1 }));
    releasing.handle_event(at(110), LeaseEvent::NotSent);
    assert_eq!(releasing.poll_action(at(110)), Some(LeaseAction::Release { counter: 1 }));
}

#[test]
fn a_lost_race_for_a_lease_watches_the_winner() {
    let mut machine = machine();
    machine.handle_event(at(0), seen(0, OwnerView::Nobody));
    assert_eq!(machine.poll_action(at(0)), Some(LeaseAction::Acquire { seen: LifeSign::counter(0) }));
    machine.handle_event(at(10), LeaseEvent::Refused(Some(view(1, OwnerView::Other))));
    machine.handle_event(at(10), LeaseEvent::Wanted(true));
    assert_eq!(machine.poll_timeout(), Some(at(10_010)));
}

mod race {
    use super::*;
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    /// Two workers on one lease. Each has a monotonic clock of its own origin; writes take time to arrive and to be
    /// answered, answers get lost, and a worker may be paused at any moment.
    struct World {
        time: u64,
        counter: u64,
        owner: Option<usize>,
        workers: [Worker; 2],
    }

    struct Worker {
        machine: LeaseMachine,
        lease: Duration,
        origin: u64,
        paused_until: u64,
        write: Option<Write>,
    }

    /// A write under way.
    #[derive(Clone, Copy)]
    struct Write {
        sent: u64,
        arrives: u64,
        answered: u64,
        action: LeaseAction,
        /// Once it arrived.
        result: Option<Result<u64, LeaseView>>,
    }

    impl World {
        fn mono(&self, who: usize) -> Mono {
            Mono::from_millis(self.time + self.workers[who].origin)
        }

        fn view(&self, who: usize) -> LeaseView {
            let owner = match self.owner {
                None => OwnerView::Nobody,
                Some(owner) if owner == who => OwnerView::Me,
                Some(_) => OwnerView::Other,
            };
            LeaseView {
                sign: LifeSign::counter(self.counter),
                acquisition: None,
                owner,
                lease: self.owner.map(|owner| self.workers[owner].lease),
            }
        }

        fn arrive(&mut self, who: usize) {
            let view = self.view(who);
            let Some(Write { arrives, action, result: result @ None, .. }) = &mut self.workers[who].write
            else {
                return;
            };
            if *arrives > self.time {
                return;
            }
            let (expected, owner) = match *action {
                LeaseAction::Acquire { seen } => (seen.counter, Some(who)),
                LeaseAction::Renew { counter } => (counter, self.owner),
                LeaseAction::Release { counter } => (counter, None),
                LeaseAction::Lost => unreachable!(),
            };
            if expected == self.counter {
                self.counter += 1;
                self.owner = owner;
                *result = Some(Ok(self.counter));
            } else {
                *result = Some(Err(view));
            }
        }

        fn step(&mut self, who: usize, delay: u64, lose: bool) {
            self.arrive(who);
            if self.workers[who].paused_until > self.time {
                return;
            }
            let (now, view) = (self.mono(who), self.view(who));
            let origin = self.workers[who].origin;
            let worker = &mut self.workers[who];
            if let Some(Write { sent, answered, result, .. }) = worker.write
                && answered <= self.time
            {
                worker.write = None;
                let sent = Mono::from_millis(sent + origin);
                worker.machine.handle_event(
                    now,
                    match result {
                        Some(Ok(counter)) if !lose => LeaseEvent::Written { sent, counter },
                        Some(Err(view)) if !lose => LeaseEvent::Refused(Some(view)),
                        _ => LeaseEvent::Unknown { sent },
                    },
                );
            }
            worker.machine.handle_event(now, LeaseEvent::Wanted(true));
            worker.machine.handle_event(now, LeaseEvent::Observed(view));
            while let Some(action) = worker.machine.poll_action(now) {
                if action != LeaseAction::Lost {
                    // A write arrives before its caller stops waiting: the store's clients bound every call.
                    let (sent, arrives, answered) = (self.time, self.time + delay, self.time + 2 * delay);
                    worker.write = Some(Write { sent, arrives, answered, action, result: None });
                }
            }
        }
    }

    type Step = (usize, u64, u64, bool, Option<u64>);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let pause = prop::option::weighted(0.03, 1_000u64..40_000);
        prop::collection::vec((0usize..2, 1u64..700, 0u64..900, any::<bool>(), pause), 50..400)
    }

    /// The lease times of both workers, in milliseconds, and the origins of their clocks.
    type Setting = [(u64, u64); 2];

    fn settings() -> impl Strategy<Value = Setting> {
        let lease = prop::sample::select(vec![2_000, 2_000, 3_000, 8_000]);
        prop::array::uniform2((lease, 0u64..1_000_000))
    }

    /// Runs the steps and returns how often the worker that may start something changed.
    fn run(setting: Setting, steps: Vec<Step>) -> Result<usize, TestCaseError> {
        let workers = setting.map(|(lease, origin)| {
            let lease = Duration::from_millis(lease);
            let machine = LeaseMachine::new(LeaseTimes::new(lease));
            Worker { machine, lease, origin, paused_until: 0, write: None }
        });
        let mut world = World { time: 0, counter: 0, owner: None, workers };
        let (mut holder, mut changes) = (None, 0);
        for (who, advance, delay, lose, pause) in steps {
            world.time += advance;
            world.arrive(0);
            world.arrive(1);
            if let Some(pause) = pause {
                world.workers[who].paused_until = world.time + pause;
            }
            world.step(who, delay, lose);
            let valid = [0, 1]
                .map(|w| world.workers[w].machine.valid_until().is_some_and(|until| world.mono(w) < until));
            prop_assert!(valid != [true, true], "both may start at {}", world.time);
            if let Some(now) = valid.iter().position(|v| *v)
                && holder != Some(now)
            {
                holder = Some(now);
                changes += 1;
            }
        }
        Ok(changes)
    }

    #[test]
    fn i10_two_workers_never_both_may_start_something_whatever_their_lease_times() {
        let mut runner = TestRunner::new(ProptestConfig::with_cases(400));
        let changes = Cell::new(0);
        runner
            .run(&(settings(), steps()), |(setting, steps)| {
                changes.set(changes.get() + run(setting, steps)?);
                Ok(())
            })
            .unwrap();
        assert!(
            changes.get() > 400,
            "the lease changed hands often enough to prove something: {}",
            changes.get()
        );
    }
}
