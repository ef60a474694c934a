//! Listing leases and workers without reading every lease each time.

use std::time::Duration;

use tokio::time::Instant;

use super::application::{Application, Kept, Known};
use super::names;
use super::workers::WorkerRow;
use crate::table::error::Failure;
use crate::{LeaseList, UnreadableLease};

/// How long the list of workers is good for.
const WORKERS: Duration = Duration::from_secs(1);
/// When a lease that could not be read is looked at again: whoever corrects it tells of nothing.
const CORRECTED: Duration = Duration::from_secs(5);
/// Leases that are read again at the interval that is set; with more of them it is longer in proportion, up to so many
/// times: a full listing is only for what nobody has told of, and costs in proportion to the leases.
const OFTEN: usize = 100;
const RARELY: u32 = 10;
/// What an owner that did not say is taken to have given as its lease time.
const LEASE: Duration = Duration::from_secs(10);

impl Application {
    /// Leases and workers. Every lease is read if another worker has changed one, if the last time was long ago, or if a
    /// worker may be dead; else only the number of changes and the workers are.
    pub(super) async fn list(&self) -> Result<LeaseList, Failure> {
        let _one = self.listing.lock().await;
        self.pay_what_is_owed().await;
        let now = Instant::now();
        let interval = self.known().full_listing_interval(self.table.full_listing_interval);
        // Read before the leases: what is written meanwhile raises it further, and is seen by the next listing.
        let changes = self.changes().await?;
        if self.known().must_look(changes, now, interval) {
            self.look_at_workers().await?;
        }
        if self.known().must_list(changes, now, interval) {
            let begun = self.known().leases.begin();
            let items = self.table.query(&self.name, names::LEASES).await?;
            let mut known = self.known();
            let kept = items.iter().map(Kept::of).map(|kept| (kept.key().clone(), kept));
            known.leases.replace(begun, kept, |_, listed| listed);
            known.changes.listed(changes);
            known.listed = Some(now);
        }
        Ok(self.known().list())
    }

    pub(super) async fn look_at_workers(&self) -> Result<(), Failure> {
        let now = Instant::now();
        let begun = self.known().workers.begin();
        let items = self.table.query(&self.name, names::WORKERS).await?;
        let rows = items.iter().filter_map(|item| WorkerRow::read(item, Instant::now()));
        let mut known = self.known();
        known
            .workers
            .replace(begun, rows.map(|row| (row.id().clone(), row)), |former, row| row.seen_after(former));
        known.looked = Some(now);
        Ok(())
    }
}

impl Known {
    fn full_listing_interval(&self, least: Duration) -> Duration {
        let times = u32::try_from(self.leases.values().count() / OFTEN).unwrap_or(RARELY);
        least * times.clamp(1, RARELY)
    }

    /// Whether the heartbeats that are kept may be old, or a worker has come or gone.
    fn must_look(&self, changes: u64, now: Instant, interval: Duration) -> bool {
        let Some(looked) = self.looked.filter(|_| self.changes.is(changes)) else { return true };
        now.saturating_duration_since(looked) >= WORKERS.min(interval)
    }

    /// Whether what is kept of the leases may not be what they are.
    fn must_list(&self, changes: u64, now: Instant, interval: Duration) -> bool {
        let Some(listed) = self.listed.filter(|_| self.changes.is(changes)) else { return true };
        let age = now.saturating_duration_since(listed);
        age >= interval
            || (age >= WORKERS && self.holder_may_be_dead(now))
            || (age >= CORRECTED && self.leases.values().any(|kept| matches!(kept, Kept::Unreadable { .. })))
    }

    /// Whether the counter of a lease may soon be what its takeover is judged by.
    fn holder_may_be_dead(&self, now: Instant) -> bool {
        self.leases.values().any(|kept| {
            let Kept::Readable(row) = kept else { return false };
            let holder = row.lease.holder().and_then(|holder| self.workers.get(holder));
            let lease = row.lease.lease_time.unwrap_or(LEASE);
            holder.is_some_and(|worker| worker.is_overdue(row.owner_epoch, lease, now))
        })
    }

    fn list(&self) -> LeaseList {
        let (mut leases, mut unreadable) = (Vec::new(), Vec::new());
        for kept in self.leases.values() {
            match kept {
                Kept::Readable(row) => leases.push(self.lease(row)),
                Kept::Unreadable { key, reason } => {
                    unreadable.push(UnreadableLease::new(key.clone(), reason));
                }
            }
        }
        let workers = self.workers.values().filter_map(WorkerRow::record).collect();
        LeaseList::new(leases, unreadable).with_workers(workers)
    }
}

