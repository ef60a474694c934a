//! The operations, each inside a transaction that the caller began.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use shardmill_engine::{LeaseKey, ShardId};

use super::fault::Fault;
use super::kept::Kept;
use super::row::{PositionColumns, Stored, integer, select_leases, shards_text};
use super::workers::{self, Lives};
use crate::{
    Checkpoint, Claim, Lease, LeaseList, NewLease, Ownership, Renewal, UnreadableLease, WorkerId, Write,
    rules,
};

macro_rules! this_lease {
    () => {
        " WHERE application = ?1 AND account = ?2 AND region = ?3 AND stream = ?4 AND epoch = ?5 AND shard = ?6"
    };
}

pub(super) const LIST: &str = concat!(select_leases!(), " WHERE application = ?1");

pub(super) const FIND: &str = concat!(select_leases!(), this_lease!());

const RENEW: &str = concat!("UPDATE leases SET counter = counter + 1", this_lease!(), " AND counter = ?7");

const SET_OWNERSHIP: &str = concat!(
    "UPDATE leases SET counter = ?7, lease_owner = ?8, checkpoint_owner = ?9, concurrency_token = ?10, \
     owner_host = ?11, owner_pid = ?12, owner_started = ?13, owner_switches_since_checkpoint = ?14, owner_lease_ms = ?15, \
     owner_epoch = ?16",
    this_lease!()
);

const SET_CHECKPOINT: &str = concat!(
    "UPDATE leases SET counter = ?7, owner_switches_since_checkpoint = ?8, checkpoint = ?9, \
     sub_sequence_number = ?10, at_timestamp_ms = ?11, inclusive = ?12, app = ?13",
    this_lease!()
);

const SET_CHILDREN: &str = concat!("UPDATE leases SET child_shards = ?7", this_lease!());

const DELETE: &str = concat!("DELETE FROM leases", this_lease!());

const CREATE: &str = "INSERT INTO leases (application, account, region, stream, epoch, shard, checkpoint, \
     sub_sequence_number, at_timestamp_ms, inclusive, parent_shards, starting_hash_key, ending_hash_key, app) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT DO NOTHING";

/// The leases of one application in one file.
pub(super) struct Leases<'a> {
    pub(super) connection: &'a Connection,
    pub(super) application: &'a str,
    pub(super) lives: &'a Lives,
    pub(super) kept: &'a Kept,
}

