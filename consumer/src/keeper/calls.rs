//! Calls to the store, each bounded in time, as futures that return their outcome.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use shardmill_checkpoint::{
    Checkpoint, Claim, Heartbeat, LeaseList, LeaseStore, NewLease, Ownership, Renewal, StoreError, WorkerId,
    WorkerReport, Write,
};
use shardmill_engine::{LeaseKey, Mono, ShardId};
use tokio::sync::{Semaphore, oneshot};

use super::messages::KeeperError;
use super::ticket::Ticket;
use super::trouble::Answer;

/// Leases that one call creates: what a call may take has to suffice for all of them.
const CREATED_AT_ONCE: usize = 250;
/// Calls that give or change single leases and are under way at the same time. More of them would only wait at the store,
/// each against its time.
const AT_ONCE: usize = 64;

/// A call that ended.
pub(super) enum Done {
    Listed(Result<LeaseList, StoreError>),
    Acquired {
        ticket: Ticket,
        sent: Mono,
        result: Result<Write, StoreError>,
    },
    Renewed {
        tickets: Vec<Ticket>,
        sent: Mono,
        result: Result<Vec<Write>, StoreError>,
    },
    Checkpointed {
        orders: Vec<Pending>,
        sent: Mono,
        result: Result<Vec<Write>, StoreError>,
    },
    Released {
        ticket: Ticket,
        sent: Mono,
        result: Result<Write, StoreError>,
    },
    Beat {
        sent: Mono,
        result: Result<Heartbeat, StoreError>,
    },
    /// So many finished leases were deleted.
    Deleted(usize, Answer),
    /// A call that changes no held lease; the leases should be listed again.
    Changed(Answer),
    /// A call whose result went to its caller.
    Answered(Answer),
}

/// A checkpoint that waits for its write, or for the write's answer.
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) write: Checkpoint,
    pub(super) reply: oneshot::Sender<Result<(), KeeperError>>,
}

/// The calls that are under way.
pub(super) struct Calls {
    store: Store,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Calls {
    /// Calls to this store, each of which fails after `timeout`.
    pub(super) fn new(store: Arc<dyn LeaseStore>, timeout: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { store: Store { inner: store, timeout, turns }, running: FuturesUnordered::new() }
    }

    /// The next call that ends; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<Done> {
        self.running.next().await
    }

    pub(super) fn unavailable(&self, reason: &str) -> StoreError {
        self.store.unavailable(reason)
    }

    fn start<F>(&self, call: impl FnOnce(Store) -> F)
    where
        F: Future<Output = Done> + Send + 'static,
    {
        self.running.push(call(self.store.clone()).boxed());
    }

    pub(super) fn list(&self) {
        self.start(|store| async move { Done::Listed(store.bounded(store.inner.list_readable()).await) });
    }

    pub(super) fn list_for(&self, reply: oneshot::Sender<Result<LeaseList, StoreError>>) {
        self.start(|store| async move {
            let result = store.bounded(store.inner.list_readable()).await;
            let answer = Answer::of_read(&result);
            let _ = reply.send(result);
            Done::Answered(answer)
        });
    }

    pub(super) fn create(&self, leases: Vec<NewLease>, reply: oneshot::Sender<Result<usize, StoreError>>) {
        self.start(|store| async move {
            let result = store.create(leases).await;
            let answer = Answer::of_write(&result, |created| *created > 0);
            let _ = reply.send(result);
            Done::Changed(answer)
        });
    }

    pub(super) fn set_children(
        &self,
        key: LeaseKey,
        children: Vec<ShardId>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    ) {
        self.start(|store| async move {
            let result = store.in_turn(store.inner.set_children(&key, &children)).await;
            let answer = Answer::of_one(&result);
            let _ = reply.send(result.map(|_| ()));
            Done::Answered(answer)
        });
    }

    pub(super) fn note(
        &self,
        name: String,
        value: Option<String>,
        reply: oneshot::Sender<Result<Option<String>, StoreError>>,
    ) {
        self.start(|store| async move {
            let own = value.clone();
            let call = async {
                match value {
                    Some(value) => store.inner.note(&name, &value).await,
                    None => store.inner.forget_note(&name).await.map(|()| None),
                }
            };
            let result = store.bounded(call).await;
            // A store that keeps no notes, and a note that was there, prove nothing about writes.
            let answer = Answer::of_write(&result, |kept| kept.is_some() && *kept == own);
            let _ = reply.send(result);
            Done::Answered(answer)
        });
    }

    pub(super) fn acquire(&self, ticket: Ticket, key: LeaseKey, seen: u64, claim: Claim, sent: Mono) {
        self.start(|store| async move {
            let result = store.bounded(store.inner.acquire(&key, seen, &claim)).await;
            Done::Acquired { ticket, sent, result }
        });
    }

