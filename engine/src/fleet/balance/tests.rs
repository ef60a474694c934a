//! Each rule of the plan, and of what counts as settled, by example.

use std::collections::BTreeSet;

use super::*;
use crate::fleet::LeaseKey;

const ANY: FleetWorker = FleetWorker { stopping: false, maximum: None };
const STOPPING: FleetWorker = FleetWorker { stopping: true, maximum: None };

fn at_most(maximum: usize) -> FleetWorker {
    FleetWorker { maximum: Some(maximum), ..ANY }
}

/// So many leases, all alike.
fn leases(groups: &[(usize, FleetLease)]) -> Vec<FleetLease> {
    groups.iter().flat_map(|(count, lease)| std::iter::repeat_n(*lease, *count)).collect()
}

fn held(by: usize) -> FleetLease {
    FleetLease::Held { by, settled: true }
}

fn unsettled(by: usize) -> FleetLease {
    FleetLease::Held { by, settled: false }
}

/// How many leases go from each worker to each other one.
fn moved(plan: &MovePlan) -> Vec<(Option<usize>, usize, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for step in &plan.moves {
        *counts.entry((step.from, step.to)).or_insert(0) += 1;
    }
    counts.into_iter().map(|((from, to), count)| (from, to, count)).collect()
}

#[test]
fn a_balanced_fleet_stays_as_it_is() {
    let plan = plan_moves(&[ANY, ANY, ANY], &leases(&[(2, held(1)), (3, held(0)), (2, held(2))]));
    assert_eq!(plan, MovePlan::default());
}

#[test]
fn an_empty_fleet_and_a_stream_without_leases_need_no_moves() {
    assert_eq!(plan_moves(&[ANY], &[]), MovePlan::default());
    assert_eq!(plan_moves(&[], &[FleetLease::Free]).unplaced, [0]);
}

#[test]
fn free_leases_go_to_the_workers_with_most_room() {
    let fleet = leases(&[(3, held(0)), (1, held(1)), (3, FleetLease::Free)]);
    let plan = plan_moves(&[ANY, ANY, ANY], &fleet);
    assert_eq!(moved(&plan), [(None, 1, 1), (None, 2, 2)]);
    assert_eq!(plan.moves[2], LeaseMove { lease: 6, from: None, to: 2 }, "the first one has no room for it");
}

#[test]
fn workers_that_see_different_leases_free_claim_different_ones() {
    let fleet = |taken: &[(usize, usize)]| {
        let mut fleet = leases(&[(12, FleetLease::Free)]);
        taken.iter().for_each(|(lease, by)| fleet[*lease] = held(*by));
        let plan = plan_moves(&[ANY, ANY, ANY], &fleet);
        plan.moves.into_iter().map(|step| (step.lease, step.to)).collect::<BTreeSet<_>>()
    };
    let all = fleet(&[]);
    assert!(fleet(&[(0, 0), (3, 0), (1, 1)]).is_subset(&all));
    assert!(fleet(&[(2, 2), (5, 2), (8, 2), (11, 2), (4, 1)]).is_subset(&all));
}

#[test]
fn a_worker_that_joins_gets_its_share_and_no_other_lease_moves() {
    let plan = plan_moves(&[ANY, ANY, ANY], &leases(&[(6, held(0)), (6, held(1))]));
    assert_eq!(moved(&plan), [(Some(0), 2, 2), (Some(1), 2, 2)]);
}

#[test]
fn a_remainder_stays_with_those_who_hold_most() {
    let plan = plan_moves(&[ANY, ANY, ANY], &leases(&[(2, held(0)), (3, held(1)), (3, held(2))]));
    assert_eq!(plan, MovePlan::default());
}

#[test]
fn a_worker_that_stops_gives_all_its_leases_even_unsettled_ones() {
    let fleet = leases(&[(2, held(0)), (2, unsettled(0)), (1, held(1)), (1, held(2))]);
    let plan = plan_moves(&[STOPPING, ANY, ANY], &fleet);
    assert_eq!(moved(&plan), [(Some(0), 1, 2), (Some(0), 2, 2)]);
}

#[test]
fn a_worker_that_stops_gets_nothing() {
    let plan = plan_moves(&[STOPPING, ANY], &leases(&[(3, FleetLease::Free), (4, held(1))]));
    assert_eq!(moved(&plan), [(None, 1, 3)]);
}

#[test]
fn what_no_worker_may_take_is_unplaced_and_free_leases_come_first() {
    let fleet = leases(&[(2, held(0)), (1, FleetLease::Free), (1, held(1))]);
    let plan = plan_moves(&[STOPPING, at_most(2)], &fleet);
    assert_eq!(plan.moves, [LeaseMove { lease: 2, from: None, to: 1 }]);
    assert_eq!(plan.unplaced, [0, 1]);
}

#[test]
fn a_fleet_that_stops_as_a_whole_leaves_its_leases_unplaced() {
    let plan = plan_moves(&[STOPPING, STOPPING], &[held(0), held(1), FleetLease::Free]);
    assert!(plan.moves.is_empty());
    assert_eq!(plan.unplaced, [2, 0, 1], "in the order in which they would be placed");
}

