//! What happens to a fleet while its seed plays.

use std::time::Duration;

use shardmill_testkit::kinesis::{Fault, Operation, StoredShard};

use crate::support::LEASE;
use crate::tape::Hiccup;
use crate::weather::Trouble;
use crate::world::World;

/// No more workers, and no more open shards.
const MOST_WORKERS: usize = 3;
const MOST_SHARDS: usize = 6;

impl World {
    /// One event, drawn.
    pub(crate) async fn happen(&mut self) {
        let kind = if self.plan.orderly { self.rng.u32(0..5) } else { self.rng.u32(0..17) };
        match kind {
            0 => self.join(),
            1 => self.stop_one(),
            2 => self.split(),
            3 => self.merge(),
            4 => self.burst(),
            5 | 6 => self.crash().await,
            7 | 8 => self.pause(),
            9 => self.partition(),
            10 | 11 => self.trouble_store(),
            12 | 13 => self.trouble_stream(),
            14 => self.trouble_service(),
            15 => self.silence(),
            _ => self.jump(),
        }
    }

    fn join(&mut self) {
        if self.live.len() < MOST_WORKERS {
            self.start();
        }
    }

    fn stop_one(&mut self) {
        // Now and then none is left for a while.
        if self.live.len() > 1 || self.rng.u32(0..4) == 0 {
            self.stop_any();
        }
    }

    async fn crash(&mut self) {
        let Some(index) = self.any_live() else { return };
        let node = self.live.swap_remove(index);
        if self.rng.bool() {
            // What it sends last arrives when others have its shards.
            self.judge.say(|| format!("{} is about to crash, what it sends is late", node.process));
            node.to_store.set_only("checkpoint", Trouble::Late(LEASE * 3), LEASE);
            tokio::time::sleep(LEASE.mul_f64(self.rng.f64() / 4.0)).await;
        }
        self.judge.say(|| format!("{} crashes", node.process));
        let id = node.id.clone();
        node.crash().await;
        self.names.push(id);
        if self.rng.bool() {
            self.start();
        }
    }

    fn pause(&mut self) {
        let lasts = self.up_to(LEASE * 3);
        let Some(index) = self.any_live() else { return };
        self.judge.say(|| format!("{} stands still for {lasts:?}", self.live[index].process));
        self.live[index].pause(lasts);
    }

    fn partition(&mut self) {
        let lasts = self.up_to(LEASE * 3);
        let trouble = if self.rng.bool() { Trouble::Hang } else { Trouble::HangAfter };
        self.set_weather(true, trouble, 100, lasts);
    }

    /// One worker's heartbeats do not come through, all else does.
    fn silence(&mut self) {
        let lasts = LEASE + self.up_to(LEASE);
        let Some(index) = self.any_live() else { return };
        let node = &self.live[index];
        let trouble = if self.rng.bool() { Trouble::Throttle } else { Trouble::Hang };
        node.to_store.set_only("heartbeat", trouble, lasts);
        self.judge.say(|| format!("{}: its heartbeats meet {trouble:?} for {lasts:?}", node.process));
    }

    fn trouble_store(&mut self) {
        let trouble = match self.rng.u32(0..5) {
            0 => Trouble::Throttle,
            1 => Trouble::LostAnswer,
            2 => Trouble::Late(self.up_to(LEASE * 3)),
            3 => Trouble::LateAnswer(self.up_to(LEASE)),
            _ => Trouble::HangAfter,
        };
        let (percent, lasts) = (self.rng.u32(10..=100), self.up_to(LEASE * 4));
        self.set_weather(true, trouble, percent, lasts);
    }

    fn trouble_stream(&mut self) {
        let trouble = match self.rng.u32(0..4) {
            0 => Trouble::Throttle,
            1 => Trouble::LostAnswer,
            2 => Trouble::LateAnswer(self.up_to(LEASE)),
            _ => Trouble::Hang,
        };
        let (percent, lasts) = (self.rng.u32(10..=100), self.up_to(LEASE * 3));
        self.set_weather(false, trouble, percent, lasts);
    }

    fn set_weather(&mut self, store: bool, trouble: Trouble, percent: u32, lasts: Duration) {
        let Some(index) = self.any_live() else { return };
        let node = &self.live[index];
        let (way, name) = if store { (&node.to_store, "store") } else { (&node.to_stream, "stream") };
        way.set(trouble, percent, lasts);
        self.judge.say(|| {
            format!("{}: {percent} % of its calls to the {name} meet {trouble:?} for {lasts:?}", node.process)
        });
    }

    /// The service fails a few calls of any worker.
    fn trouble_service(&mut self) {
        let (hiccup, operation, fault) = match self.rng.u32(0..5) {
            0 => (Hiccup::ExpiredIterator, Operation::GetRecords, Fault::ExpiredIterator),
            1 => (Hiccup::Throttle, Operation::GetRecords, Fault::Throttle),
            2 => (Hiccup::EmptyPage, Operation::GetRecords, Fault::EmptyPage),
            3 => (Hiccup::ShortPage, Operation::GetRecords, Fault::PartialPage(1)),
            _ => (Hiccup::Listing, Operation::ListShards, Fault::LimitExceeded),
        };
        let times = self.rng.u64(1..=8);
        self.judge.say(|| format!("{times} calls of {operation:?} meet {fault:?}"));
        self.tape.hiccup(hiccup, times);
        self.fake().faults().on(operation).times(times).inject(fault);
    }

    /// The service's clock jumps against the hosts'.
    fn jump(&mut self) {
        let by = self.rng.i64(1..=60_000);
        self.judge.say(|| format!("the service's clock jumps by {by} ms"));
        self.jump_service_clock(by);
    }

    fn split(&mut self) {
        let open = self.open_shards();
        if open.len() >= MOST_SHARDS {
            return;
        }
        let Some(shard) = self.rng.choice(&open) else { return };
        if let Ok((one, other)) = self.fake().split("orders", &shard.id) {
            self.judge.say(|| format!("{} is split into {one} and {other}", shard.id));
            self.opened(&one, &[&shard.id]);
            self.opened(&other, &[&shard.id]);
        }
    }

    fn merge(&mut self) {
        let mut open = self.open_shards();
        open.sort_by_key(|shard| shard.hash_range.0);
        let pairs: Vec<(&StoredShard, &StoredShard)> = open.iter().zip(open.iter().skip(1)).collect();
        let Some((one, other)) = self.rng.choice(pairs) else { return };
        if let Ok(child) = self.fake().merge("orders", &one.id, &other.id) {
            self.judge.say(|| format!("{} and {} are merged into {child}", one.id, other.id));
            self.opened(&child, &[&one.id, &other.id]);
        }
    }

    fn open_shards(&self) -> Vec<StoredShard> {
        let mut open = self.fake().shards("orders").unwrap();
        open.retain(|shard| shard.open);
        open
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.rng.u64(50..=u64::try_from(most.as_millis()).unwrap()))
    }
}
