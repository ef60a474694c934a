//! A lease as a row of KCL's table.
//!
//! What an acquisition of ours has added counts as long as no other program has raised the counter since: KCL leaves
//! attributes alone that it does not know.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use shardmill_engine::{HashRange, LeaseKey, ShardId};

use super::names::{self, KEY, LEASE_KEY, Layout, SHARD_ID, STREAM_NAME};
use super::position::{self, Stored, Times};
use crate::table::attributes::{Item, Reader, Update, number, text, text_set};
use crate::table::names::key_text;
use crate::table::process::{self, ProcessNames};
use crate::{Claim, Lease, NewLease, WorkerId};

pub(super) const COUNTER: &str = "leaseCounter";
pub(super) const OWNER: &str = "leaseOwner";
pub(super) const CHECKPOINT_OWNER: &str = "checkpointOwner";
pub(super) const SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(super) const CHILDREN: &str = "childShardIds";
const PARENTS: &str = "parentShardId";
const HASH_KEYS: [&str; 2] = ["startingHashKey", "endingHashKey"];
/// What KCL's last owner read. Its leader takes an absent one for the average; one that stands still would have it give a
/// worker of ours too many leases or too few.
const THROUGHPUT: &str = "throughputKBps";
pub(super) const ENTITY_TYPE: &str = "entityType";

/// The counter as this library wrote it last.
pub(super) const OWN_COUNTER: &str = "shardmillCounter";
pub(super) const APP: &str = "shardmillApp";
const APPLICATION: &str = "shardmillApplication";
const TOKEN: &str = "shardmillToken";
const LEASE_MILLIS: &str = "shardmillLeaseMillis";
const PROCESS: ProcessNames = ["shardmillProcessHost", "shardmillProcessId", "shardmillProcessStarted"];
/// What an acquisition sets and the end of one removes.
pub(super) const OF_ACQUISITION: [&str; 5] = [TOKEN, LEASE_MILLIS, PROCESS[0], PROCESS[1], PROCESS[2]];

/// The token of a lease that another program holds: it is held, and not by any acquisition of ours.
const TOKEN_OF_KCL: &str = "kcl";

/// How rows are read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) layout: Layout,
    pub(super) times: Times,
    /// How long a worker of KCL may hold a lease without renewing it.
    pub(super) failover: Duration,
    /// How long a handoff between workers of KCL may take beyond that.
    pub(super) handoff: Duration,
}

/// A lease's row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) lease: Lease,
    pub(super) stored: Stored,
    /// The application of ours that has written it.
    pub(super) application: Option<String>,
    /// No other program has held it since this library wrote it.
    pub(super) is_own: bool,
}

impl Row {
    /// The worker of another program that holds the lease: during a handoff still the old one.
    pub(super) fn foreign_holder(&self) -> Option<&WorkerId> {
        let holder = self.lease.checkpoint_owner.as_ref().or(self.lease.owner.as_ref());
        holder.filter(|_| !self.is_own)
    }
}

/// An item of the table.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Lease(Box<Row>),
    /// A lease that cannot be read, with what is wrong with it and what to do.
    Unreadable {
        key: LeaseKey,
        reason: String,
    },
    /// Something else of KCL's, or of another program's.
    NoLease,
}

impl Kept {
    pub(super) fn of(item: &Item, reading: &Reading) -> Self {
        let read = Reader(item);
        let Some(key) = reading.layout.key(read).filter(|_| is_lease(read)) else { return Self::NoLease };
        match read_row(item, key.clone(), reading) {
            Ok(row) => Self::Lease(Box::new(row)),
            Err(problem) => {
                let name = read.text(LEASE_KEY).ok().flatten().unwrap_or_default();
                let reason = format!(
                    "the item {name:?} {problem}; correct it, or delete the item, so that its shard starts again from \
                     StartingPosition"
                );
                Self::Unreadable { key, reason }
            }
        }
    }
}

/// Of KCL's own items only leases may have no type: those that a version before 3.5 has made.
fn is_lease(read: Reader<'_>) -> bool {
    read.text(ENTITY_TYPE).ok().flatten().is_none_or(|kind| kind == "LEASE")
}