#[test]
fn what_a_worker_may_not_hold_is_shared_by_the_others() {
    let plan = plan_moves(&[at_most(1), ANY, ANY], &leases(&[(9, FleetLease::Free)]));
    assert_eq!(moved(&plan), [(None, 0, 1), (None, 1, 4), (None, 2, 4)]);
}

#[test]
fn a_worker_above_its_maximum_gives_even_unsettled_leases_but_keeps_its_maximum() {
    let fleet = leases(&[(4, unsettled(0)), (1, held(0)), (1, held(1))]);
    let plan = plan_moves(&[at_most(3), ANY], &fleet);
    assert_eq!(moved(&plan), [(Some(0), 1, 2)]);
    assert_eq!(plan.moves[0].lease, 4, "the settled one first");
}

#[test]
fn a_worker_above_its_maximum_keeps_what_no_other_may_take() {
    let plan = plan_moves(&[at_most(1), at_most(1)], &leases(&[(2, held(0)), (1, held(1))]));
    assert_eq!(plan, MovePlan::default());
}

#[test]
fn a_lease_that_moved_recently_does_not_move_for_balance() {
    let plan = plan_moves(&[ANY, ANY], &leases(&[(3, unsettled(0)), (1, held(0))]));
    assert_eq!(plan.moves, [LeaseMove { lease: 3, from: Some(0), to: 1 }]);
}

#[test]
fn a_lease_that_is_moving_stays_and_counts_for_the_worker_that_gets_it() {
    let fleet = leases(&[(2, held(0)), (2, FleetLease::Moving { to: 1 })]);
    assert_eq!(plan_moves(&[ANY, ANY], &fleet), MovePlan::default());
    let fleet = leases(&[(4, FleetLease::Moving { to: 1 })]);
    assert_eq!(plan_moves(&[ANY, ANY], &fleet), MovePlan::default(), "even if it is one too many");
    let fleet = leases(&[(1, FleetLease::Moving { to: 0 }), (2, held(1))]);
    assert_eq!(plan_moves(&[STOPPING, ANY], &fleet), MovePlan::default(), "even to a worker that stops");
}

#[test]
fn a_lease_of_a_worker_that_is_not_listed_is_left_alone() {
    let fleet = leases(&[(2, held(7)), (2, FleetLease::Moving { to: 7 }), (1, held(0)), (1, held(1))]);
    assert_eq!(plan_moves(&[ANY, ANY], &fleet), MovePlan::default());
}

fn key(shard: &str) -> LeaseKey {
    LeaseKey {
        account: "1".into(),
        region: "r".into(),
        stream: "s".into(),
        epoch: "1".into(),
        shard: shard.into(),
    }
}

fn observe(history: &mut MoveHistory, workers: &[&str], holder: Option<&str>) -> bool {
    let workers = workers.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    history.observe(workers, [(key("0"), holder.map(String::from))]);
    history.is_settled(&key("0"))
}

#[test]
fn a_lease_that_moved_is_settled_ten_intervals_later() {
    let mut history = MoveHistory::default();
    assert!(observe(&mut history, &["a", "b"], Some("a")), "its first holder");
    assert!(!observe(&mut history, &["a", "b"], Some("b")), "it moved");
    let settled: Vec<bool> = (0..10).map(|_| observe(&mut history, &["a", "b"], Some("b"))).collect();
    assert_eq!(settled, [[false; 9].as_slice(), &[true]].concat());
}

#[test]
fn after_a_join_or_a_leave_every_lease_may_move_once_more() {
    let mut history = MoveHistory::default();
    observe(&mut history, &["a", "b"], Some("a"));
    assert!(!observe(&mut history, &["a", "b"], Some("b")));
    assert!(observe(&mut history, &["a", "b", "c"], Some("b")), "c joined");
    assert!(!observe(&mut history, &["a", "b", "c"], Some("c")));
    assert!(observe(&mut history, &["b", "c"], Some("c")), "a left");
}

#[test]
fn a_free_lease_has_moved_when_another_worker_took_it() {
    let mut history = MoveHistory::default();
    assert!(observe(&mut history, &["a", "b"], None), "it is new");
    assert!(observe(&mut history, &["a", "b"], Some("a")));
    assert!(observe(&mut history, &["a", "b"], None));
    assert!(observe(&mut history, &["a", "b"], Some("a")), "its former holder took it");
    observe(&mut history, &["a", "b"], None);
    assert!(!observe(&mut history, &["a", "b"], Some("b")));
}

#[test]
fn a_lease_that_the_listing_lacks_is_forgotten() {
    let mut history = MoveHistory::default();
    observe(&mut history, &["a", "b"], Some("a"));
    assert!(!observe(&mut history, &["a", "b"], Some("b")));
    history.observe(["a", "b"].map(String::from).into(), []);
    assert!(history.is_settled(&key("0")));
}
