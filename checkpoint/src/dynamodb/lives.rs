//! Workers and their lives: one heartbeat renews all leases of a worker.
//!
//! A life of a worker has an epoch, a number that is never given out twice. A lease that is acquired has the epoch of its
//! owner's life, and is alive by that life only. A life ends when the worker is evicted, joins again under its name, or is
//! forgotten; the number at which its heartbeat stood then is kept, so that it stands still for others, too.

use tokio::time::Instant;

use super::application::Application;
use super::names;
use super::row::Row;
use super::workers::{Life, WorkerRow, beat, epoch_of, expires, heartbeat_of};
use crate::table::Answer;
use crate::table::attributes::{Item, Update, number};
use crate::table::error::{Failure, Reach};
use crate::{Claim, Heartbeat, WorkerId, WorkerReport};

const TRIES: u32 = 8;

impl Application {
    pub(super) async fn heartbeat(&self, report: &WorkerReport) -> Result<Heartbeat, Failure> {
        let mut life = self.life(&report.id).await?;
        for _ in 0..TRIES {
            match self.table.beat(&self.name, &names::worker(report.id.as_str()), beat(report, life)).await? {
                Answer::Done(item) => {
                    let heartbeat = life.heartbeat.saturating_add(1);
                    self.lives_on(&report.id, Life { heartbeat, ..life });
                    self.keep_worker(&item);
                    return Ok(Heartbeat::Written { heartbeat });
                }
                Answer::Refused { item: Some(item), .. } if epoch_of(&item) == Some(life.epoch) => {
                    // A heartbeat of our own whose answer was lost. It counts from when it was sent, which is not
                    // known any more, so it is followed by one that is (I10).
                    let Some(heartbeat) = heartbeat_of(&item) else { break };
                    life.heartbeat = heartbeat;
                    self.lives_on(&report.id, life);
                }
                Answer::Refused { item, .. } => {
                    self.life_ended(&report.id, life.epoch);
                    match item {
                        Some(item) => self.keep_worker(&item),
                        None => self.known().workers.remove(&report.id),
                    }
                    return Ok(Heartbeat::Evicted);
                }
            }
        }
        Err(Failure::new(Reach::Item, format!("the heartbeat of {} was refused again and again", report.id)))
    }

    /// The life of a worker of this process, which begins now unless it has.
    pub(super) async fn life(&self, worker: &WorkerId) -> Result<Life, Failure> {
        let goes_on = || self.known().lives.get(worker).copied();
        if let Some(life) = goes_on() {
            return Ok(life);
        }
        let _one = self.joining.lock().await;
        match goes_on() {
            Some(life) => Ok(life),
            None => self.join(worker).await,
        }
    }

    async fn join(&self, worker: &WorkerId) -> Result<Life, Failure> {
        let name = names::worker(worker.as_str());
        let mut former = self.table.get(&self.name, &name).await?.unwrap_or_default();
        for _ in 0..TRIES {
            // Drawn after the item was read, so it is above every epoch that the worker has had.
            let epoch =
                self.raise().await?.max(epoch_of(&former).map_or(0, |former| former.saturating_add(1)));
            let join = Update::default()
                .set("epoch", number(epoch))
                .set("expires", expires())
                .if_equal_or_absent("epoch", former.get("epoch").cloned());
            let join = match (epoch_of(&former), heartbeat_of(&former)) {
                (_, None) => join.set("heartbeat", number(0)),
                (Some(_), Some(_)) => {
                    join.copy("epoch", "endedEpoch").copy("heartbeat", "ended").increment("heartbeat")
                }
                // What is kept of the life that was ended by an eviction stays.
                (None, Some(_)) => join.increment("heartbeat"),
            };
            let debt = self.debt();
            let item = match self.table.beat(&self.name, &name, join).await? {
                Answer::Done(item) => item,
                Answer::Refused { item, .. } => {
                    former = item.unwrap_or_default();
                    if epoch_of(&former) != Some(epoch) {
                        debt.forgive();
                        continue;
                    }
                    former
                }
            };
            let life = Life { epoch, heartbeat: heartbeat_of(&item).unwrap_or_default() };
            self.known().lives.insert(worker.clone(), life);
            self.keep_worker(&item);
            self.pay(debt).await;
            return Ok(life);
        }
        Err(Failure::new(
            Reach::Item,
            format!("another worker joins as {worker} again and again; give each its own Id"),
        ))
    }

    /// Keeps the highest heartbeat: calls may overtake each other.
    fn lives_on(&self, worker: &WorkerId, life: Life) {
        if let Some(known) = self.known().lives.get_mut(worker)
            && known.epoch == life.epoch
        {
            known.heartbeat = known.heartbeat.max(life.heartbeat);
        }
    }

    fn life_ended(&self, worker: &WorkerId, epoch: u64) {
        let mut known = self.known();
        if known.lives.get(worker).is_some_and(|life| life.epoch == epoch) {
            known.lives.remove(worker);
        }
    }

    pub(super) fn keep_worker(&self, item: &Item) {
        let Some(row) = WorkerRow::read(item, Instant::now()) else { return };
        let mut known = self.known();
        let id = row.id().clone();
        let row = row.seen_after(known.workers.get(&id));
        known.workers.put(id, row);
    }

    pub(super) async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), Failure> {
        let debt = self.debt();
        let condition = Update::default().if_equal("heartbeat", number(seen));
        match self.table.delete(&self.name, &names::worker(worker.as_str()), &condition).await? {
            Answer::Done(_) => {
                self.known().workers.remove(worker);
                self.pay(debt).await;
            }
            Answer::Refused { item: Some(item), .. } => {
                self.keep_worker(&item);
                debt.forgive();
            }
            // An attempt whose answer was lost may have removed it.
            Answer::Refused { item: None, unsure } => {
                self.known().workers.remove(worker);
                if unsure { self.pay(debt).await } else { debt.forgive() }
            }
        }
        Ok(())
    }

    /// Ends the life in which another worker acquired the lease, unless it is over. `false` if it goes on: the worker's
    /// heartbeat is not the one that the claim has seen.
    ///
    /// All leases of that life are then free for this worker, so it costs one write for all of them.
    pub(super) async fn evict(&self, row: &Row, claim: &Claim) -> Result<bool, Failure> {
        let Some(holder) = row.lease.holder().filter(|holder| **holder != claim.owner) else {
            return Ok(true);
        };
        let epoch = row.owner_epoch;
        if self.known().over.get(holder).is_some_and(|over| *over >= epoch) {
            return Ok(true);
        }
        let evict = Update::default()
            .copy("epoch", "endedEpoch")
            .copy("heartbeat", "ended")
            .remove("epoch")
            .if_equal("epoch", number(epoch))
            .if_equal("heartbeat", number(claim.seen_heartbeat));
        match self
            .table
            .update(&self.name, &names::worker(holder.as_str()), evict, self.table.deadline())
            .await?
        {
            Answer::Done(item) => self.keep_worker(&item),
            Answer::Refused { item: Some(item), .. } => {
                self.keep_worker(&item);
                if epoch_of(&item) == Some(epoch) {
                    return Ok(false);
                }
            }
            Answer::Refused { item: None, .. } => {}
        }
        self.known().over.insert(holder.clone(), epoch);
        Ok(true)
    }
}
