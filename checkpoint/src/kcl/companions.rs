//! What KCL keeps next to the leases: which version its workers are compatible with, who leads them, and what they say of
//! themselves.
//!
//! Since 3.5 these are items of the lease table; before, and until a migration is complete, two tables of their own.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::names::LEASE_KEY;
use super::row::{ENTITY_TYPE, key};
use crate::table::attributes::{Item, Reader, Update, number, text};
use crate::table::error::Failure;
use crate::table::{Lane, Shape, Table};
use crate::{WorkerId, WorkerRecord};

const MIGRATION: &str = "Migration3.0";
const TABLE_MIGRATION: &str = "TableMigration3.5";
const LEADER: &str = "Leader";
const WORKER_METRICS: &str = "WORKER_METRIC_STATS";
/// When the tables of their own are looked at again, and looked for where there were none.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const LOOK_FOR: Duration = Duration::from_secs(60);
/// How long KCL's leader may hold its lock without renewing it.
const LEADERSHIP: Duration = Duration::from_secs(120);
/// How often this library's workers say that they live, which KCL's do each 30 s.
const PUBLISHED: Duration = Duration::from_secs(10);
/// How long a worker of KCL lives after it has said so: its own leader gives it no lease any more then.
const LIVES: Duration = Duration::from_secs(60);

/// Where an application of KCL 3 keeps what is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    LeaseTable,
    OwnTables,
}

#[derive(Debug)]
pub(super) struct Companions {
    leases: Table,
    coordinator: Table,
    metrics: Table,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the tables of their own were looked for or at.
    looked: Option<Instant>,
    /// The items of the table of their own, where there is one.
    own: Option<Vec<Item>>,
    found: Found,
    watched: HashMap<String, Watched>,
    published: HashMap<WorkerId, Instant>,
}

/// What a look has shown.
#[derive(Clone, Debug, Default)]
struct Found {
    places: HashSet<Place>,
    is_v3: bool,
    /// Since when the leader's item, and each worker's, has been as it is.
    leader: Option<Instant>,
    workers: Vec<(WorkerId, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    hash: u64,
    since: Instant,
}

impl Companions {
    pub(super) fn new(table: &Table) -> Self {
        let own = |kind: &str, key| table.sibling(&format!("{}-{kind}", table.name), Shape::keyed(key, None));
        Self {
            leases: table.sibling(&table.name, super::SHAPE),
            coordinator: own("CoordinatorState", "key"),
            metrics: own("WorkerMetricStats", "wid"),
            state: Mutex::default(),
        }
    }

    /// Takes in a listing of the lease table, and looks at the other tables from time to time.
    pub(super) async fn look(&self, items: &[Item], now: Instant) -> Result<(), Failure> {
        if self.is_due(now) {
            let own = self.look_at_own_tables().await?;
            let mut state = self.state.lock();
            state.looked = Some(now);
            state.own = own;
        }
        let mut state = self.state.lock();
        let own = state.own.clone().unwrap_or_default();
        state.found = state.take_in(items, &own, now);
        Ok(())
    }

    fn is_due(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let pause = if state.own.is_some() { LOOK_AGAIN } else { LOOK_FOR };
        state.looked.is_none_or(|looked| now >= looked + pause)
    }

    async fn look_at_own_tables(&self) -> Result<Option<Vec<Item>>, Failure> {
        let was_there = self.state.lock().own.is_some();
        if !was_there && !self.coordinator.exists().await? {
            return Ok(None);
        }
        let mut items = self.coordinator.scan().await?;
        if self.metrics.exists().await? {
            items.extend(self.metrics.scan().await?);
        }
        Ok(Some(items))
    }

    /// Whether a leader of KCL 3 decides who gets which lease. While no leader can be seen and no worker of KCL lives,
    /// this library's workers must not starve.
    pub(super) fn is_led(&self, workers: &[WorkerRecord], now: Instant) -> bool {
        let state = self.state.lock();
        let found = &state.found;
        if !found.is_v3 {
            return false;
        }
        let is_ours = |id: &WorkerId| {
            state.published.contains_key(id)
                || workers.iter().any(|worker| worker.report.id == *id && !worker.report.foreign)
        };
        found.leader.is_some_and(|since| now < since + LEADERSHIP)
            || found.workers.iter().any(|(id, since)| !is_ours(id) && now < *since + LIVES)
    }

    /// Says in KCL's way that a worker of this library lives: a worker without it gets no lease from a leader.
    pub(super) async fn publish(&self, worker: &WorkerId) -> Result<(), Failure> {
        let places = {
            let mut state = self.state.lock();
            let now = Instant::now();
            let is_due = state.published.get(worker).is_none_or(|published| now >= *published + PUBLISHED);
            if !is_due || state.found.places.is_empty() {
                return Ok(());
            }
            state.published.insert(worker.clone(), now);
            state.found.places.clone()
        };
        for place in places {
            let (table, key) = self.metrics_of(place, worker);
            table.update(Lane::Heartbeats, key, &metrics_item(), table.deadline()).await?;
        }
        Ok(())
    }

