//! What each write does to a lease, as pure functions: every store that can hold a lock while it thinks uses them, so
//! that all of them agree. Each returns whether the write is accepted, and changes nothing if it is not.

use shardmill_engine::{Position, Seq};

use crate::{Checkpoint, Claim, Lease, Ownership, WorkerId};

pub(crate) fn acquire(lease: &mut Lease, seen: u64, claim: &Claim) -> bool {
    if lease.counter != seen {
        return false;
    }
    pass_to(lease, &claim.owner);
    lease.token = Some(claim.token.clone());
    lease.process.clone_from(&claim.process);
    lease.lease_time = claim.lease_time;
    true
}

pub(crate) fn renew(lease: &mut Lease, counter: u64) -> bool {
    if lease.counter != counter {
        return false;
    }
    lease.counter = lease.counter.saturating_add(1);
    true
}

/// Leaves `app` to the caller where the store holds more of it than a [`Lease`] shows.
pub(crate) fn checkpoint(lease: &mut Lease, write: &Checkpoint) -> bool {
    if lease.counter != write.counter || !lease.checkpoint.may_advance_to(&write.position) {
        return false;
    }
    lease.counter = lease.counter.saturating_add(1);
    lease.checkpoint = write.position.clone();
    lease.owner_switches = 0;
    lease.app.extend(write.app.iter().map(|(name, value)| (name.clone(), value.clone())));
    true
}

pub(crate) fn assign(lease: &mut Lease, seen: &Ownership, to: &WorkerId) -> bool {
    let Ownership { counter, owner, checkpoint_owner } = seen;
    if lease.counter != *counter || lease.owner != *owner || lease.checkpoint_owner != *checkpoint_owner {
        return false;
    }
    pass_to(lease, to);
    // Not a run yet: the new owner has not started, and the old owner's death must not free the lease.
    lease.token = None;
    lease.process = None;
    lease.lease_time = None;
    true
}

pub(crate) fn hand_off(lease: &mut Lease, from: &WorkerId, to: &WorkerId) -> bool {
    if lease.owner.as_ref() != Some(from) || lease.checkpoint_owner.is_some() {
        return false;
    }
    lease.checkpoint_owner = lease.owner.replace(to.clone());
    true
}

pub(crate) fn release(lease: &mut Lease, counter: u64) -> bool {
    if lease.counter != counter {
        return false;
    }
    lease.counter = lease.counter.saturating_add(1);
    lease.owner = None;
    lease.checkpoint_owner = None;
    lease.token = None;
    lease.process = None;
    lease.lease_time = None;
    true
}

/// Whether a finished lease may be removed.
pub(crate) fn may_delete_ended(lease: &Lease, counter: u64) -> bool {
    let has_ended = lease.checkpoint == Position::ShardEnd && lease.checkpoint_owner.is_none();
    has_ended && lease.counter == counter
}

fn pass_to(lease: &mut Lease, to: &WorkerId) {
    // During a handoff the old owner is still the one that works.
    let before = lease.checkpoint_owner.take().or_else(|| lease.owner.take());
    if before.is_some_and(|worker| worker != *to) {
        lease.owner_switches = lease.owner_switches.saturating_add(1);
    }
    lease.owner = Some(to.clone());
    lease.counter = lease.counter.saturating_add(1);
}

/// Whether every position may be stored. The error has the reason.
pub(crate) fn check_positions<'a>(positions: impl IntoIterator<Item = &'a Position>) -> Result<(), String> {
    positions.into_iter().try_for_each(check_position)
}

fn check_position(position: &Position) -> Result<(), String> {
    match position {
        Position::Latest => {
            Err("LATEST is no place to read from: it must be pinned to a time first (I15)".into())
        }
        Position::At(seq) | Position::After(seq) => check_seq(seq),
        Position::TrimHorizon | Position::AtTimestamp(_) | Position::ShardEnd => Ok(()),
    }
}

fn check_seq(seq: &Seq) -> Result<(), String> {
    let number = seq.number.as_str();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("the sequence number {number:?} is not made of decimal digits"));
    }
    if i64::try_from(seq.sub).is_err() {
        return Err(format!("the sub-sequence number {} is above {}", seq.sub, i64::MAX));
    }
    Ok(())
}

pub(crate) fn check_claim(claim: &Claim) -> Result<(), String> {
    check_worker(&claim.owner)?;
    if claim.token.is_empty() {
        return Err("the acquisition's token is empty: each acquisition needs a fresh one".into());
    }
    Ok(())
}

pub(crate) fn check_worker(worker: &WorkerId) -> Result<(), String> {
    if worker.as_str().is_empty() { Err("the worker's name is empty".into()) } else { Ok(()) }
}

pub(crate) fn check_hand_off(from: &WorkerId, to: &WorkerId) -> Result<(), String> {
    check_worker(to)?;
    if from == to { Err(format!("worker {from} cannot hand a lease off to itself")) } else { Ok(()) }
}
