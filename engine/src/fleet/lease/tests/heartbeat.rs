//! Leases that their worker's heartbeat renews, all at once.

use super::*;

fn watching() -> LeaseMachine {
    machine().renewed_by_heartbeat()
}

/// Another worker's lease, by its first acquisition.
fn alive(counter: u64, heartbeat: u64) -> LeaseView {
    LeaseView {
        sign: LifeSign { counter, heartbeat },
        acquisition: Some(1),
        ..view(counter, OwnerView::Other)
    }
}

fn acquire(counter: u64, heartbeat: u64) -> Option<LeaseAction> {
    Some(LeaseAction::Acquire { seen: LifeSign { counter, heartbeat } })
}

#[test]
fn i11_an_owner_whose_heartbeat_changes_lives_although_the_counter_stands_still() {
    let mut machine = watching();
    for (now, heartbeat) in [(0, 1), (9_000, 2), (18_000, 3), (27_000, 3)] {
        machine.handle_event(at(now), LeaseEvent::Observed(alive(7, heartbeat)));
        assert_eq!(machine.poll_action(at(now)), None);
    }
    assert_eq!(machine.poll_action(at(27_999)), None);
    assert_eq!(machine.poll_action(at(28_000)), acquire(7, 3));
}

#[test]
fn i11_a_checkpoint_that_is_seen_late_does_not_restart_the_wait_for_a_dead_owner() {
    let mut machine = watching();
    machine.handle_event(at(0), LeaseEvent::Observed(alive(7, 3)));
    machine.handle_event(at(5_500), LeaseEvent::Observed(alive(9, 3)));
    assert_eq!((machine.poll_action(at(9_999)), machine.poll_timeout()), (None, Some(at(10_000))));
    assert_eq!(machine.poll_action(at(10_000)), acquire(9, 3), "with the counter as it is now");
    // One that no listing has shown yet costs another attempt.
    machine.handle_event(at(10_010), LeaseEvent::Refused(Some(alive(10, 3))));
    assert_eq!(machine.phase(), LeasePhase::Watching);
    assert!(machine.is_free(at(10_010)));
    machine.handle_event(at(10_500), LeaseEvent::Wanted(true));
    assert_eq!(machine.poll_action(at(10_500)), acquire(10, 3));
}

#[test]
fn i11_another_acquisition_is_alive_although_its_heartbeat_is_the_same_number() {
    let mut machine = watching();
    machine.handle_event(at(0), LeaseEvent::Observed(alive(7, 3)));
    let another = LeaseView { acquisition: Some(2), ..alive(8, 3) };
    machine.handle_event(at(9_000), LeaseEvent::Observed(another));
    assert_eq!(machine.poll_action(at(18_999)), None);
    assert_eq!(machine.poll_action(at(19_000)), acquire(8, 3));
    machine.handle_event(
        at(19_010),
        LeaseEvent::Refused(Some(LeaseView { acquisition: Some(3), ..alive(9, 3) })),
    );
    assert!(!machine.is_free(at(29_009)) && machine.is_free(at(29_010)), "a third worker was faster");
}

#[test]
fn i11_a_lease_that_was_given_and_not_taken_is_judged_by_its_counter() {
    let mut machine = watching();
    let given = |counter| view(counter, OwnerView::Other);
    machine.handle_event(at(0), LeaseEvent::Observed(given(7)));
    machine.handle_event(at(9_000), LeaseEvent::Observed(given(9)));
    assert_eq!(machine.poll_action(at(18_999)), None, "it was given to yet another worker");
    assert_eq!(machine.poll_action(at(19_000)), acquire(9, 0));
}

#[test]
fn i10_a_checkpoint_does_not_prove_a_lease_that_others_judge_by_the_heartbeat() {
    let mut machine = held(0).renewed_by_heartbeat();
    assert_eq!(machine.begin_write(at(5_000)), Some(1));
    machine.handle_event(at(5_010), LeaseEvent::Written { sent: at(5_000), counter: 2 });
    assert_eq!(machine.valid_until(), Some(at(9_000)));
    assert_eq!(machine.begin_write(at(8_000)), Some(2));
    machine.handle_event(at(8_500), LeaseEvent::Unknown { sent: at(8_000) });
    let mine = LeaseView { acquisition: Some(1), ..view(3, OwnerView::Me) };
    assert_eq!(machine.poll_action(at(8_999)), None);
    machine.handle_event(at(8_999), LeaseEvent::Renewed { sent: at(2_500) });
    assert_eq!(machine.poll_action(at(9_000)), Some(LeaseAction::Renew { counter: 2 }));
    machine.handle_event(at(9_010), LeaseEvent::Refused(Some(mine)));
    assert_eq!(machine.valid_until(), Some(at(11_500)), "the write of unknown result proves nothing either");
    assert_eq!(machine.poll_action(at(11_500)), Some(LeaseAction::Lost));
}

#[test]
fn i10_a_heartbeat_renews_a_lease_which_then_writes_nothing_of_its_own() {
    let mut machine = held(0).renewed_by_heartbeat();
    assert_eq!(machine.poll_timeout(), Some(at(9_000)));
    for beat in 1..20 {
        machine.handle_event(at(beat * 2_500 + 10), LeaseEvent::Renewed { sent: at(beat * 2_500) });
        assert_eq!(machine.poll_action(at(beat * 2_500 + 10)), None);
    }
    // A late answer of an earlier heartbeat takes nothing back.
    machine.handle_event(at(47_600), LeaseEvent::Renewed { sent: at(45_000) });
    assert_eq!(machine.valid_until(), Some(at(47_500 + 9_000)));
    assert_eq!(machine.begin_write(at(47_700)), Some(1), "a checkpoint");
    machine.handle_event(at(48_000), LeaseEvent::Unknown { sent: at(47_700) });
    assert_eq!(machine.poll_action(at(48_500)), Some(LeaseAction::Renew { counter: 1 }), "it finds out");
    machine.handle_event(at(48_510), LeaseEvent::Written { sent: at(48_500), counter: 2 });
    assert_eq!(machine.poll_action(at(53_000)), None);
    machine.handle_event(at(53_000), LeaseEvent::Evicted);
    assert_eq!(machine.valid_until(), None);
    assert_eq!(machine.poll_action(at(53_000)), Some(LeaseAction::Lost));
}
