//! Watches every delivery and every accepted write of a run: what is written here is what must never happen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use shardmill::checkpoint::{Checkpoint, Heartbeat, WorkerId, Write};
use shardmill::engine::ShardId;
use shardmill::{Batch, InvokeContext, Position};
use shardmill_testkit::kinesis::Placed;
use tokio::time::Instant;

use crate::plan::Plan;
use crate::support::{LEASE, sequence};
use crate::way::done;

#[derive(Clone, Debug)]
pub(crate) struct Judge(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    began: Instant,
    /// One lane per shard: order holds for all of its records, not only for those of one key.
    whole_shards: bool,
    /// A process shows that it lives by its heartbeats, not by what it writes for each lease.
    by_heartbeat: bool,
    /// No lease is lost: each is given up before another worker takes it.
    orderly: bool,
    /// What happened, if it is written down: that costs as much as half of a run.
    log: Option<Vec<String>>,
    violation: Option<String>,
    shards: BTreeMap<String, Shard>,
    keys: BTreeMap<String, Key>,
    running: Vec<Running>,
    invocations: u64,
    redelivered: usize,
    takeovers: usize,
}

#[derive(Debug, Default)]
struct Key {
    written: usize,
    /// How many of its records have been delivered.
    delivered: usize,
}

#[derive(Debug, Default)]
struct Shard {
    parents: Vec<String>,
    records: Vec<Record>,
    /// So many of its first records have been handled.
    resolved: usize,
    checkpoint: Option<Position>,
    /// The process that acquired the lease last and has not released it.
    owner: Option<Arc<str>>,
    /// When the store took the owner's last sign of life; `None` once it has learned that it was declared dead.
    signed: Option<Instant>,
    /// The owner has stopped and removed its record since: what it had lost by then, it could not give up.
    left: bool,
    /// The owner's last invocation: whether it may start another one now.
    told: Option<InvokeContext>,
    /// Where each acquisition began, by its fencing token.
    starts: BTreeMap<u64, Option<Position>>,
    /// The highest fencing token of a delivery.
    token: u64,
    /// The last record delivered under it, by key.
    last: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Record {
    seq: String,
    key: String,
    /// Which of its key's records it is.
    nth: usize,
    delivered: bool,
    handled: bool,
}

#[derive(Debug)]
struct Running {
    id: u64,
    process: Arc<str>,
    cx: InvokeContext,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) written: usize,
    pub(crate) redelivered: usize,
    pub(crate) takeovers: usize,
}

impl Judge {
    pub(crate) fn new(plan: &Plan, writes_down: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            began: Instant::now(),
            whole_shards: plan.lanes == 1,
            by_heartbeat: plan.by_heartbeat,
            orderly: plan.orderly,
            log: writes_down.then(Vec::new),
            violation: None,
            shards: BTreeMap::new(),
            keys: BTreeMap::new(),
            running: Vec::new(),
            invocations: 0,
            redelivered: 0,
            takeovers: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        self.state().say(line);
    }

    /// Something that must not happen has happened.
    pub(crate) fn object(&self, what: String) {
        self.state().object(what);
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone().unwrap_or_default()
    }

    pub(crate) fn totals(&self) -> Totals {
        let state = self.state();
        Totals {
            written: state.keys.values().map(|key| key.written).sum(),
            redelivered: state.redelivered,
            takeovers: state.takeovers,
        }
    }

    /// Whether every accepted record has been handled.
    pub(crate) fn is_drained(&self) -> bool {
        self.state().shards.values().all(|shard| shard.resolved == shard.records.len())
    }

    /// What is left to handle, for a message.
    pub(crate) fn backlog(&self) -> Vec<(String, usize)> {
        let left = |(id, shard): (&String, &Shard)| (id.clone(), shard.records.len() - shard.resolved);
        self.state().shards.iter().map(left).filter(|(_, left)| *left > 0).collect()
    }

    /// Every checkpoint is at the last record or the end.
    pub(crate) fn all_is_stored(&self) {
        let mut state = self.state();
        let behind = |shard: &&Shard| match (&shard.checkpoint, shard.records.last()) {
            (Some(Position::ShardEnd), _) | (_, None) => false,
            (Some(at), Some(last)) => sequence(at).is_none_or(|seq| seq != last.seq),
            (None, Some(_)) => true,
        };
        if let Some(shard) = state.shards.values().find(behind) {
            let what = format!("I16: everything was handled and the checkpoint is {:?}", shard.checkpoint);
            state.object(what);
        }
    }

    pub(crate) fn opened(&self, shard: &str, parents: Vec<String>) {
        let mut state = self.state();
        state.shards.entry(shard.to_owned()).or_default().parents = parents;
    }

    pub(crate) fn written(&self, key: &str, placed: Placed) {
        let mut state = self.state();
        let counts = state.keys.entry(key.to_owned()).or_default();
        let nth = counts.written;
        counts.written += 1;
        let record = Record {
            seq: placed.sequence_number,
            key: key.to_owned(),
            nth,
            delivered: false,
            handled: false,
        };
        state.shards.entry(placed.shard_id).or_default().records.push(record);
    }

