//! Which positions a mapping resumes from: its own, those that it stored under its name before it had a UUID, or none,
//! while the store has some of the stream under another name (ADR 0026).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shardmill::StreamSource;
use shardmill::checkpoint::{Lease, LeaseList, LeaseStore, NewLease, OtherApplication, StoreError};
use shardmill::engine::{EventSourceMapping, LeaseKey, ShardId};
use tokio::time::Instant;

use crate::assembly::Parts;

/// How often a store that does not answer, or a worker that still uses the positions, is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is needed to find a mapping's positions.
#[derive(Clone)]
pub struct Positions {
    mapping: EventSourceMapping,
    store: Arc<dyn LeaseStore>,
    /// Under the application's name, where a UUID is the identity.
    named: Option<Arc<dyn LeaseStore>>,
    source: Arc<dyn StreamSource>,
    /// Identities of the process's mappings: their positions are theirs.
    taken: Arc<BTreeSet<String>>,
}

impl std::fmt::Debug for Positions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Positions").field("identity", &self.mapping.identity()).finish_non_exhaustive()
    }
}

/// What a store holds for a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Positions of its own, for so many shards.
    Own(usize),
    /// None of its own, but so many under its name, from before it had a UUID: they are taken over.
    Named(usize),
    /// None, but others have positions of the stream.
    Others(Vec<OtherApplication>),
    /// None at all.
    Nothing,
}

impl Positions {
    /// The positions of these parts; `taken` are the identities of all mappings of the process.
    #[must_use]
    pub fn new(parts: &Parts, taken: &Arc<BTreeSet<String>>) -> Self {
        Self {
            mapping: parts.config.mapping.clone(),
            store: Arc::clone(&parts.store),
            named: parts.named_store.clone(),
            source: Arc::clone(&parts.source.0),
            taken: Arc::clone(taken),
        }
    }

