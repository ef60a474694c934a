//! The leases of one table: reading them, and the writes, each conditional on the lease as it was seen.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use shardmill_engine::{LeaseKey, ShardId};
use tokio::time::Instant;

use super::companions::Companions;
use super::names::{self, LEASE_KEY, Layout};
use super::position;
use super::row::{
    self, APP, CHECKPOINT_OWNER, CHILDREN, COUNTER, Kept, OF_ACQUISITION, OWN_COUNTER, OWNER, Reading, Row,
    SWITCHES, name,
};
use super::workers::Workers;
use crate::table::attributes::{Item, Reader, Update, number, text, text_set};
use crate::table::batch::{each, in_turn};
use crate::table::error::{Failure, Reach};
use crate::table::{Answer, Lane, Table};
use crate::{Checkpoint, Claim, LeaseList, NewLease, Ownership, Renewal, UnreadableLease, WorkerId, Write};

const TRIES: u32 = 8;

/// The leases of the application that the table is.
#[derive(Debug)]
pub(super) struct Leases {
    /// What this library calls the application: it must be the only one in the table.
    pub(super) application: String,
    pub(super) table: Arc<Table>,
    pub(super) companions: Companions,
    reading: Mutex<Reading>,
    known: Mutex<Known>,
}

/// What this process knows of the table.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Leases by their rows as they were seen last.
    rows: HashMap<LeaseKey, Row>,
    pub(super) workers: Workers,
}