impl Leases<'_> {
    pub(super) fn list(&self) -> Result<LeaseList, Fault> {
        let lives = workers::lives(self)?;
        self.kept.list(self.connection, self.application, &lives, || self.read_all())
    }

    fn read_all(&self) -> Result<(Vec<Stored>, Vec<UnreadableLease>), Fault> {
        let mut statement = self.connection.prepare_cached(LIST)?;
        let mut rows = statement.query([self.application])?;
        let (mut leases, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            match Stored::read(row) {
                Ok(stored) => leases.push(stored),
                Err(Fault::Row(bad)) => {
                    unreadable.push(UnreadableLease { reason: bad.reason(), key: bad.key });
                }
                Err(other) => return Err(other),
            }
        }
        Ok((leases, unreadable))
    }

    pub(super) fn create(&self, leases: &[NewLease]) -> Result<usize, Fault> {
        self.kept.forget(self.application);
        let mut statement = self.connection.prepare_cached(CREATE)?;
        let mut created = 0;
        for new in leases {
            let at = PositionColumns::of(&new.checkpoint)?;
            let app = serde_json::Value::from_iter(new.app.clone()).to_string();
            created += statement.execute(params![
                self.application,
                new.key.account,
                new.key.region,
                new.key.stream,
                new.key.epoch,
                new.key.shard.as_str(),
                at.checkpoint,
                at.sub,
                at.at_timestamp_ms,
                at.inclusive,
                shards_text(&new.parents),
                new.hash_range.map(|range| range.start.to_string()),
                new.hash_range.map(|range| range.end.to_string()),
                app,
            ])?;
        }
        Ok(created)
    }

    pub(super) fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, Fault> {
        self.change_ownership(key, |stored| {
            if stored.lease.counter != seen || !workers::evict(self, stored, claim)? {
                return Ok(false);
            }
            stored.owner_epoch = Some(workers::join(self, &claim.owner)?);
            Ok(rules::acquire(&mut stored.lease, seen, claim))
        })
    }

    pub(super) fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, Fault> {
        self.change_ownership(key, |stored| Ok(rules::assign(&mut stored.lease, seen, to)))
    }

    pub(super) fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, Fault> {
        self.change_ownership(key, |stored| Ok(rules::hand_off(&mut stored.lease, from, to)))
    }

    pub(super) fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, Fault> {
        self.change_ownership(key, |stored| Ok(rules::release(&mut stored.lease, counter)))
    }

    pub(super) fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, Fault> {
        self.kept.forget(self.application);
        renewals.iter().map(|renewal| self.renew_one(renewal)).collect()
    }

    pub(super) fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, Fault> {
        checkpoints.iter().map(|checkpoint| self.checkpoint_one(checkpoint)).collect()
    }

    pub(super) fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, Fault> {
        let Some(mut stored) = self.find(key)? else { return Ok(Write::Refused { current: None }) };
        self.connection.prepare_cached(SET_CHILDREN)?.execute(params![
            self.application,
            key.account,
            key.region,
            key.stream,
            key.epoch,
            key.shard.as_str(),
            shards_text(children),
        ])?;
        stored.lease.children = children.to_vec();
        Ok(self.wrote(stored))
    }

    /// The write lock is held, so nothing comes between reading and deleting.
    pub(super) fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, Fault> {
        let Some(stored) = self.find(key)? else { return Ok(Write::Refused { current: None }) };
        if !rules::may_delete_ended(&stored.lease, counter) {
            return self.refused(stored);
        }
        self.delete(key)?;
        Ok(Write::Done { counter })
    }

    pub(super) fn delete(&self, key: &LeaseKey) -> Result<(), Fault> {
        self.kept.forget(self.application);
        self.connection.prepare_cached(DELETE)?.execute(self.key_params(key))?;
        Ok(())
    }

    /// One statement, as this is what a worker does most.
    fn renew_one(&self, renewal: &Renewal) -> Result<Write, Fault> {
        let Renewal { key, counter } = renewal;
        let changed = self.connection.prepare_cached(RENEW)?.execute(params![
            self.application,
            key.account,
            key.region,
            key.stream,
            key.epoch,
            key.shard.as_str(),
            integer(*counter, "lease counter")?,
        ])?;
        if changed == 1 {
            return Ok(Write::Done { counter: counter.saturating_add(1) });
        }
        match self.find(key)? {
            Some(stored) => self.refused(stored),
            None => Ok(Write::Refused { current: None }),
        }
    }

    fn checkpoint_one(&self, write: &Checkpoint) -> Result<Write, Fault> {
        let Some(mut stored) = self.find(&write.key)? else { return Ok(Write::Refused { current: None }) };
        if !rules::checkpoint(&mut stored.lease, write) {
            return self.refused(stored);
        }
        let at = PositionColumns::of(&stored.lease.checkpoint)?;
        let key = &write.key;
        self.connection.prepare_cached(SET_CHECKPOINT)?.execute(params![
            self.application,
            key.account,
            key.region,
            key.stream,
            key.epoch,
            key.shard.as_str(),
            integer(stored.lease.counter, "lease counter")?,
            integer(stored.lease.owner_switches, "number of owner switches")?,
            at.checkpoint,
            at.sub,
            at.at_timestamp_ms,
            at.inclusive,
            stored.app_with(&write.app),
        ])?;
        Ok(self.wrote(stored))
    }

    /// The write lock is held, so nothing comes between reading and writing.
    fn change_ownership(
        &self,
        key: &LeaseKey,
        change: impl FnOnce(&mut Stored) -> Result<bool, Fault>,
    ) -> Result<Write, Fault> {
        let Some(mut stored) = self.find(key)? else {
            return Ok(Write::Refused { current: None });
        };
        if !change(&mut stored)? {
            return self.refused(stored);
        }
        stored.owner_epoch = stored.owner_epoch.filter(|_| stored.lease.token.is_some());
        let lease = &stored.lease;
        let process = lease.process.as_ref();
        let started = process.map(|process| integer(process.started, "start time")).transpose()?;
        let millis =
            |time: Duration| integer(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), "lease time");
        let lease_ms = lease.lease_time.map(millis).transpose()?;
        self.connection.prepare_cached(SET_OWNERSHIP)?.execute(params![
            self.application,
            key.account,
            key.region,
            key.stream,
            key.epoch,
            key.shard.as_str(),
            integer(lease.counter, "lease counter")?,
            lease.owner.as_ref().map(WorkerId::as_str),
            lease.checkpoint_owner.as_ref().map(WorkerId::as_str),
            lease.token,
            process.map(|process| &process.host),
            process.map(|process| process.pid),
            started,
            integer(lease.owner_switches, "number of owner switches")?,
            lease_ms,
            stored.owner_epoch,
        ])?;
        Ok(self.wrote(stored))
    }

    fn wrote(&self, stored: Stored) -> Write {
        let counter = stored.lease.counter;
        self.kept.wrote(self.application, stored);
        Write::Done { counter }
    }

    /// The answer has the lease with its heartbeat: without it the lease would look changed to the caller.
    fn refused(&self, stored: Stored) -> Result<Write, Fault> {
        let heartbeat = workers::heartbeat_of(&workers::lives(self)?, &stored.lease, stored.owner_epoch);
        Ok(Write::Refused { current: Some(Box::new(Lease { heartbeat, ..stored.lease })) })
    }

    /// The lease; `None` if there is none, or if its row cannot be read: that fails neither the call nor what shares
    /// it.
    fn find(&self, key: &LeaseKey) -> Result<Option<Stored>, Fault> {
        let mut statement = self.connection.prepare_cached(FIND)?;
        let found = statement.query_row(self.key_params(key), |row| Ok(Stored::of(key, row))).optional()?;
        match found.transpose() {
            Err(Fault::Row(_)) => Ok(None),
            found => found,
        }
    }

    fn key_params<'k>(&'k self, key: &'k LeaseKey) -> [&'k str; 6] {
        [self.application, &key.account, &key.region, &key.stream, &key.epoch, key.shard.as_str()]
    }
}
