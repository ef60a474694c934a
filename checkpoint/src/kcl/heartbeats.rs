//! What workers of this library write of themselves.

use super::leases::Leases;
use super::row::{self, COUNTER};
use super::workers::{attribute, written};
use crate::table::Lane;
use crate::table::attributes::Update;
use crate::table::error::Failure;
use crate::{WorkerId, WorkerReport};

impl Leases {
    /// Says that a worker lives, and returns its heartbeat since: 0 before the first lease, when there is no place for it.
    pub(super) async fn heartbeat(&self, report: &WorkerReport) -> Result<u64, Failure> {
        self.companions.publish(&report.id).await?;
        let Some(name) = self.first_row() else { return Ok(0) };
        let beat = self.known().workers.next_beat();
        let attribute = attribute(&report.id);
        let update = Update::default().if_present(COUNTER).set(&attribute, written(report, beat));
        // A row that is gone is replaced by the next listing's first one.
        self.table.update(Lane::Heartbeats, row::key(&name), &update, self.table.deadline()).await?;
        Ok(beat)
    }

    /// Removes what a worker has said, up to the heartbeat `seen`: a later life under its name goes on.
    pub(super) async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), Failure> {
        self.companions.withdraw(worker).await?;
        let mut names = self.known().workers.forget(worker);
        names.extend(self.first_row());
        let attribute = attribute(worker);
        let update = Update::default().if_entry_at_most(&attribute, "heartbeat", seen).remove(&attribute);
        for name in names {
            self.table.update(Lane::Heartbeats, row::key(&name), &update, self.table.deadline()).await?;
        }
        Ok(())
    }
}
