//! One connection on one thread. Calls that wait at the same moment share a transaction, so a thousand shards that
//! checkpoint together cost one commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::fault::Fault;
use super::schema::File;

/// Above this the rest waits for the next transaction, so that other processes get their turn.
const LARGEST_GROUP: usize = 1024;

/// What a call does to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The way to the connection's thread, which ends with the last handle after it has answered every call.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    calls: mpsc::Sender<Box<dyn Call>>,
    commits: Arc<AtomicU64>,
    undone: Arc<AtomicU64>,
}

impl Queue {
    pub(super) fn start(file: File) -> std::io::Result<Self> {
        let (calls, waiting) = mpsc::channel();
        let (commits, undone) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let worker = Worker { file, commits: Arc::clone(&commits), undone: Arc::clone(&undone) };
        std::thread::Builder::new().name("shardmill-sqlite".into()).spawn(move || worker.run(&waiting))?;
        Ok(Self { calls, commits, undone })
    }

    /// How many transactions that may write were committed.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Rises on the connection's thread, before the next call runs, when something that calls did is undone.
    pub(super) const fn undone(&self) -> &Arc<AtomicU64> {
        &self.undone
    }

    /// Runs `work` in a transaction and answers after the commit.
    pub(super) async fn call<T, F>(&self, access: Access, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Pending { access, work: Some(work), result: None, reply };
        self.calls.send(Box::new(call)).map_err(|_| Fault::Stopped)?;
        answer.await.unwrap_or(Err(Fault::Stopped))
    }
}

/// A call of any result type.
trait Call: Send {
    fn access(&self) -> Access;
    /// Whether the caller no longer waits for the answer. Such a call is not begun: its caller retries.
    fn is_abandoned(&self) -> bool;
    fn run(&mut self, connection: &Connection) -> Result<(), Fault>;
    fn fail(&mut self, fault: Fault);
    /// Answers with the result, or with the fault that the whole group shares.
    fn finish(self: Box<Self>, group: Result<(), Fault>);
}

struct Pending<T, F> {
    access: Access,
    work: Option<F>,
    result: Option<Result<T, Fault>>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T, F> Call for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Fault> + Send,
{
    fn access(&self) -> Access {
        self.access
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn run(&mut self, connection: &Connection) -> Result<(), Fault> {
        if let Some(work) = self.work.take() {
            self.result = Some(Ok(work(connection)?));
        }
        Ok(())
    }

    fn fail(&mut self, fault: Fault) {
        self.result = Some(Err(fault));
    }

    fn finish(self: Box<Self>, group: Result<(), Fault>) {
        let Self { result, reply, .. } = *self;
        // The caller may have stopped waiting.
        drop(reply.send(group.and_then(|()| result.unwrap_or(Err(Fault::Stopped)))));
    }
}

struct Worker {
    file: File,
    commits: Arc<AtomicU64>,
    undone: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self, waiting: &mpsc::Receiver<Box<dyn Call>>) {
        while let Ok(first) = waiting.recv() {
            let others = waiting.try_iter().take(LARGEST_GROUP - 1);
            let mut group: Vec<_> =
                std::iter::once(first).chain(others).filter(|call| !call.is_abandoned()).collect();
            let outcome = self.carry_out(&mut group);
            if outcome.is_err() {
                self.undone.fetch_add(1, Ordering::Relaxed);
            }
            for call in group {
                call.finish(outcome.clone());
            }
        }
    }

    fn carry_out(&mut self, group: &mut [Box<dyn Call>]) -> Result<(), Fault> {
        if group.is_empty() {
            return Ok(());
        }
        if !self.file.is_in_place() {
            return Err(Fault::Replaced);
        }
        let writes = group.iter().any(|call| call.access() == Access::Write);
        // The write lock comes first: a read that turns into a write could find that another process was faster.
        let behavior = if writes { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
        let mut transaction = self.file.connection.transaction_with_behavior(behavior)?;
        for call in group {
            run_alone(&mut transaction, &mut **call, &self.undone)?;
        }
        transaction.commit()?;
        if writes {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Runs one call of a group: if it fails, the others keep what they did. An error is one of the whole transaction.
fn run_alone(
    transaction: &mut Transaction<'_>,
    call: &mut dyn Call,
    undone: &AtomicU64,
) -> Result<(), Fault> {
    let mut savepoint = transaction.savepoint()?;
    match call.run(&savepoint) {
        Ok(()) => savepoint.commit()?,
        // Some errors (a full disk, for one) make SQLite undo the whole transaction.
        Err(fault) if savepoint.is_autocommit() => return Err(fault),
        Err(fault) => {
            undone.fetch_add(1, Ordering::Relaxed);
            savepoint.rollback()?;
            savepoint.commit()?;
            call.fail(fault);
        }
    }
    Ok(())
}