fn read_row(item: &Item, key: LeaseKey, reading: &Reading) -> Result<Row, String> {
    let read = Reader(item);
    let counter = read.required_number(COUNTER)?;
    let worker = |name| Ok::<_, String>(read.text(name)?.filter(|id| !id.is_empty()).map(WorkerId::new));
    let shards =
        |name| Ok::<_, String>(read.text_set(name)?.iter().map(|id| ShardId::from(id.as_str())).collect());
    let (owner, checkpoint_owner) = (worker(OWNER)?, worker(CHECKPOINT_OWNER)?);
    let is_own = read.number(OWN_COUNTER)? == Some(counter);
    let (token, lease_time) = if is_own {
        let lease_time = read.number(LEASE_MILLIS)?.map(Duration::from_millis);
        (read.text(TOKEN)?.map(str::to_owned), lease_time)
    } else {
        let handoff = checkpoint_owner.as_ref().map_or(Duration::ZERO, |_| reading.handoff);
        let held = owner.as_ref().or(checkpoint_owner.as_ref());
        (held.map(|_| TOKEN_OF_KCL.to_owned()), held.map(|_| reading.failover + handoff))
    };
    let entry = |(name, value): (&String, &AttributeValue)| Some((name.clone(), value.as_s().ok()?.clone()));
    let lease = Lease {
        key,
        counter,
        heartbeat: 0,
        owner,
        checkpoint_owner,
        token,
        process: if is_own { process::read(read, &PROCESS)? } else { None },
        lease_time,
        checkpoint: position::read(read, reading.times)?,
        parents: shards(PARENTS)?,
        children: shards(CHILDREN)?,
        hash_range: hash_range(read)?,
        owner_switches: read.number(SWITCHES)?.unwrap_or_default(),
        app: read.map(APP)?.into_iter().flatten().filter_map(entry).collect(),
    };
    let stored = position::stored(item).ok_or("has no attribute checkpoint")?;
    Ok(Row { lease, stored, application: read.text(APPLICATION)?.map(str::to_owned), is_own })
}

/// One that is not a range of hash keys is unknown: it is only shown.
fn hash_range(read: Reader<'_>) -> Result<Option<HashRange>, String> {
    let [start, end] = HASH_KEYS.map(|name| read.text(name));
    Ok(start?.zip(end?).and_then(|(start, end)| HashRange::parse(start, end)))
}

/// Makes a new lease where no item of its name is.
pub(super) fn create(new: &NewLease, layout: &Layout, application: &str) -> Update {
    let parents = text_set(new.parents.iter().map(ShardId::as_str));
    // KCL refuses to read a row whose range is not wider than one key, and with it the whole table.
    let range = new.hash_range.filter(|range| range.start < range.end);
    let app = new.app.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let stream = layout.stream_name(&new.key);
    let update = Update::default()
        .if_absent(LEASE_KEY)
        .set(COUNTER, number(0))
        .set(OWN_COUNTER, number(0))
        .set(SWITCHES, number(0))
        .set(ENTITY_TYPE, text("LEASE"))
        .set(KEY, text(key_text(&new.key)))
        .set(APPLICATION, text(application))
        .set(APP, AttributeValue::M(app))
        .set_some(PARENTS, parents)
        .set_some(HASH_KEYS[0], range.map(|range| text(range.start.to_string())))
        .set_some(HASH_KEYS[1], range.map(|range| text(range.end.to_string())))
        .set_some(SHARD_ID, stream.as_ref().map(|_| text(new.key.shard.as_str())))
        .set_some(STREAM_NAME, stream.map(text));
    position::set(update, &new.checkpoint)
}

/// Makes the claim's worker the owner of a lease that is as it was seen.
pub(super) fn take(row: &Row, application: &str, claim: &Claim) -> Update {
    let lease = &row.lease;
    let millis = claim.lease_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let take = Update::default()
        .if_equal(COUNTER, number(lease.counter))
        .if_equal_or_absent(OWNER, lease.owner.as_ref().map(name))
        .if_equal_or_absent(CHECKPOINT_OWNER, lease.checkpoint_owner.as_ref().map(name))
        .set(COUNTER, number(lease.counter.saturating_add(1)))
        .set(OWN_COUNTER, number(lease.counter.saturating_add(1)))
        .set(OWNER, name(&claim.owner))
        .remove(CHECKPOINT_OWNER)
        .remove(THROUGHPUT)
        .set(KEY, text(key_text(&lease.key)))
        .set(APPLICATION, text(application))
        .set(TOKEN, text(&claim.token))
        .set_or_remove(LEASE_MILLIS, millis.map(number))
        .set_first(APP, AttributeValue::M(Item::new()));
    let take = position::pin(process::set(take, &PROCESS, claim.process.as_ref()), &lease.checkpoint);
    // During a handoff the old owner is still the one that works.
    let before = lease.checkpoint_owner.as_ref().or(lease.owner.as_ref());
    if before.is_some_and(|before| *before != claim.owner) { take.increment(SWITCHES) } else { take }
}

pub(super) fn token(item: &Item) -> Option<&str> {
    Reader(item).text(TOKEN).ok().flatten()
}

pub(super) fn name(worker: &WorkerId) -> AttributeValue {
    text(worker.as_str())
}

/// The partition key of an item.
pub(super) fn key(name: &str) -> Item {
    Item::from([(names::LEASE_KEY.to_owned(), text(name))])
}
