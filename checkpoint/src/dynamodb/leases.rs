//! The writes to leases, each conditional on the lease as it was seen.

use std::collections::HashSet;

use shardmill_engine::{LeaseKey, Position, ShardId};
use tokio::time::Instant;

use super::application::{Application, Kept};
use super::names;
use super::order::order;
use super::row::{self, Row, set_process};
use crate::table::Answer;
use crate::table::attributes::{Item, Reader, Update, number, text, texts};
use crate::table::batch::{each, in_turn};
use crate::table::error::{Failure, Reach};
use crate::{Checkpoint, Claim, NewLease, Ownership, Renewal, WorkerId, Write};

const TRIES: u32 = 8;
/// What an acquisition sets and the end of one removes.
const OF_ACQUISITION: [&str; 6] =
    ["token", "ownerEpoch", "leaseMillis", "processHost", "processId", "processStarted"];

impl Application {
    pub(super) async fn create(&self, leases: &[NewLease]) -> Result<usize, Failure> {
        self.enter(leases).await?;
        let mut seen = HashSet::new();
        let new: Vec<_> = leases.iter().filter(|new| seen.insert(&new.key)).collect();
        if new.is_empty() {
            return Ok(0);
        }
        let debt = self.debt();
        let answers = in_turn(new.into_iter().map(|new| self.create_one(new)).collect()).await;
        let mut created = 0;
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(Answer::Done(item)) => {
                    created += 1;
                    self.keep(&Kept::of(&item));
                }
                Ok(Answer::Refused { item, unsure }) => {
                    // An attempt whose answer was lost has created it, as far as can be known.
                    created += usize::from(unsure);
                    item.iter().for_each(|item| self.keep(&Kept::of(item)));
                }
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        if created > 0 {
            self.pay(debt).await;
        } else if failed.is_none() {
            debt.forgive();
        }
        failed.map_or(Ok(created), Err)
    }

    /// Each has its own time: a stream of thousands of shards is created once.
    async fn create_one(&self, new: &NewLease) -> Result<Answer, Failure> {
        self.update(&new.key, row::create(new), self.table.deadline()).await
    }

    pub(super) async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, Failure> {
        let life = self.life(&claim.owner).await?;
        // A counter never goes back: one that is higher here than there is refused without a call.
        let is_hint = |kept: &&Kept| matches!(kept, Kept::Readable(row) if row.lease.counter >= seen);
        let hint = self.known().leases.get(key).filter(is_hint).cloned();
        let mut kept = match hint {
            Some(kept) => Some(kept),
            None => self.table.get(&self.name, &names::lease(key)).await?.as_ref().map(Kept::of),
        };
        for _ in 0..TRIES {
            let Some(Kept::Readable(row)) = kept else {
                kept.iter().for_each(|kept| self.keep(kept));
                return Ok(Write::Refused { current: None });
            };
            if row.lease.counter != seen || !self.evict(&row, claim).await? {
                return Ok(self.refused(Kept::Readable(row)).await);
            }
            let debt = self.debt();
            match self.update(key, take(&row, life.epoch, claim), self.table.deadline()).await? {
                Answer::Done(item) => return Ok(self.acquired(&item, claim, life.epoch, debt).await),
                Answer::Refused { item, .. } => {
                    // The token is fresh: what has it was written by this very call.
                    if let Some(item) = item.as_ref().filter(|item| token(item) == Some(&claim.token)) {
                        return Ok(self.acquired(item, claim, life.epoch, debt).await);
                    }
                    debt.forgive();
                    kept = item.as_ref().map(Kept::of);
                }
            }
        }
        Err(Failure::new(Reach::Item, format!("the lease {key} changes its owner again and again")))
    }

    async fn acquired(
        &self,
        item: &Item,
        claim: &Claim,
        epoch: u64,
        debt: super::application::Debt<'_>,
    ) -> Write {
        let kept = Kept::of(item);
        self.keep(&kept);
        self.pay(debt).await;
        // A worker that was evicted meanwhile has acquired it in a life that is over.
        if self.known().lives.get(&claim.owner).is_none_or(|life| life.epoch != epoch) {
            return self.refused(kept).await;
        }
        match kept {
            Kept::Readable(row) => Write::Done { counter: row.lease.counter },
            Kept::Unreadable { .. } => Write::Refused { current: None },
        }
    }