#[cfg(test)]
mod tests {
    use shardmill_engine::{LeaseKey, ShardId};

    use super::super::row;
    use super::*;
    use crate::table::attributes::{Item, number, text};

    fn key() -> LeaseKey {
        let part = || "a".into();
        LeaseKey { account: part(), region: part(), stream: part(), epoch: part(), shard: ShardId::from("0") }
    }

    /// What is known after a listing at `listed` of a lease that `w` has acquired in its life 7.
    fn known(listed: Instant) -> Known {
        let mut known = Known { listed: Some(listed), looked: Some(listed), ..Known::default() };
        known.changes.listed(3);
        let item = Item::from([
            ("item".to_owned(), text(names::lease(&key()))),
            ("counter".to_owned(), number(1)),
            ("app".to_owned(), aws_sdk_dynamodb::types::AttributeValue::M(Item::new())),
            ("checkpoint".to_owned(), text("TRIM_HORIZON")),
            ("owner".to_owned(), text("w")),
            ("ownerEpoch".to_owned(), number(7)),
            ("token".to_owned(), text("t")),
            ("leaseMillis".to_owned(), number(10_000)),
        ]);
        known.leases.put(key(), Kept::Readable(Box::new(row::read(&item).unwrap())));
        beat(&mut known, 7, 1, listed);
        known
    }

    fn beat(known: &mut Known, epoch: u64, heartbeat: u64, now: Instant) {
        let item = Item::from([
            ("item".to_owned(), text("worker#w")),
            ("epoch".to_owned(), number(epoch)),
            ("heartbeat".to_owned(), number(heartbeat)),
        ]);
        let row = WorkerRow::read(&item, now).unwrap();
        let row = row.clone().seen_after(known.workers.get(row.id()));
        known.workers.put(row.id().clone(), row);
    }

    #[test]
    fn all_leases_are_read_after_a_change_or_a_minute() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut known = known(start);
        let soon = start + Duration::from_millis(500);
        assert!(!known.must_list(3, soon, minute) && !known.must_look(3, soon, minute));
        assert!(known.must_list(4, soon, minute) && known.must_look(4, soon, minute), "another's change");
        assert!(known.must_list(3, soon, Duration::ZERO) && known.must_look(3, soon, Duration::ZERO));
        let later = start + Duration::from_secs(59);
        beat(&mut known, 7, 2, later);
        assert!(!known.must_list(3, later, minute) && known.must_look(3, later, minute));
        assert!(known.must_list(3, start + minute, minute));
    }

    #[test]
    fn thousands_of_leases_are_read_again_less_often() {
        let mut known = Known::default();
        let mut minutes = Vec::new();
        for n in 0..2_000 {
            let key = key().sibling(ShardId::new(n.to_string()));
            known.leases.put(key.clone(), Kept::Unreadable { key, reason: String::new() });
            if [1, 199, 200, 1_000, 2_000].contains(&(n + 1)) {
                minutes.push(known.full_listing_interval(Duration::from_secs(60)).as_secs() / 60);
            }
        }
        assert_eq!(minutes, [1, 1, 2, 10, 10]);
        assert_eq!(known.full_listing_interval(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn all_leases_are_read_while_a_holder_may_be_dead() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut known = known(start);
        assert!(!known.must_list(3, at(5), minute), "half of its lease time");
        assert!(known.must_list(3, at(6), minute));
        beat(&mut known, 7, 2, at(6));
        assert!(!known.must_list(3, at(7), minute), "it lives");
        assert!(known.must_list(3, at(12), minute));
        beat(&mut known, 8, 2, at(12));
        assert!(!known.must_list(3, at(18), minute), "another life is none of the lease's");
    }

    #[test]
    fn i11_a_lease_has_the_heartbeat_of_its_own_life_only() {
        let mut known = known(Instant::now());
        let heartbeat = |known: &Known| known.list().leases[0].heartbeat;
        beat(&mut known, 7, 9, Instant::now());
        assert_eq!(heartbeat(&known), 9);
        let item = Item::from([
            ("item".to_owned(), text("worker#w")),
            ("epoch".to_owned(), number(8)),
            ("heartbeat".to_owned(), number(12)),
            ("endedEpoch".to_owned(), number(7)),
            ("ended".to_owned(), number(9)),
        ]);
        let row = WorkerRow::read(&item, Instant::now()).unwrap();
        known.workers.put(row.id().clone(), row);
        assert_eq!(heartbeat(&known), 9, "it stands still where that life ended");
        beat(&mut known, 11, 20, Instant::now());
        assert_eq!(heartbeat(&known), 0);
    }
}