    /// Reads only, and changes nothing.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn find(&self) -> Result<Found, StoreError> {
        let own = self.of_stream(&*self.store).await?;
        // A row that cannot be read is a position, too: its shard waits, and no other (incident 96).
        let own = own.leases.len() + own.unreadable.len();
        if own > 0 {
            return Ok(Found::Own(own));
        }
        let name = self.mapping.application_name();
        if let Some(named) = self.named.as_ref().filter(|_| !self.taken.contains(name)) {
            let named = self.of_stream(&**named).await?;
            let named = named.leases.len() + named.unreadable.len();
            if named > 0 {
                return Ok(Found::Named(named));
            }
        }
        let mut others = self.store.others(&self.stream()).await?;
        others.retain(|other| !self.taken.contains(&other.name));
        if !others.is_empty() {
            // A stream that was made anew under its name has no positions yet. Where the service does not say which it
            // is, all count.
            if let Ok(Some(summary)) = self.source.summary().await {
                others.retain(|other| other.epoch == summary.epoch);
            }
        }
        Ok(if others.is_empty() { Found::Nothing } else { Found::Others(others) })
    }

    /// Before the mapping runs: takes its earlier positions over, or warns of those under another name. Waits until the
    /// store answers, and until no worker uses the earlier positions any more.
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn settle(&self, lease: Duration) -> Result<(), StoreError> {
        let mut failed = false;
        loop {
            match self.try_settle(lease).await {
                Err(error) if error.is_retryable() => {
                    if !failed {
                        let mapping = self.mapping.application_name();
                        tracing::warn!(mapping, %error, "cannot look for the mapping's positions; trying again until it succeeds");
                    }
                    failed = true;
                    tokio::time::sleep(AGAIN).await;
                }
                result => return result,
            }
        }
    }

    async fn try_settle(&self, lease: Duration) -> Result<(), StoreError> {
        let mapping = self.mapping.application_name();
        let found = self.find().await?;
        match (&found, &self.named) {
            (Found::Named(_), Some(named)) => {
                let leases = self.quiet(&**named, lease).await?;
                let copied = self.store.create(&leases.iter().map(copy).collect::<Vec<_>>()).await?;
                tracing::info!(
                    mapping,
                    uuid = self.mapping.identity(),
                    shards = copied,
                    "took over the positions that were stored under the mapping's name before its UUID was its identity"
                );
            }
            (Found::Others(_), _) => {
                if let Some(text) = found.describe(&self.mapping) {
                    tracing::warn!(mapping, "{text}");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The leases under the mapping's name, once no worker uses them: no owner, or none that renewed for a lease time.
    async fn quiet(&self, named: &dyn LeaseStore, lease: Duration) -> Result<Vec<Lease>, StoreError> {
        let counters = |leases: &[Lease]| -> Vec<(LeaseKey, u64)> {
            leases.iter().map(|lease| (lease.key.clone(), lease.counter)).collect()
        };
        let mut leases = self.whole(named).await?;
        let (mut since, mut said) = (Instant::now(), false);
        // Their owners may run with a lease time of their own, which they have written down.
        let longest =
            |leases: &[Lease]| leases.iter().filter_map(|l| l.lease_time).fold(lease, Duration::max);
        while since.elapsed() < longest(&leases) {
            let Some(owner) = leases.iter().find_map(|l| l.owner.as_ref().or(l.checkpoint_owner.as_ref()))
            else {
                break;
            };
            let owner = owner.clone();
            tokio::time::sleep(AGAIN.min(lease / 2)).await;
            let now = self.whole(named).await?;
            if counters(&now) != counters(&leases) {
                since = Instant::now();
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        mapping = self.mapping.application_name(),
                        worker = %owner,
                        "a worker still uses the positions under this mapping's name, from before it had a UUID: \
                         waiting until it stops; to begin at StartingPosition instead, write another Name"
                    );
                }
            }
            leases = now;
        }
        Ok(leases)
    }

    /// The positions to take over: all of them, or the shard that is left out would start over.
    async fn whole(&self, named: &dyn LeaseStore) -> Result<Vec<Lease>, StoreError> {
        let LeaseList { leases, unreadable, .. } = self.of_stream(named).await?;
        match unreadable.into_iter().next() {
            None => Ok(leases),
            Some(lease) => {
                Err(StoreError::Unavailable { store: named.describe(), reason: lease.reason, source: None })
            }
        }
    }

    async fn of_stream(&self, store: &dyn LeaseStore) -> Result<LeaseList, StoreError> {
        let stream = self.stream();
        let is_of_stream = |key: &LeaseKey| {
            (&key.account, &key.region, &key.stream) == (&stream.account, &stream.region, &stream.stream)
        };
        let mut list = store.list_readable().await?;
        list.leases.retain(|lease| is_of_stream(&lease.key));
        list.leases.sort_by(|one, other| one.key.cmp(&other.key));
        list.unreadable.retain(|lease| is_of_stream(&lease.key));
        Ok(list)
    }

    fn stream(&self) -> LeaseKey {
        let source = self.mapping.event_source();
        LeaseKey {
            account: source.arn.account().into(),
            region: source.arn.region().into(),
            stream: source.stream.as_str().into(),
            epoch: "".into(),
            shard: ShardId::new(""),
        }
    }
}

/// The position of a lease and what belongs to it, free to take.
fn copy(lease: &Lease) -> NewLease {
    NewLease {
        key: lease.key.clone(),
        checkpoint: lease.checkpoint.clone(),
        parents: lease.parents.clone(),
        hash_range: lease.hash_range,
        app: lease.app.clone(),
    }
}

impl Found {
    /// What the operator should know before it runs; `None` if nothing.
    #[must_use]
    pub fn describe(&self, mapping: &EventSourceMapping) -> Option<String> {
        match self {
            Self::Own(_) | Self::Nothing => None,
            Self::Named(shards) => Some(format!(
                "the positions of {shards} shards under the name {} are taken over, because the UUID {} has none yet",
                mapping.application_name(),
                mapping.identity()
            )),
            Self::Others(others) => {
                let one =
                    |other: &OtherApplication| format!("Name: {:?} ({} shards)", other.name, other.leases);
                let names: Vec<String> = others.iter().map(one).collect();
                // Next to a UUID a name is only a label, once the UUID has positions.
                let place = if mapping.identity() == mapping.application_name() {
                    ""
                } else {
                    " in place of the UUID"
                };
                Some(format!(
                    "this mapping has no positions of the stream yet and begins at StartingPosition, but the store has some under \
                     another name; to resume from them, write {}{place}",
                    names.join(" or ")
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests;