    pub(super) async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, Failure> {
        let (until, debt) = (self.table.deadline(), self.debt());
        let calls = renewals.iter().map(|Renewal { key, counter }| self.write(key, renewal(*counter), until));
        let writes = in_turn(calls.collect()).await;
        if writes.iter().all(|write| matches!(write, Ok(Write::Refused { .. }))) {
            debt.forgive();
        } else {
            self.pay(debt).await;
        }
        each(writes)
    }

    pub(super) async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, Failure> {
        let (until, debt) = (self.table.deadline(), self.debt());
        let calls =
            checkpoints.iter().map(|checkpoint| self.write(&checkpoint.key, advance(checkpoint), until));
        let writes = in_turn(calls.collect()).await;
        // Other workers wait for the end of a shard; how far it is before that, they need not know.
        let ended = |(checkpoint, write): (&Checkpoint, &Result<Write, Failure>)| {
            checkpoint.position == Position::ShardEnd && !matches!(write, Ok(Write::Refused { .. }))
        };
        if checkpoints.iter().zip(&writes).any(ended) {
            self.pay(debt).await;
        } else {
            debt.forgive();
        }
        each(writes)
    }

    pub(super) async fn assign(
        &self,
        key: &LeaseKey,
        seen: &Ownership,
        to: &WorkerId,
    ) -> Result<Write, Failure> {
        let name = |worker: &WorkerId| text(worker.as_str());
        let assign = Update::default()
            .if_equal("counter", number(seen.counter))
            .if_equal_or_absent("owner", seen.owner.as_ref().map(name))
            .if_equal_or_absent("checkpointOwner", seen.checkpoint_owner.as_ref().map(name))
            .set("counter", number(seen.counter.saturating_add(1)))
            .set("owner", name(to))
            .remove("checkpointOwner")
            .remove_all(&OF_ACQUISITION);
        let before = seen.checkpoint_owner.as_ref().or(seen.owner.as_ref());
        let switches = before.is_some_and(|before| before != to);
        self.tell(key, if switches { assign.increment("ownerSwitches") } else { assign }).await
    }

    pub(super) async fn hand_off(
        &self,
        key: &LeaseKey,
        from: &WorkerId,
        to: &WorkerId,
    ) -> Result<Write, Failure> {
        let hand_off = Update::default()
            .if_equal("owner", text(from.as_str()))
            .if_absent("checkpointOwner")
            .set("owner", text(to.as_str()))
            .set("checkpointOwner", text(from.as_str()));
        self.tell(key, hand_off).await
    }

    pub(super) async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, Failure> {
        let children = texts(children.iter().map(ShardId::as_str));
        self.tell(key, Update::default().if_present("counter").set("children", children)).await
    }

    pub(super) async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, Failure> {
        let release = Update::default()
            .if_equal("counter", number(counter))
            .set("counter", number(counter.saturating_add(1)))
            .remove_all(&["owner", "checkpointOwner"])
            .remove_all(&OF_ACQUISITION);
        self.tell(key, release).await
    }

    pub(super) async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, Failure> {
        let condition = Update::default()
            .if_equal("counter", number(counter))
            .if_equal("checkpoint", text("SHARD_END"))
            .if_absent("checkpointOwner");
        let debt = self.debt();
        match self.table.delete(&self.name, &names::lease(key), &condition).await? {
            Answer::Done(_) => {
                self.known().leases.remove(key);
                self.pay(debt).await;
                Ok(Write::Done { counter })
            }
            refusal => {
                debt.forgive();
                self.settled(key, refusal).await
            }
        }
    }

    pub(super) async fn delete(&self, key: &LeaseKey) -> Result<(), Failure> {
        let debt = self.debt();
        self.table.delete(&self.name, &names::lease(key), &Update::default()).await?;
        self.known().leases.remove(key);
        self.pay(debt).await;
        Ok(())
    }

    async fn update(&self, key: &LeaseKey, update: Update, until: Instant) -> Result<Answer, Failure> {
        self.table.update(&self.name, &names::lease(key), update, until).await
    }

