//! The fleet of one run: its workers, its stream, its store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use shardmill::checkpoint::{Lease, LeaseStore, MemoryStore};
use shardmill::engine::{ShardId, Wall};
use shardmill::{Position, ServiceClock};
use shardmill_testkit::FakeKinesis;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::judge::{Judge, Totals};
use crate::node::Node;
use crate::plan::Plan;
use crate::support::LEASE;
use crate::tape::Tape;

/// How often leases are given for balance.
const PLANNING: Duration = Duration::from_secs(5);
/// The service's clock at the beginning of every run.
const BEGINNING: u64 = 1_800_000_000_000;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) tape: Tape,
    pub(crate) judge: Judge,
    pub(crate) live: Vec<Node>,
    /// Names of workers that are not running.
    pub(crate) names: Vec<String>,
    leaving: Vec<Node>,
    store: MemoryStore,
    began: Instant,
    service_off: i64,
    lives: u32,
    named: u32,
}

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) violation: Option<String>,
    pub(crate) log: Vec<String>,
    pub(crate) totals: Totals,
}

/// Plays a seed, in a runtime and with chances of its own; its log is empty unless it is written down.
pub(crate) fn play(seed: u64, writes_down: bool) -> Outcome {
    fastrand::seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // Outside of it the clock is the real one.
    runtime.block_on(async { World::new(seed, writes_down).run().await })
}

impl World {
    fn new(seed: u64, writes_down: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        let store = if plan.by_heartbeat { MemoryStore::renewed_by_heartbeat() } else { MemoryStore::new() };
        let (tape, judge) = (Tape::new(FakeKinesis::new()), Judge::new(&plan, writes_down));
        let mut world = Self {
            plan,
            rng,
            tape,
            judge,
            live: Vec::new(),
            names: Vec::new(),
            leaving: Vec::new(),
            store,
            began: Instant::now(),
            service_off: 0,
            lives: 0,
            named: 0,
        };
        world.set_service_clock();
        // The time of its creation is in every sequence number.
        world.fake().create_stream("orders", world.plan.shards).unwrap();
        for shard in world.fake().shards("orders").unwrap() {
            world.opened(&shard.id, &[]);
        }
        world
    }

    pub(crate) const fn fake(&self) -> &FakeKinesis {
        self.tape.fake()
    }

    pub(crate) fn opened(&self, shard: &str, parents: &[&str]) {
        self.tape.opened(shard, parents);
        self.judge.opened(shard, parents.iter().map(ToString::to_string).collect());
    }

    async fn run(mut self) -> Outcome {
        self.judge.say(|| format!("{:?}", self.plan));
        for _ in 0..self.plan.workers {
            self.start();
        }
        let writer = self.write();
        let end = Instant::now() + self.plan.lasts;
        while Instant::now() < end && self.judge.violation().is_none() {
            let pause = self.plan.pace.mul_f64(self.rng.f64());
            tokio::time::sleep(pause).await;
            self.bury().await;
            self.happen().await;
        }
        if self.judge.violation().is_none() {
            self.settle(writer).await;
        }
        Outcome {
            plan: self.plan.clone(),
            violation: self.judge.violation(),
            log: self.judge.log(),
            totals: self.judge.totals(),
        }
    }

    /// Writes until it is aborted.
    fn write(&mut self) -> JoinHandle<()> {
        let (tape, judge, mut rng) = (self.tape.clone(), self.judge.clone(), self.rng.fork());
        let (keys, pause) = (self.plan.keys, self.plan.writes);
        tokio::spawn(async move {
            loop {
                write(&tape, &judge, &mut rng, keys, 6);
                tokio::time::sleep(pause).await;
            }
        })
    }

    pub(crate) fn burst(&mut self) {
        let records = self.rng.usize(10..80);
        self.judge.say(|| format!("{records} records at once"));
        write(&self.tape, &self.judge, &mut self.rng, self.plan.keys, records);
    }

    pub(crate) fn any_live(&mut self) -> Option<usize> {
        (!self.live.is_empty()).then(|| self.rng.usize(0..self.live.len()))
    }

    /// Starts a worker under a new name or one that has run before.
    pub(crate) fn start(&mut self) {
        let known = self.rng.usize(0..=self.names.len());
        let id = if known < self.names.len() {
            self.names.swap_remove(known)
        } else {
            self.named += 1;
            format!("w{}", self.named)
        };
        self.lives += 1;
        let skew = if self.plan.orderly { 0 } else { self.rng.i64(-60_000..=60_000) };
        let host = i64::try_from(self.service_time()).unwrap() + skew;
        let clock = ServiceClock::starting_at(Wall::from_millis(host));
        let node = Node::start(
            (id, self.lives),
            &self.plan,
            (&self.tape, &self.store),
            &self.judge,
            (clock, &mut self.rng),
        );
        self.judge.say(|| format!("{} starts, its clock {skew} ms off", node.process));
        self.live.push(node);
    }

    pub(crate) fn stop_any(&mut self) {
        let Some(index) = self.any_live() else { return };
        let node = self.live.swap_remove(index);
        self.judge.say(|| format!("{} is asked to stop", node.process));
        node.stop();
        self.leaving.push(node);
    }

    /// Takes in the workers whose stop has come to its end.
    async fn bury(&mut self) {
        while let Some(index) = self.leaving.iter().position(Node::has_ended) {
            let node = self.leaving.swap_remove(index);
            self.names.push(node.id.clone());
            let process = Arc::clone(&node.process);
            let report = node.ended().await;
            self.judge.say(|| format!("{process} has stopped: {report:?}"));
        }
        if let Some(node) = self.live.iter().find(|node| node.has_ended()) {
            self.judge.object(format!("{} ended without being asked to", node.process));
        }
    }