    pub(super) fn renew(&self, tickets: Vec<Ticket>, renewals: Vec<Renewal>, sent: Mono) {
        self.start(|store| async move {
            let result = store.bounded(store.inner.renew(&renewals)).await;
            Done::Renewed { tickets, sent, result }
        });
    }

    pub(super) fn checkpoint(&self, orders: Vec<Pending>, sent: Mono) {
        self.start(|store| async move {
            let writes: Vec<Checkpoint> = orders.iter().map(|order| order.write.clone()).collect();
            let result = store.bounded(store.inner.checkpoint(&writes)).await;
            Done::Checkpointed { orders, sent, result }
        });
    }

    pub(super) fn release(&self, ticket: Ticket, key: LeaseKey, counter: u64, sent: Mono) {
        self.start(|store| async move {
            let result = store.in_turn(store.inner.release(&key, counter)).await;
            Done::Released { ticket, sent, result }
        });
    }

    /// Frees a lease that nobody has taken since it was seen with this counter.
    pub(super) fn decline(&self, key: LeaseKey, seen: u64) {
        self.start(|store| async move {
            let result = store.in_turn(store.inner.release(&key, seen)).await;
            Done::Changed(Answer::of_one(&result))
        });
    }

    /// Releases a lease for its next owner.
    pub(super) fn give(&self, ticket: Ticket, key: LeaseKey, seen: Ownership, to: WorkerId, sent: Mono) {
        self.start(|store| async move {
            let result = store.in_turn(store.inner.assign(&key, &seen, &to)).await;
            Done::Released { ticket, sent, result }
        });
    }

    pub(super) fn heartbeat(&self, report: WorkerReport, sent: Mono) {
        self.start(|store| async move {
            let result = store.bounded(store.inner.heartbeat(&report)).await;
            Done::Beat { sent, result }
        });
    }

    /// Deletes the record of a worker whose heartbeat is still as it was seen; whoever waits for that is told in any case.
    pub(super) fn forget_worker(&self, worker: WorkerId, seen: u64, reply: Option<oneshot::Sender<()>>) {
        self.start(move |store| async move {
            let result = store.bounded(store.inner.forget_worker(&worker, seen)).await;
            let answer = Answer::of_write(&result, |()| true);
            let _ = reply.map(|reply| reply.send(()));
            Done::Answered(answer)
        });
    }

    /// Deletes finished leases in this order, up to the first that is refused or fails: those behind it need it (I9).
    pub(super) fn delete_ended(&self, finished: Vec<(LeaseKey, u64)>) {
        self.start(|store| async move {
            let (mut deleted, mut answer) = (0, Answer::Nothing);
            for (key, counter) in &finished {
                let result = store.bounded(store.inner.delete_ended(key, *counter)).await;
                answer = Answer::of_one(&result);
                match result {
                    Ok(Write::Done { .. }) => deleted += 1,
                    // Another worker was faster.
                    Ok(Write::Refused { current: None }) => {}
                    Ok(Write::Refused { current: Some(_) } | Write::Unknown { .. }) => break,
                    Err(error) => {
                        tracing::debug!(lease = %key, %error, "a finished lease could not be deleted: later");
                        break;
                    }
                }
            }
            Done::Deleted(deleted, answer)
        });
    }
}

/// The store, with a bound on each call's time.
#[derive(Clone)]
struct Store {
    inner: Arc<dyn LeaseStore>,
    timeout: Duration,
    turns: Arc<Semaphore>,
}

impl Store {
    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(self.unavailable(&format!("no answer within {} ms", self.timeout.as_millis()))),
        }
    }

    /// A call about one lease, once it has its turn: its time begins then.
    async fn in_turn<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        self.bounded(call).await
    }

    /// Creates those that do not exist. Workers that start together on thousands of shards do so in an order of their own,
    /// and each leaves out what others have created meanwhile.
    async fn create(&self, mut leases: Vec<NewLease>) -> Result<usize, StoreError> {
        if leases.len() > CREATED_AT_ONCE {
            fastrand::shuffle(&mut leases);
        }
        let mut created = 0;
        loop {
            let rest = leases.split_off(leases.len().min(CREATED_AT_ONCE));
            created += self.bounded(self.inner.create(&leases)).await?;
            if rest.is_empty() {
                return Ok(created);
            }
            let list = self.bounded(self.inner.list_readable()).await?;
            let known: HashSet<&LeaseKey> = list.leases.iter().map(|lease| &lease.key).collect();
            leases = rest.into_iter().filter(|new| !known.contains(&new.key)).collect();
        }
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable { store: self.inner.describe(), reason: reason.to_owned(), source: None }
    }
}
