//! The gate over random shard graphs, orders of discovery and completion, and crashes (I1, I9, I15).

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{LeaseNode, Shard, Start, finished_leases, gone_shards, may_start, plan_leases};
use crate::position::{Position, Seq};
use crate::record::ShardId;

/// The hash key space: so many keys.
const KEYS: usize = 8;
const MAX_SHARDS: usize = 12;

/// A record: its key, and its number among all records.
type Item = (usize, u64);

#[derive(Clone, Debug)]
struct Simulated {
    parents: Vec<usize>,
    keys: std::ops::Range<usize>,
    open: bool,
    /// No longer listed nor readable.
    vanished: bool,
    records: Vec<Item>,
}

#[derive(Clone, Debug, Default)]
struct Lease {
    /// Records that are done; none: at its start, which is a record's number.
    done: Option<u64>,
    start: u64,
    ended: bool,
    parents: BTreeSet<usize>,
}

/// The stream, the store, one worker, and what its function saw.
#[derive(Clone, Debug)]
struct World {
    shards: Vec<Simulated>,
    /// Shards that a listing has shown: later ones do, too.
    shown: BTreeSet<usize>,
    next: u64,
    store: BTreeMap<usize, Lease>,
    latest: bool,
    pinned: Option<u64>,
    /// What the worker's last listing showed.
    listed: Option<BTreeMap<ShardId, Vec<ShardId>>>,
    /// The shards that the worker reads, and how far it is: (the next record's number, the checkpoint to write).
    running: BTreeMap<usize, u64>,
    seen: Vec<Item>,
    rng: u64,
}

fn id(index: usize) -> ShardId {
    ShardId::new(format!("shard-{index:02}"))
}

fn index(id: &ShardId) -> usize {
    id.as_str()[6..].parse().unwrap()
}

impl World {
    fn new(seed: u64, latest: bool) -> Self {
        let shard = |keys| Simulated { parents: vec![], keys, open: true, vanished: false, records: vec![] };
        Self {
            shards: vec![shard(0..KEYS / 2), shard(KEYS / 2..KEYS)],
            shown: BTreeSet::new(),
            next: 0,
            store: BTreeMap::new(),
            latest,
            pinned: None,
            listed: None,
            running: BTreeMap::new(),
            seen: Vec::new(),
            rng: seed | 1,
        }
    }

    fn chance(&mut self, below: usize) -> usize {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        usize::try_from(self.rng >> 33).unwrap() % below.max(1)
    }

    fn pick(&mut self, from: &[usize]) -> Option<usize> {
        let n = self.chance(from.len());
        from.get(n).copied()
    }

    fn open(&self) -> Vec<usize> {
        (0..self.shards.len()).filter(|n| self.shards[*n].open).collect()
    }

    fn add(&mut self, parents: Vec<usize>, keys: std::ops::Range<usize>) {
        for parent in &parents {
            self.shards[*parent].open = false;
        }
        self.shards.push(Simulated { parents, keys, open: true, vanished: false, records: vec![] });
    }

    fn write(&mut self) {
        let key = self.chance(KEYS);
        let shard =
            self.shards.iter_mut().find(|s| s.open && s.keys.contains(&key)).expect("all keys are covered");
        shard.records.push((key, self.next));
        self.next += 1;
    }

    fn split(&mut self) {
        let open = self.open();
        let Some(parent) = self.pick(&open) else { return };
        let keys = self.shards[parent].keys.clone();
        if keys.len() < 2 || self.shards.len() + 2 > MAX_SHARDS {
            return;
        }
        let middle = keys.start + keys.len() / 2;
        self.add(vec![parent], keys.start..middle);
        self.add(vec![parent], middle..keys.end);
    }

    fn merge(&mut self) {
        let open = self.open();
        let Some(left) = self.pick(&open) else { return };
        let end = self.shards[left].keys.end;
        let Some(right) = open.into_iter().find(|n| self.shards[*n].keys.start == end) else { return };
        if self.shards.len() < MAX_SHARDS {
            let keys = self.shards[left].keys.start..self.shards[right].keys.end;
            self.add(vec![left, right], keys);
        }
    }

    /// A closed shard leaves the stream: one that was read to its end, or whose records are not wanted.
    fn vanish(&mut self) {
        let wanted = |shard: &Simulated| {
            let from = if self.latest { self.pinned } else { Some(0) };
            shard.records.iter().any(|(_, n)| from.is_none_or(|from| *n >= from))
        };
        let done: Vec<usize> = (0..self.shards.len())
            .filter(|n| {
                let shard = &self.shards[*n];
                let ended = self.store.get(n).is_some_and(|lease| lease.ended);
                let oldest = shard.parents.iter().all(|p| self.shards[*p].vanished);
                !shard.open
                    && !shard.vanished
                    && oldest
                    && (ended || !(wanted(shard) || self.store.contains_key(n)))
            })
            .collect();
        if let Some(gone) = self.pick(&done) {
            self.shards[gone].vanished = true;
        }
    }