    pub(crate) fn acquired(&self, process: &Arc<str>, shard: &ShardId, write: &Write) {
        let mut state = self.state();
        state.say(|| format!("{process} acquires {shard}: {}", done(write)));
        let Write::Done { counter } = write else { return };
        state.takeovers += 1;
        if let Err(what) = state.take(process, shard.as_str()) {
            state.object(format!("{shard}: {what}"));
        }
        let shard = state.shards.entry(shard.to_string()).or_default();
        (shard.owner, shard.signed, shard.told) = (Some(Arc::clone(process)), Some(Instant::now()), None);
        shard.left = false;
        shard.starts.insert(*counter, shard.checkpoint.clone());
    }

    pub(crate) fn renewed(&self, shard: &ShardId, write: &Write) {
        let mut state = self.state();
        let by_heartbeat = state.by_heartbeat;
        let shard = state.shards.get_mut(shard.as_str()).filter(|_| matches!(write, Write::Done { .. }));
        if let Some(shard) = shard {
            shard.sign(by_heartbeat);
        }
    }

    pub(crate) fn beat(&self, process: &Arc<str>, heartbeat: &Heartbeat) {
        let mut state = self.state();
        let lives = *heartbeat != Heartbeat::Evicted;
        if !lives {
            state.say(|| format!("{process} is evicted"));
        }
        if state.by_heartbeat {
            let its = state.shards.values_mut().filter(|shard| shard.owner.as_ref() == Some(process));
            // A worker that was declared dead begins anew: what it beats for from then on is none of its old leases.
            its.for_each(|shard| shard.signed = shard.signed.filter(|_| lives).map(|_| Instant::now()));
        }
    }

    pub(crate) fn left(&self, process: &Arc<str>, name: &WorkerId) {
        if worker(process) == name.as_str() {
            let mut state = self.state();
            let its = state.shards.values_mut().filter(|shard| shard.owner.as_ref() == Some(process));
            its.for_each(|shard| shard.left = true);
        }
    }

    /// Whether the shard's owner was told that it had been declared dead, and so has none to give up.
    pub(crate) fn is_lost(&self, shard: &ShardId) -> bool {
        self.state().shards.get(shard.as_str()).is_some_and(|shard| shard.signed.is_none())
    }

    pub(crate) fn released(&self, process: &Arc<str>, shard: &ShardId, to: &str, write: &Write) {
        let mut state = self.state();
        state.say(|| format!("{process} gives {shard} to {to}: {}", done(write)));
        if matches!(write, Write::Done { .. }) {
            state.shards.entry(shard.to_string()).or_default().owner = None;
        }
    }

    pub(crate) fn checkpointed(&self, process: &Arc<str>, checkpoint: &Checkpoint, write: &Write) {
        let mut state = self.state();
        let (name, at) = (checkpoint.key.shard.to_string(), &checkpoint.position);
        state.say(|| format!("{process} stores {name} at {at}: {}", done(write)));
        if !matches!(write, Write::Done { .. }) {
            return;
        }
        let by_heartbeat = state.by_heartbeat;
        let shard = state.shards.entry(name.clone()).or_default();
        let mut wrong = None;
        if shard.owner.as_ref() != Some(process) {
            wrong =
                Some(format!("I10: a checkpoint of {process} is accepted, the owner is {:?}", shard.owner));
        }
        if shard.checkpoint.as_ref().is_some_and(|before| !before.may_advance_to(at)) {
            wrong = Some(format!("I2: a checkpoint moves back from {:?}", shard.checkpoint));
        }
        if shard.index_after(at) > shard.resolved {
            wrong = Some(format!("I3: the checkpoint passes a record that was not handled: {at}"));
        }
        shard.checkpoint = Some(at.clone());
        shard.sign(by_heartbeat);
        if let Some(wrong) = wrong {
            state.object(format!("{name}: {wrong}"));
        }
    }

    /// A handler begins. The returned number is for [`ended`](Self::ended).
    pub(crate) fn delivered(&self, process: &Arc<str>, batch: &Batch, cx: &InvokeContext) -> u64 {
        let mut state = self.state();
        let name = cx.shard.to_string();
        let seqs: Vec<&str> = batch.records().iter().map(|record| record.seq.number.as_str()).collect();
        state.say(|| {
            let (first, last) =
                (seqs.first().map_or("", |seq| tail(seq)), seqs.last().map_or("", |seq| tail(seq)));
            let (records, token, attempt) = (seqs.len(), cx.fencing_token, cx.attempt);
            format!(
                "{process} handles {name} {first} to {last} ({records}), token {token}, attempt {attempt}"
            )
        });
        if !cx.may_start() {
            state.object(format!("I10: {process} starts an invocation of {name} without a valid lease"));
        }
        let other = state
            .running
            .iter()
            .find(|other| other.cx.shard == cx.shard && other.process != *process && other.cx.may_start());
        if let Some(other) = other {
            let what = format!("I10: {process} and {} both believe that {name} is theirs", other.process);
            state.object(what);
        }
        if let Err(what) = state.take_in(&name, &seqs, cx) {
            state.object(format!("{name}: {what}"));
        }
        if let Some(shard) = state.shards.get_mut(&name).filter(|shard| shard.owner.as_ref() == Some(process))
        {
            shard.told = Some(cx.clone());
        }
        state.invocations += 1;
        let id = state.invocations;
        state.running.push(Running { id, process: Arc::clone(process), cx: cx.clone() });
        id
    }