    async fn write(&self, key: &LeaseKey, update: Update, until: Instant) -> Result<Write, Failure> {
        let answer = self.update(key, update, until).await?;
        self.settled(key, answer).await
    }

    /// A write that the other workers must see at once.
    async fn tell(&self, key: &LeaseKey, update: Update) -> Result<Write, Failure> {
        let debt = self.debt();
        let write = self.write(key, update, self.table.deadline()).await?;
        match write {
            Write::Refused { .. } => debt.forgive(),
            _ => self.pay(debt).await,
        }
        Ok(write)
    }

    async fn settled(&self, key: &LeaseKey, answer: Answer) -> Result<Write, Failure> {
        match answer {
            Answer::Done(item) => {
                let counter = Reader(&item).required_number("counter");
                self.keep(&Kept::of(&item));
                // Whoever spoilt it did so while it was written.
                Ok(counter.map_or(Write::Refused { current: None }, |counter| Write::Done { counter }))
            }
            Answer::Refused { item: Some(_), unsure: true } => {
                let reason = format!(
                    "a write to the lease {key} was refused after an attempt without an answer, which may have been it"
                );
                Err(Failure::new(Reach::Item, reason))
            }
            Answer::Refused { item: Some(item), .. } => Ok(self.refused(Kept::of(&item)).await),
            Answer::Refused { item: None, .. } => {
                self.known().leases.remove(key);
                Ok(Write::Refused { current: None })
            }
        }
    }

    /// A refusal that shows the lease as it is.
    async fn refused(&self, kept: Kept) -> Write {
        self.keep(&kept);
        let Kept::Readable(row) = kept else { return Write::Refused { current: None } };
        let is_unknown = row.lease.holder().is_some_and(|holder| self.known().workers.get(holder).is_none());
        if is_unknown && self.known().looked.is_none() {
            // Without its heartbeat the lease looks changed to the caller, which only waits for longer then.
            drop(self.look_at_workers().await);
        }
        Write::Refused { current: Some(Box::new(self.known().lease(&row))) }
    }
}

fn token(item: &Item) -> Option<&str> {
    Reader(item).text("token").ok().flatten()
}

/// Makes the claim's worker the owner of a lease that is as it was seen.
fn take(row: &Row, epoch: u64, claim: &Claim) -> Update {
    let Row { lease, owner_epoch } = row;
    let name = |worker: &WorkerId| text(worker.as_str());
    let millis = claim.lease_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let take = Update::default()
        .if_equal("counter", number(lease.counter))
        .if_equal_or_absent("owner", lease.owner.as_ref().map(name))
        .if_equal_or_absent("checkpointOwner", lease.checkpoint_owner.as_ref().map(name))
        .if_equal_or_absent("ownerEpoch", (*owner_epoch > 0).then(|| number(owner_epoch)))
        .set("counter", number(lease.counter.saturating_add(1)))
        .set("owner", name(&claim.owner))
        .set("ownerEpoch", number(epoch))
        .set("token", text(&claim.token))
        .set_or_remove("leaseMillis", millis.map(number))
        .remove("checkpointOwner");
    let take = set_process(take, claim.process.as_ref());
    // During a handoff the old owner is still the one that works.
    let before = lease.checkpoint_owner.as_ref().or(lease.owner.as_ref());
    if before.is_some_and(|before| *before != claim.owner) { take.increment("ownerSwitches") } else { take }
}

fn renewal(counter: u64) -> Update {
    Update::default().if_equal("counter", number(counter)).set("counter", number(counter.saturating_add(1)))
}

/// Moves a checkpoint forward, which the service itself compares (I2).
fn advance(checkpoint: &Checkpoint) -> Update {
    let Checkpoint { counter, position, app, .. } = checkpoint;
    let advance = Update::default()
        .if_equal("counter", number(counter))
        .if_at_most_or_absent("checkpointOrder", text(order(position)))
        .set("counter", number(counter.saturating_add(1)))
        .set("ownerSwitches", number(0));
    let advance = row::set_position(advance, position);
    if app.is_empty() {
        return advance;
    }
    app.iter()
        .fold(advance.if_map("app"), |advance, (name, value)| advance.set_entry("app", name, text(value)))
}