    /// A listing, in any order, that may lag behind: a shard that is missing lacks its descendants, too.
    fn list(&mut self, lags: bool) -> Vec<Shard> {
        let mut missing = BTreeSet::new();
        for n in 0..self.shards.len() {
            let hidden = self.shards[n].parents.iter().any(|parent| missing.contains(parent));
            let young = !self.shards[n].parents.is_empty() && !self.shown.contains(&n);
            if hidden || (lags && young && self.chance(4) == 0) {
                missing.insert(n);
            } else {
                self.shown.insert(n);
            }
        }
        let there = (0..self.shards.len()).filter(|n| !missing.contains(n) && !self.shards[*n].vanished);
        let mut nodes: Vec<Shard> = there
            .map(|n| Shard {
                id: id(n),
                hash_range: None,
                parents: self.shards[n].parents.iter().map(|parent| id(*parent)).collect(),
                open: self.shards[n].open,
            })
            .collect();
        for n in (1..nodes.len()).rev() {
            let other = self.chance(n + 1);
            nodes.swap(n, other);
        }
        nodes
    }

    /// Lists the stream and creates leases; a crash may come between any two of them.
    fn discover(&mut self, lags: bool, crash_after: Option<usize>) {
        let nodes = self.list(lags);
        self.listed = Some(nodes.iter().map(|node| (node.id.clone(), node.parents.clone())).collect());
        let start = match self.latest {
            // Stored with the leases, so forgotten with a crash before the first one.
            true if self.store.is_empty() => {
                self.pinned = Some(self.next);
                Start::Latest { pinned: i64::try_from(self.next).unwrap() }
            }
            true => Start::Latest { pinned: i64::try_from(self.pinned.unwrap()).unwrap() },
            false => Start::TrimHorizon,
        };
        let gates = |lease: &Lease| lease.parents.iter().map(|parent| id(*parent)).collect();
        let known = self.store.iter().map(|(n, lease)| (id(*n), gates(lease))).collect();
        let planned = plan_leases(&nodes, &known, &start);
        for lease in planned.iter().take(crash_after.unwrap_or(usize::MAX)) {
            let start = match lease.start {
                Position::AtTimestamp(at) => u64::try_from(at).unwrap(),
                _ => 0,
            };
            let parents = lease.parents.iter().map(index).collect();
            let new = Lease { done: None, start, ended: false, parents };
            self.store.entry(index(&lease.shard)).or_insert(new);
        }
        if crash_after.is_some() {
            self.crash();
        }
    }

    /// The leases as the worker lists them: shard, parents, checkpoint.
    fn rows(&self) -> Vec<(ShardId, Vec<ShardId>, Position)> {
        let parents = |lease: &Lease| lease.parents.iter().map(|parent| id(*parent)).collect();
        self.store.iter().map(|(n, lease)| (id(*n), parents(lease), position(lease))).collect()
    }

    /// The worker takes everything that the gate lets start.
    fn start(&mut self) -> Result<(), String> {
        let Some(listed) = &self.listed else { return Ok(()) };
        let rows = self.rows();
        let checkpoint = |shard: &ShardId| rows.iter().find(|row| row.0 == *shard).map(|row| &row.2);
        let gone = gone_shards(listed, |shard| parents_of(&rows, shard));
        for (n, lease) in &self.store {
            if lease.ended
                || self.running.contains_key(n)
                || !may_start(&id(*n), parents_of(&rows, &id(*n)), checkpoint, &gone)
            {
                continue;
            }
            // Under LATEST what an ancestor holds from before the pinned time is not wanted.
            for parent in &self.shards[*n].parents {
                let shard = &self.shards[*parent];
                let ended = self.store.get(parent).is_some_and(|lease| lease.ended);
                let unwanted = self.latest && shard.records.iter().all(|(_, number)| *number < lease.start);
                if !(ended || shard.vanished || unwanted) {
                    return Err(format!("I9: {n} starts before its parent {parent} ended"));
                }
            }
            self.running.insert(*n, lease.done.map_or(lease.start, |done| done + 1));
        }
        Ok(())
    }