    fn service_time(&self) -> u64 {
        BEGINNING + u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// The service's clock jumps against the hosts'; it never goes back, as sequence numbers do not.
    pub(crate) fn jump_service_clock(&mut self, by: i64) {
        self.service_off += by;
        self.set_service_clock();
    }

    fn set_service_clock(&mut self) {
        let fake = self.fake();
        fake.set_clock_offset(0);
        let wanted = i64::try_from(self.service_time()).unwrap() + self.service_off;
        fake.set_clock_offset(wanted - i64::try_from(fake.now_ms()).unwrap());
    }

    /// The faults end: everything must be as it should be within a bounded time, whatever happened before.
    async fn settle(&mut self, writer: JoinHandle<()>) {
        self.judge.say(|| "the faults end".to_owned());
        self.live.iter().chain(&self.leaving).for_each(Node::clear);
        self.fake().faults().clear();
        self.tape.clear();
        if self.live.is_empty() {
            self.start();
        }
        // What hangs by then costs its leases: the store shows that only after their time. That a worker's heartbeats do not
        // keep its leases shows only when others take what the plan's taker has left for an interval.
        let long = if self.rng.u32(0..6) == 0 { LEASE + PLANNING * 2 } else { LEASE * 2 };
        tokio::time::sleep(long).await;
        let all = self.owned(LEASE * 3 + PLANNING * 3).await
            && self.even(PLANNING * 13).await
            && self.drained(writer).await;
        if !all {
            return;
        }
        while !self.live.is_empty() {
            self.stop_any();
        }
        let end = Instant::now() + Duration::from_secs(30);
        while !self.leaving.is_empty() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.bury().await;
        }
        self.at_the_end().await;
    }

    async fn at_the_end(&self) {
        if let Some(node) = self.leaving.first() {
            self.judge.object(format!("I16: {} does not come to an end", node.process));
        }
        let leases = self.leases().await;
        let is_held = |lease: &&Lease| lease.token.is_some() && !self.judge.is_lost(&lease.key.shard);
        if let Some(lease) = readable(&leases).find(is_held) {
            self.judge.object(format!(
                "I16: {} still has {}",
                lease.owner.as_ref().unwrap(),
                lease.key.shard
            ));
        }
        self.judge.all_is_stored();
        let totals = self.judge.totals();
        // Several lanes end at several places: what is above the lowest of them comes again (ADR 0014).
        if self.plan.orderly && self.plan.lanes == 1 && totals.redelivered > 0 {
            self.judge.object(format!("{} records were handled twice in an orderly run", totals.redelivered));
        }
    }

    async fn leases(&self) -> Vec<Lease> {
        self.store.list().await.unwrap()
    }

    /// Every shard that can be read has an owner that lives.
    async fn owned(&mut self, within: Duration) -> bool {
        self.until("every readable shard has an owner", within, |leases, live| {
            readable(leases).all(|lease| {
                let owner = lease.owner.as_ref().filter(|_| lease.token.is_some());
                owner.is_some_and(|owner| live.iter().any(|node| node.id == owner.as_str()))
            })
        })
        .await
    }

    async fn even(&mut self, within: Duration) -> bool {
        self.until("shares are even", within, |leases, live| {
            let mut shares: BTreeMap<&str, usize> = live.iter().map(|node| (node.id.as_str(), 0)).collect();
            for lease in readable(leases) {
                if let Some(share) = lease.owner.as_ref().and_then(|owner| shares.get_mut(owner.as_str())) {
                    *share += 1;
                }
            }
            shares.values().max().unwrap() - shares.values().min().unwrap() <= 1
        })
        .await
    }

    async fn drained(&mut self, writer: JoinHandle<()>) -> bool {
        writer.abort();
        let _ = writer.await;
        let judge = self.judge.clone();
        let drained =
            self.until("the backlog drains", Duration::from_secs(120), |_, _| judge.is_drained()).await;
        if !drained {
            let left = self.judge.backlog();
            self.judge.say(|| format!("left: {left:?}"));
        }
        drained
    }

    async fn until(
        &mut self,
        what: &str,
        within: Duration,
        reached: impl Fn(&[Lease], &[Node]) -> bool,
    ) -> bool {
        let end = Instant::now() + within;
        while self.judge.violation().is_none() {
            let leases = self.leases().await;
            if reached(&leases, &self.live) {
                self.judge.say(|| what.to_owned());
                return true;
            }
            if Instant::now() >= end {
                for lease in &leases {
                    let (owner, counter) = (lease.owner.as_ref().map(ToString::to_string), lease.counter);
                    let (at, taken) = (&lease.checkpoint, lease.token.is_some());
                    self.judge.say(|| format!("{} {owner:?} {taken} {counter} {at}", lease.key.shard));
                }
                self.judge.object(format!("not within {within:?}: {what}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.bury().await;
        }
        false
    }
}

/// Leases whose shards can be read now.
fn readable(leases: &[Lease]) -> impl Iterator<Item = &Lease> {
    leases.iter().filter(|lease| {
        let ended = |shard: &ShardId| {
            let lease = leases.iter().find(|lease| lease.key.shard == *shard);
            lease.is_none_or(|lease| lease.checkpoint == Position::ShardEnd)
        };
        lease.checkpoint != Position::ShardEnd && lease.parents.iter().all(ended)
    })
}

fn write(tape: &Tape, judge: &Judge, rng: &mut Rng, keys: usize, records: usize) {
    for _ in 0..rng.usize(1..=records) {
        let key = format!("key {}", rng.usize(0..keys));
        let placed = tape.fake().put("orders", Some(&key), "record").unwrap();
        tape.written(&key, &placed);
        judge.written(&key, placed);
    }
}