impl Leases {
    pub(super) fn new(application: &str, table: Table, reading: Reading) -> Self {
        Self {
            application: application.to_owned(),
            companions: Companions::new(&table),
            table: Arc::new(table),
            reading: Mutex::new(reading),
            known: Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// Rows that name no stream are of this one from now on.
    pub(super) fn bind(&self, stream: &LeaseKey) {
        self.reading.lock().layout.stream = Some(stream.sibling(ShardId::new("")));
    }

    fn layout(&self) -> Layout {
        self.reading.lock().layout.clone()
    }

    fn read(&self, item: &Item) -> Kept {
        let reading = self.reading.lock();
        Kept::of(item, &reading)
    }

    pub(super) async fn list(&self) -> Result<LeaseList, Failure> {
        let items = self.table.scan().await?;
        let seen = Instant::now();
        self.reading.lock().layout.is_multi = items.iter().any(|item| names::is_multi(Reader(item)));
        let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
        for item in &items {
            match self.read(item) {
                Kept::Lease(row) => rows.push(*row),
                Kept::Unreadable { key, reason } => unreadable.push(UnreadableLease::new(key, reason)),
                Kept::NoLease => {}
            }
        }
        rows.iter().try_for_each(|row| self.is_ours(row))?;
        self.companions.look(&items, seen).await?;
        let leases = rows.iter().map(|row| row.lease.clone()).collect();
        let mut known = self.known();
        let workers = known.workers.listed(&items, &rows);
        let led = self.companions.is_led(&workers, seen);
        known.rows = rows.into_iter().map(|row| (row.lease.key.clone(), row)).collect();
        Ok(LeaseList::new(leases, unreadable).with_workers(workers).led(led))
    }

    /// One table is one application: two mappings would share each other's shards and skip each other's records.
    fn is_ours(&self, row: &Row) -> Result<(), Failure> {
        match row.application.as_deref().filter(|application| *application != self.application) {
            None => Ok(()),
            Some(other) => Err(Failure::new(
                Reach::Setup,
                format!(
                    "its leases are of the mapping {other:?} and this one is {:?}: a table of KCL's layout is one \
                     application; name another table, or give this mapping that name (if that one is no longer used, \
                     remove the attribute shardmillApplication from its items)",
                    self.application
                ),
            )),
        }
    }

    pub(super) async fn create(&self, leases: &[NewLease]) -> Result<usize, Failure> {
        let mut seen = HashSet::new();
        let new: Vec<_> = leases.iter().filter(|new| seen.insert(&new.key)).collect();
        let answers = in_turn(new.into_iter().map(|new| self.create_one(new)).collect()).await;
        let mut created = 0;
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(made) => created += usize::from(made),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        failed.map_or(Ok(created), Err)
    }

    /// Each has its own time: a stream of thousands of shards is created once.
    async fn create_one(&self, new: &NewLease) -> Result<bool, Failure> {
        let layout = self.layout();
        let name = layout.name(&new.key);
        let create = row::create(new, &layout, &self.application);
        match self.table.update(Lane::Leases, row::key(&name), &create, self.table.deadline()).await? {
            Answer::Done(item) => {
                self.keep(&item);
                Ok(true)
            }
            Answer::Refused { item, unsure } => {
                let there = item.map(|item| self.keep(&item));
                match there {
                    Some(Kept::Lease(row)) => {
                        self.is_ours(&row)?;
                        is_of(&new.key, &row.lease.key, &name)?;
                    }
                    Some(Kept::Unreadable { key, .. }) => is_of(&new.key, &key, &name)?,
                    Some(Kept::NoLease) | None => {}
                }
                // An attempt whose answer was lost has created it, as far as can be known.
                Ok(unsure)
            }
        }
    }

    /// Keeps a lease's row as an answer has shown it.
    fn keep(&self, item: &Item) -> Kept {
        let kept = self.read(item);
        if let Kept::Lease(row) = &kept {
            self.known().rows.insert(row.lease.key.clone(), (**row).clone());
        }
        kept
    }

    async fn fetch(&self, key: &LeaseKey) -> Result<Option<Box<Row>>, Failure> {
        let item = self.table.get(row::key(&self.layout().name(key))).await?;
        Ok(item.and_then(|item| readable(self.keep(&item))))
    }

    /// The lease as it is at this counter, or as it is now.
    async fn row_at(&self, key: &LeaseKey, counter: u64) -> Result<Option<Box<Row>>, Failure> {
        let as_seen = |row: &&Row| row.lease.counter == counter;
        let hint = self.known().rows.get(key).filter(as_seen).cloned();
        match hint {
            Some(row) => Ok(Some(Box::new(row))),
            None => self.fetch(key).await,
        }
    }

    pub(super) async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, Failure> {
        let mut row = self.row_at(key, seen).await?;
        for _ in 0..TRIES {
            let Some(current) = row else { return Ok(Write::Refused { current: None }) };
            if current.lease.counter != seen {
                return Ok(refused(*current));
            }
            self.is_ours(&current)?;
            let take = row::take(&current, &self.application, claim);
            match self.update(key, &take, self.table.deadline()).await? {
                Answer::Done(item) => return Ok(self.done(&item)),
                Answer::Refused { item, .. } => {
                    // The token is fresh: what has it was written by this very call.
                    if let Some(item) = item.as_ref().filter(|item| row::token(item) == Some(&claim.token)) {
                        return Ok(self.done(item));
                    }
                    row = item.and_then(|item| readable(self.keep(&item)));
                }
            }
        }
        Err(Failure::new(Reach::Item, format!("the lease {key} changes its owner again and again")))
    }

    pub(super) async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, Failure> {
        let until = self.table.deadline();
        let renew = |counter| at(counter);
        let calls = renewals
            .iter()
            .map(|Renewal { key, counter }| async move { self.write(key, &renew(*counter), until).await });
        each(in_turn(calls.collect()).await)
    }

    pub(super) async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, Failure> {
        let until = self.table.deadline();
        let calls = checkpoints.iter().map(|checkpoint| self.advance(checkpoint, until));
        each(in_turn(calls.collect()).await)
    }

    /// Moves a checkpoint forward from the stored one, which must be what it was compared with (I2): the service cannot
    /// compare KCL's texts.
    async fn advance(&self, checkpoint: &Checkpoint, until: Instant) -> Result<Write, Failure> {
        let Checkpoint { key, counter, position, app } = checkpoint;
        let mut row = self.row_at(key, *counter).await?;
        for _ in 0..TRIES {
            let Some(current) = row else { return Ok(Write::Refused { current: None }) };
            if current.lease.counter != *counter || !current.lease.checkpoint.may_advance_to(position) {
                return Ok(refused(*current));
            }
            let advance = at(*counter)
                .if_equal(position::CHECKPOINT, current.stored.checkpoint.clone())
                .if_equal_or_absent(position::SUB, current.stored.sub.clone())
                .set(SWITCHES, number(0));
            let mut advance = position::set(advance, position);
            if !app.is_empty() {
                advance = advance.if_map(APP);
            }
            let advance =
                app.iter().fold(advance, |update, (name, value)| update.set_entry(APP, name, text(value)));
            let answer = self.update(key, &advance, until).await?;
            let Answer::Refused { item: Some(item), unsure: false } = answer else {
                return self.settled(key, answer);
            };
            row = readable(self.keep(&item));
            if row.as_ref().is_some_and(|now| now.stored == current.stored) {
                return Ok(row.map_or(Write::Refused { current: None }, |row| refused(*row)));
            }
        }
        Err(Failure::new(Reach::Item, format!("the checkpoint of {key} is changed again and again")))
    }

    pub(super) async fn assign(
        &self,
        key: &LeaseKey,
        seen: &Ownership,
        to: &WorkerId,
    ) -> Result<Write, Failure> {
        let assign = Update::default()
            .if_equal(COUNTER, number(seen.counter))
            .if_equal_or_absent(OWNER, seen.owner.as_ref().map(name))
            .if_equal_or_absent(CHECKPOINT_OWNER, seen.checkpoint_owner.as_ref().map(name))
            .increment_both(COUNTER, OWN_COUNTER)
            .set(OWNER, name(to))
            .remove(CHECKPOINT_OWNER)
            .remove_all(&OF_ACQUISITION);
        let before = seen.checkpoint_owner.as_ref().or(seen.owner.as_ref());
        let switches = before.is_some_and(|before| before != to);
        let assign = if switches { assign.increment(SWITCHES) } else { assign };
        self.write(key, &assign, self.table.deadline()).await
    }

    pub(super) async fn hand_off(
        &self,
        key: &LeaseKey,
        from: &WorkerId,
        to: &WorkerId,
    ) -> Result<Write, Failure> {
        let hand_off = Update::default()
            .if_equal(OWNER, name(from))
            .if_absent(CHECKPOINT_OWNER)
            .set(OWNER, name(to))
            .set(CHECKPOINT_OWNER, name(from));
        self.write(key, &hand_off, self.table.deadline()).await
    }

    pub(super) async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, Failure> {
        let children = text_set(children.iter().map(ShardId::as_str));
        let update = Update::default().if_present(COUNTER).set_or_remove(CHILDREN, children);
        self.write(key, &update, self.table.deadline()).await
    }

    pub(super) async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, Failure> {
        let release = at(counter).remove_all(&[OWNER, CHECKPOINT_OWNER]).remove_all(&OF_ACQUISITION);
        self.write(key, &release, self.table.deadline()).await
    }

    pub(super) async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, Failure> {
        let condition = Update::default()
            .if_equal(COUNTER, number(counter))
            .if_equal(position::CHECKPOINT, text("SHARD_END"))
            .if_absent(CHECKPOINT_OWNER);
        match self.table.delete(row::key(&self.layout().name(key)), &condition).await? {
            Answer::Done(_) => {
                self.known().rows.remove(key);
                Ok(Write::Done { counter })
            }
            refusal @ Answer::Refused { .. } => self.settled(key, refusal),
        }
    }

    pub(super) async fn delete(&self, key: &LeaseKey) -> Result<(), Failure> {
        // Whatever else has that name is no lease.
        let condition = Update::default().if_present_or_no_item(COUNTER, LEASE_KEY);
        self.table.delete(row::key(&self.layout().name(key)), &condition).await?;
        self.known().rows.remove(key);
        Ok(())
    }

    async fn update(&self, key: &LeaseKey, update: &Update, until: Instant) -> Result<Answer, Failure> {
        self.table.update(Lane::Leases, row::key(&self.layout().name(key)), update, until).await
    }

    async fn write(&self, key: &LeaseKey, update: &Update, until: Instant) -> Result<Write, Failure> {
        let answer = self.update(key, update, until).await?;
        self.settled(key, answer)
    }

    fn done(&self, item: &Item) -> Write {
        let counter = Reader(item).required_number(COUNTER);
        self.keep(item);
        // Whoever spoilt it did so while it was written.
        counter.map_or(Write::Refused { current: None }, |counter| Write::Done { counter })
    }

    fn settled(&self, key: &LeaseKey, answer: Answer) -> Result<Write, Failure> {
        match answer {
            Answer::Done(item) => Ok(self.done(&item)),
            // A renewal finds out: the row's token says whether it was this worker's own write (incident 13).
            Answer::Refused { item: Some(_), unsure: true } => {
                let reason = format!(
                    "a write to the lease {key} was refused after an attempt without an answer, which may have been it"
                );
                Err(Failure::new(Reach::Item, reason))
            }
            Answer::Refused { item: Some(item), .. } => {
                Ok(readable(self.keep(&item)).map_or(Write::Refused { current: None }, |row| refused(*row)))
            }
            Answer::Refused { item: None, .. } => {
                self.known().rows.remove(key);
                Ok(Write::Refused { current: None })
            }
        }
    }
}

impl Known {
    /// The row that carries what workers say of themselves: the first one of the stream.
    pub(super) fn first_row(&self, layout: &Layout) -> Option<String> {
        self.rows.keys().map(|key| layout.name(key)).min()
    }
}

impl Leases {
    pub(super) fn first_row(&self) -> Option<String> {
        self.known().first_row(&self.layout())
    }
}

/// A write at this counter, which raises it.
fn at(counter: u64) -> Update {
    let next = counter.saturating_add(1);
    Update::default()
        .if_equal(COUNTER, number(counter))
        .set(COUNTER, number(next))
        .set(OWN_COUNTER, number(next))
}

fn readable(kept: Kept) -> Option<Box<Row>> {
    match kept {
        Kept::Lease(row) => Some(row),
        Kept::Unreadable { .. } | Kept::NoLease => None,
    }
}

fn refused(row: Row) -> Write {
    Write::Refused { current: Some(Box::new(row.lease)) }
}

/// Whether the row that is there already is the wanted lease's. KCL calls the shards of a stream and of one that was made
/// anew under its name alike.
fn is_of(wanted: &LeaseKey, there: &LeaseKey, name: &str) -> Result<(), Failure> {
    if wanted == there {
        return Ok(());
    }
    Err(Failure::new(
        Reach::Setup,
        format!(
            "its item {name:?} is of {there} and not of {wanted}: KCL's layout has one name for the shards of a stream and of \
             an earlier one; delete the table, or name another one"
        ),
    ))
}