    /// A running shard handles a record, or, at its end, tells of its children and stores the end.
    fn step(&mut self, crashes: bool) {
        let running: Vec<usize> = self.running.keys().copied().collect();
        let Some(n) = self.pick(&running) else { return };
        let at = self.running[&n];
        if let Some(item) = self.shards[n].records.iter().find(|(_, number)| *number >= at).copied() {
            self.seen.push(item);
            self.running.insert(n, item.1 + 1);
            if self.chance(2) == 0
                && let Some(lease) = self.store.get_mut(&n)
            {
                lease.done = Some(item.1);
            }
        } else if !self.shards[n].open {
            let told = self.chance(3) > 0;
            let children = (0..self.shards.len()).filter(|c| told && self.shards[*c].parents.contains(&n));
            for child in children.collect::<Vec<_>>() {
                let parents = self.shards[child].parents.iter().copied().collect();
                self.store.entry(child).or_insert(Lease { parents, ..Lease::default() });
            }
            if crashes {
                return self.crash();
            }
            self.running.remove(&n);
            if let Some(lease) = self.store.get_mut(&n) {
                lease.ended = true;
            }
        }
    }

    /// Deletes leases, one by one: a crash may come between any two of them.
    fn forget(&mut self) {
        let Some(listed) = &self.listed else { return };
        let rows = self.rows();
        let gone = gone_shards(listed, |shard| parents_of(&rows, shard));
        let node = |(shard, parents, checkpoint)| {
            let gone = gone.contains(shard);
            LeaseNode { shard, parents, checkpoint, free: !self.running.contains_key(&index(shard)), gone }
        };
        let nodes: Vec<LeaseNode<'_>> =
            rows.iter().map(|(shard, parents, at)| node((shard, parents.as_slice(), at))).collect();
        let finished: Vec<usize> = finished_leases(&nodes).into_iter().map(index).collect();
        let crash_after = self.chance(4);
        for (deleted, n) in finished.into_iter().enumerate() {
            if deleted == crash_after {
                return self.crash();
            }
            self.store.remove(&n);
        }
    }

    fn crash(&mut self) {
        self.running.clear();
        self.listed = None;
    }

    /// I1: the first sights of a key's records come in order, over all generations.
    fn check_order(&self) -> Result<(), String> {
        let mut last = [None; KEYS];
        let mut known = BTreeSet::new();
        for (key, number) in &self.seen {
            if known.insert(number) {
                if last[*key].is_some_and(|last| last > *number) {
                    return Err(format!("I1: key {key}: {number} after {:?}", last[*key]));
                }
                last[*key] = Some(*number);
            }
        }
        Ok(())
    }

    /// With a stream that rests and listings that are complete everything that is wanted arrives.
    fn finish(&mut self) -> Result<(), String> {
        for _ in 0..60 {
            self.discover(false, None);
            self.start()?;
            for _ in 0..10 {
                self.step(false);
            }
            self.forget();
        }
        self.check_order()?;
        let seen: BTreeSet<u64> = self.seen.iter().map(|(_, number)| *number).collect();
        let from = if self.latest { self.pinned.unwrap_or(0) } else { 0 };
        let lost: Vec<u64> = (from..self.next).filter(|number| !seen.contains(number)).collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("lost: {lost:?}")) }
    }
}

fn parents_of<'a>(rows: &'a [(ShardId, Vec<ShardId>, Position)], shard: &ShardId) -> &'a [ShardId] {
    rows.iter().find(|row| row.0 == *shard).map_or(&[], |row| &row.1)
}

fn position(lease: &Lease) -> Position {
    match lease.done {
        _ if lease.ended => Position::ShardEnd,
        Some(done) => Position::After(Seq::plain(done.to_string())),
        None => Position::TrimHorizon,
    }
}

fn run(seed: u64, latest: bool, steps: usize) -> Result<(), String> {
    let mut world = World::new(seed, latest);
    for _ in 0..steps {
        match world.chance(22) {
            0..=4 => world.write(),
            5 => world.split(),
            6 => world.merge(),
            7 => world.vanish(),
            8 | 9 => world.discover(true, None),
            10 => {
                let after = world.chance(4);
                world.discover(true, Some(after));
            }
            11 => world.crash(),
            12 => world.step(true),
            13 => world.forget(),
            14 | 15 => world.start()?,
            _ => world.step(false),
        }
    }
    world.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i9_i1_the_gate_keeps_the_order_and_loses_nothing_over_any_graph_of_shards(
        seed in any::<u64>(), latest in any::<bool>(), steps in 10_usize..160
    ) {
        prop_assert_eq!(run(seed, latest, steps), Ok(()));
    }
}