    pub(crate) fn handled(&self, batch: &Batch, cx: &InvokeContext) {
        let mut state = self.state();
        let Some(shard) = state.shards.get_mut(cx.shard.as_str()) else { return };
        for record in batch.records() {
            if let Some(index) = shard.index(record.seq.number.as_str()) {
                shard.records[index].handled = true;
            }
        }
        while shard.records.get(shard.resolved).is_some_and(|record| record.handled) {
            shard.resolved += 1;
        }
    }

    pub(crate) fn ended(&self, id: u64) {
        self.state().running.retain(|running| running.id != id);
    }
}

impl State {
    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>7} {}", self.began.elapsed().as_millis(), line()));
        }
    }

    fn object(&mut self, what: String) {
        self.say(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Checks an acquisition that the store has accepted: nobody may be left who believes that the shard is his.
    fn take(&self, process: &Arc<str>, name: &str) -> Result<(), String> {
        let Some((shard, before)) =
            self.shards.get(name).and_then(|shard| Some((shard, shard.owner.as_ref()?)))
        else {
            return Ok(());
        };
        if self.orderly {
            return Err(format!(
                "I11: {process} takes it in an orderly run, and {before} has not given it up"
            ));
        }
        if worker(before) == worker(process) {
            // An earlier life of the same worker is over, and what this one has lost it may take again.
            return Ok(());
        }
        if shard.told.as_ref().is_some_and(InvokeContext::may_start) {
            return Err(format!("I10: {process} takes it while {before} may start more"));
        }
        match shard.signed.map(|sign| sign.elapsed()).filter(|since| *since < LEASE && !shard.left) {
            Some(since) => Err(format!("I11: {process} takes it {since:?} after a sign of life of {before}")),
            None => Ok(()),
        }
    }

    /// Checks a delivery against all that came before.
    fn take_in(&mut self, name: &str, seqs: &[&str], cx: &InvokeContext) -> Result<(), String> {
        let ended = |shard: &String| {
            self.shards.get(shard).is_none_or(|shard| shard.checkpoint == Some(Position::ShardEnd))
        };
        let parents = self.shards.get(name).map(|shard| shard.parents.clone()).unwrap_or_default();
        if let Some(parent) = parents.iter().find(|parent| !ended(parent)) {
            return Err(format!("I9: it is handled before the end of {parent} is stored"));
        }
        let shard = self.shards.get_mut(name).ok_or("a shard that nobody opened")?;
        let token = cx.fencing_token;
        if token < shard.token {
            return Err(format!("I10: a delivery under token {token} after one under {}", shard.token));
        }
        if token > shard.token {
            shard.token = token;
            shard.last.clear();
        }
        let start = shard.starts.get(&token).ok_or_else(|| format!("nobody acquired token {token}"))?;
        let start = start.as_ref().map_or(0, |start| shard.index_after(start));
        for seq in seqs {
            let index = shard.index(seq).ok_or_else(|| format!("{seq} was never written"))?;
            if index < start {
                return Err(format!("{} is redelivered from below the stored checkpoint", tail(seq)));
            }
            let record = &mut shard.records[index];
            let order = if self.whole_shards { String::new() } else { record.key.clone() };
            let last = shard.last.insert(order, index);
            if cx.attempt == 1 && last.is_some_and(|last| index <= last) {
                return Err(format!("I1: {} is handled again or out of order", tail(seq)));
            }
            if std::mem::replace(&mut record.delivered, true) {
                self.redelivered += 1;
                continue;
            }
            let key = self.keys.entry(record.key.clone()).or_default();
            if record.nth != key.delivered {
                let (nth, next) = (record.nth, key.delivered);
                return Err(format!("I1: record {nth} of {} is handled before record {next}", record.key));
            }
            key.delivered += 1;
        }
        Ok(())
    }
}

impl Shard {
    /// A write renews the lease, unless only heartbeats do.
    fn sign(&mut self, by_heartbeat: bool) {
        if !by_heartbeat {
            self.signed = Some(Instant::now());
        }
    }

    fn index(&self, seq: &str) -> Option<usize> {
        self.records.binary_search_by(|record| record.seq.as_str().cmp(seq)).ok()
    }

    /// How many records are behind the position.
    fn index_after(&self, at: &Position) -> usize {
        match at {
            Position::ShardEnd => self.records.len(),
            at => sequence(at).map_or(0, |seq| self.records.partition_point(|record| record.seq <= seq)),
        }
    }
}

/// The name of the process's worker, which has several lives.
fn worker(process: &str) -> &str {
    process.rsplit_once('.').map_or(process, |(worker, _)| worker)
}

fn tail(seq: &str) -> &str {
    &seq[seq.len().saturating_sub(6)..]
}