    /// Removes what [`publish`](Self::publish) has written.
    pub(super) async fn withdraw(&self, worker: &WorkerId) -> Result<(), Failure> {
        let places = {
            let mut state = self.state.lock();
            if state.published.remove(worker).is_none() {
                return Ok(());
            }
            state.found.places.clone()
        };
        for place in places {
            let (table, key) = self.metrics_of(place, worker);
            let condition = Update::default().if_equal(ENTITY_TYPE, text(WORKER_METRICS));
            table.delete(key, &condition).await?;
        }
        Ok(())
    }

    fn metrics_of(&self, place: Place, worker: &WorkerId) -> (&Table, Item) {
        match place {
            Place::LeaseTable => (&self.leases, key(worker.as_str())),
            Place::OwnTables => (&self.metrics, Item::from([("wid".to_owned(), text(worker.as_str()))])),
        }
    }
}

impl State {
    fn take_in(&mut self, items: &[Item], own: &[Item], now: Instant) -> Found {
        let mut found = Found::default();
        let mut seen = HashSet::new();
        let (mut of_own, mut of_leases, mut is_moved) = (None, None, false);
        let here = items.iter().map(|item| (Place::LeaseTable, item));
        for (place, item) in here.chain(own.iter().map(|item| (Place::OwnTables, item))) {
            let read = Reader(item);
            let Some(name) = name_of(place, read) else { continue };
            let version = || read.text("cv").ok().flatten().unwrap_or_default().to_owned();
            match name {
                MIGRATION => {
                    found.places.insert(place);
                    *(if place == Place::LeaseTable { &mut of_leases } else { &mut of_own }) =
                        Some(version());
                }
                TABLE_MIGRATION => {
                    is_moved |=
                        read.text("tm").is_ok_and(|status| status.is_some_and(|s| s.ends_with("_COMPLETE")));
                }
                LEADER => {
                    let leader = self.watch(&mut seen, format!("{place:?} {LEADER}"), item, now);
                    found.leader = found.leader.max(Some(leader));
                }
                worker if is_metrics(place, read) => {
                    let seen = self.watch(&mut seen, format!("{place:?} worker {worker}"), item, now);
                    found.workers.push((WorkerId::new(worker), seen));
                }
                _ => {}
            }
        }
        self.watched.retain(|name, _| seen.contains(name));
        let version = if is_moved { of_leases.or(of_own) } else { of_own.or(of_leases) };
        found.is_v3 = version.is_some_and(|version| !is_v2(&version));
        found
    }

    /// Since when an item has been as it is, by this process's clock. One that is seen for the first time and has a time
    /// of its own has been for as long as that says.
    fn watch(&mut self, seen: &mut HashSet<String>, name: String, item: &Item, now: Instant) -> Instant {
        let hash = hash_of(item);
        let first = Watched { hash, since: now.checked_sub(age(Reader(item))).unwrap_or(now) };
        let watched = self.watched.entry(name.clone()).or_insert(first);
        if watched.hash != hash {
            *watched = Watched { hash, since: now };
        }
        seen.insert(name);
        watched.since
    }
}

fn name_of(place: Place, read: Reader<'_>) -> Option<&str> {
    let names: &[&str] = if place == Place::LeaseTable { &[LEASE_KEY] } else { &["key", "wid"] };
    names.iter().find_map(|name| read.text(name).ok().flatten())
}

fn is_metrics(place: Place, read: Reader<'_>) -> bool {
    match place {
        Place::LeaseTable => read.text(ENTITY_TYPE).is_ok_and(|kind| kind == Some(WORKER_METRICS)),
        Place::OwnTables => read.text("wid").is_ok_and(|id| id.is_some()),
    }
}

/// Whether workers of KCL 2 may be among them, which take leases by themselves.
fn is_v2(version: &str) -> bool {
    version.ends_with("UPGRADE_FROM_2X") || version.ends_with("_2X")
}

/// How long ago a worker said that it lives, by the wall clock; none of the clocks is trusted beyond that.
fn age(read: Reader<'_>) -> Duration {
    let updated = read.number::<u64>("lut").ok().flatten();
    updated.map_or(Duration::ZERO, |at| wall_time().saturating_sub(Duration::from_secs(at)).min(LIVES))
}

fn wall_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Of what every sign of life changes: a lock's version, a time. Maps would be shown in any order.
fn hash_of(item: &Item) -> u64 {
    let plain = |value: &AttributeValue| value.as_s().or(value.as_n()).ok().cloned();
    let mut attributes: Vec<_> =
        item.iter().filter_map(|(name, value)| Some((name, plain(value)?))).collect();
    attributes.sort_unstable();
    let mut hasher = DefaultHasher::new();
    attributes.hash(&mut hasher);
    hasher.finish()
}

/// A worker without figures of its own: KCL's leader then balances by the throughput of leases.
fn metrics_item() -> Update {
    let now = wall_time().as_secs();
    let nothing = || AttributeValue::M(Item::new());
    Update::default()
        .set("lut", number(now))
        .set("sts", nothing())
        .set("opr", nothing())
        .set("sup", number(1))
        .set("slu", number(now))
        .set(ENTITY_TYPE, text(WORKER_METRICS))
}
