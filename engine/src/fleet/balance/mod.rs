//! Which worker gets which lease: the plan that every worker of a fleet computes for itself.

mod history;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use history::MoveHistory;

/// A live worker, as the plan sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetWorker {
    /// It gives up its leases and takes no more.
    pub stopping: bool,
    /// The most leases that it may hold; `None`: any number.
    pub maximum: Option<usize>,
}

/// A lease whose shard can be read now, as the plan sees it. Workers are named by their index in the plan's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetLease {
    /// No live worker holds it, and none was given it.
    Free,
    /// A worker holds it, and no handoff is under way.
    Held {
        /// The worker.
        by: usize,
        /// It has not moved so recently that it must not move again for balance: [`MoveHistory::is_settled`].
        settled: bool,
    },
    /// A handoff is under way, or a worker was given it and has not taken it yet.
    Moving {
        /// The worker that gets it, for which it counts.
        to: usize,
    },
}

/// What is to change; all by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovePlan {
    /// At most one for each lease.
    pub moves: Vec<LeaseMove>,
    /// Leases that are free, or held by a worker that is stopping, and that no worker may take: every worker that takes
    /// leases has its maximum.
    pub unplaced: Vec<usize>,
}

/// A lease that is to have another holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseMove {
    /// The lease.
    pub lease: usize,
    /// The worker that gives it, and the only one that carries out this move; `None`: it is free, and `to` claims it.
    pub from: Option<usize>,
    /// The worker that gets it.
    pub to: usize,
}

/// The fewest moves after which every worker has its share of the leases by count: all have the same number or one
/// less, except those whose maximum is below that.
///
/// Workers and leases must be in an order that all workers share, such as that of their ids: then all compute the same
/// plan from the same listing. Where listings differ for a while, plans do, too. That may cost a move, but gives no
/// lease two owners, as only its holder gives a lease, and claims of a free one are a compare-and-set.
///
/// Free leases and those of a worker that is stopping always move. A worker above its maximum gives what is too much if
/// another has room. Beyond that a lease moves only for balance, and only if it is settled. One that is moving never
/// does. A lease whose worker is not in the list is left alone and counts for none.
///
/// Takes `O((W + L) log W)` for `W` workers and `L` leases.
#[must_use]
pub fn plan_moves(workers: &[FleetWorker], leases: &[FleetLease]) -> MovePlan {
    let takes = |worker: usize| workers.get(worker).is_some_and(|worker| !worker.stopping);
    let mut held = vec![0_usize; workers.len()];
    let (mut offers, mut given_up) = (Vec::new(), Vec::new());
    for (lease, state) in leases.iter().enumerate() {
        match *state {
            FleetLease::Free => offers.push((lease, None)),
            FleetLease::Held { by: worker, .. } | FleetLease::Moving { to: worker } if takes(worker) => {
                held[worker] += 1;
            }
            FleetLease::Held { by, .. } if by < workers.len() => given_up.push((lease, Some(by))),
            FleetLease::Held { .. } | FleetLease::Moving { .. } => {}
        }
    }
    // If there is not room for all: first what no worker reads.
    offers.append(&mut given_up);
    let must_move = offers.len();
    let shares = shares(workers, &held, held.iter().sum::<usize>() + must_move);
    offers.extend(surplus(workers, leases, &held, &shares));

    let mut room: Vec<usize> =
        shares.iter().zip(&held).map(|(share, held)| share.saturating_sub(*held)).collect();
    let usual: Vec<Option<usize>> = offers.iter().map(|offer| usual_taker(*offer, &mut room)).collect();
    let mut takers: BinaryHeap<_> = room
        .into_iter()
        .enumerate()
        .filter(|(_, room)| *room > 0)
        .map(|(worker, room)| (room, Reverse(worker)))
        .collect();
    let mut plan = MovePlan::default();
    for (number, ((lease, from), usual)) in offers.into_iter().zip(usual).enumerate() {
        if let Some(to) = usual.or_else(|| next_taker(&mut takers)) {
            plan.moves.push(LeaseMove { lease, from, to });
        } else if number < must_move {
            plan.unplaced.push(lease);
        }
    }
    plan
}

/// The worker whose a free lease is whatever else is free, as long as it has room: while thousands of leases are taken, no
/// two listings show the same ones as free, and workers that plan by different ones still claim different leases.
fn usual_taker((lease, from): (usize, Option<usize>), room: &mut [usize]) -> Option<usize> {
    let worker = lease.checked_rem(room.len())?;
    let may_take = from.is_none() && room[worker] > 0;
    may_take.then(|| {
        room[worker] -= 1;
        worker
    })
}

/// The worker with most room, which has one less from now on.
fn next_taker(takers: &mut BinaryHeap<(usize, Reverse<usize>)>) -> Option<usize> {
    let (room, Reverse(worker)) = takers.pop()?;
    if room > 1 {
        takers.push((room - 1, Reverse(worker)));
    }
    Some(worker)
}

/// How many of `total` leases each worker is to hold, as evenly as maxima allow: 0 for one that is stopping.
///
/// Where it does not come out even, those who hold most have one more, so that the fewest leases move.
fn shares(workers: &[FleetWorker], held: &[usize], total: usize) -> Vec<usize> {
    let maximum = |worker: usize| workers[worker].maximum.unwrap_or(usize::MAX);
    let mut takers: Vec<usize> = (0..workers.len()).filter(|worker| !workers[*worker].stopping).collect();
    takers.sort_by_key(|worker| maximum(*worker));
    let mut shares = vec![0; workers.len()];
    let mut left = total;
    let mut full = 0;
    while full < takers.len() && maximum(takers[full]) <= left / (takers.len() - full) {
        shares[takers[full]] = maximum(takers[full]);
        left -= maximum(takers[full]);
        full += 1;
    }
    let equal = &mut takers[full..];
    equal.sort_by_key(|worker| (Reverse(held[*worker]), *worker));
    for (place, worker) in equal.iter().enumerate() {
        shares[*worker] = left / equal.len() + usize::from(place < left % equal.len());
    }
    shares
}

/// What workers have beyond their shares and may give: settled leases first, and others only from above a maximum.
fn surplus(
    workers: &[FleetWorker],
    leases: &[FleetLease],
    held: &[usize],
    shares: &[usize],
) -> Vec<(usize, Option<usize>)> {
    let mut beyond: Vec<usize> =
        held.iter().zip(shares).map(|(held, share)| held.saturating_sub(*share)).collect();
    let mut above_maximum: Vec<usize> = workers
        .iter()
        .zip(held)
        .map(|(worker, held)| worker.maximum.map_or(0, |maximum| held.saturating_sub(maximum)))
        .collect();
    let mut offers = Vec::new();
    for wanted in [true, false] {
        for (lease, state) in leases.iter().enumerate() {
            match *state {
                FleetLease::Held { by, settled }
                    if settled == wanted
                        && beyond.get(by).is_some_and(|beyond| *beyond > 0)
                        && (settled || above_maximum[by] > 0) =>
                {
                    beyond[by] -= 1;
                    above_maximum[by] = above_maximum[by].saturating_sub(1);
                    offers.push((lease, Some(by)));
                }
                _ => {}
            }
        }
    }
    offers
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
