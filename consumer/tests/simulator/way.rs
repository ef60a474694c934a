//! One process's way to the lease store: calls take time, get lost, are late or hang. A call that was sent happens, even
//! if its caller has given up or is dead. Each process is on a host of its own: none can look another up.

use std::sync::Arc;

use async_trait::async_trait;
use shardmill::checkpoint::{
    Checkpoint, Claim, Heartbeat, Lease, LeaseList, LeaseStore, MemoryStore, NewLease, Ownership, Renewal,
    StoreError, WorkerId, WorkerReport, Write,
};
use shardmill::engine::{LeaseKey, ShardId};
use tokio::sync::oneshot;

use crate::judge::Judge;
use crate::weather::{Trouble, Weather};

#[derive(Clone, Debug)]
pub(crate) struct Way {
    store: Arc<MemoryStore>,
    weather: Weather,
    judge: Judge,
    process: Arc<str>,
}

impl Way {
    pub(crate) fn new(store: MemoryStore, weather: Weather, judge: Judge, process: Arc<str>) -> Self {
        Self { store: Arc::new(store), weather, judge, process }
    }

    async fn call<T, F>(&self, what: &str, call: impl FnOnce(Self) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.weather.runs().await;
        let fate = self.weather.fate(what);
        let failed =
            || StoreError::Unavailable { store: "simulated".into(), reason: what.to_owned(), source: None };
        if let Some(trouble) = fate.trouble {
            self.judge.say(|| format!("{} {what}: {trouble:?}", self.process));
        }
        match fate.trouble {
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::Throttle) => {
                tokio::time::sleep(fate.there + fate.back).await;
                self.weather.runs().await;
                return Err(failed());
            }
            _ => {}
        }
        let (answer, answered) = oneshot::channel();
        let call = call(self.clone());
        tokio::spawn(async move {
            tokio::time::sleep(fate.there).await;
            let result = call.await;
            tokio::time::sleep(fate.back).await;
            // Nobody may be waiting any more.
            let _ = answer.send(result);
        });
        let result = answered.await.map_err(|_| failed())?;
        self.weather.runs().await;
        match fate.trouble {
            Some(Trouble::HangAfter) => std::future::pending().await,
            Some(Trouble::LostAnswer) => result.and_then(|_| Err(failed())),
            _ => result,
        }
    }
}

#[async_trait]
impl LeaseStore for Way {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.call("list", |way| async move { way.store.list().await }).await
    }

    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        self.call("list", |way| async move { way.store.list_readable().await }).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        let leases = leases.to_vec();
        self.call("create", |way| async move { way.store.create(&leases).await }).await
    }

    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        let (key, mut claim) = (key.clone(), claim.clone());
        claim.process = None;
        self.call("acquire", move |way| async move {
            let write = way.store.acquire(&key, seen, &claim).await?;
            way.judge.acquired(&way.process, &key.shard, &write);
            Ok(write)
        })
        .await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        let renewals = renewals.to_vec();
        self.call("renew", |way| async move {
            let writes = way.store.renew(&renewals).await?;
            for (renewal, write) in renewals.iter().zip(&writes) {
                way.judge.renewed(&renewal.key.shard, write);
            }
            Ok(writes)
        })
        .await
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        let checkpoints = checkpoints.to_vec();
        self.call("checkpoint", |way| async move {
            let writes = way.store.checkpoint(&checkpoints).await?;
            for (checkpoint, write) in checkpoints.iter().zip(&writes) {
                way.judge.checkpointed(&way.process, checkpoint, write);
            }
            Ok(writes)
        })
        .await
    }

    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        let (key, seen, to) = (key.clone(), seen.clone(), to.clone());
        self.call("assign", move |way| async move {
            let write = way.store.assign(&key, &seen, &to).await?;
            way.judge.released(&way.process, &key.shard, to.as_str(), &write);
            Ok(write)
        })
        .await
    }

    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        let (key, from, to) = (key.clone(), from.clone(), to.clone());
        self.call("hand off", move |way| async move { way.store.hand_off(&key, &from, &to).await }).await
    }

    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        let (key, children) = (key.clone(), children.to_vec());
        self.call("set children", move |way| async move { way.store.set_children(&key, &children).await })
            .await
    }

    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        let key = key.clone();
        self.call("release", move |way| async move {
            let write = way.store.release(&key, counter).await?;
            way.judge.released(&way.process, &key.shard, "nobody", &write);
            Ok(write)
        })
        .await
    }

    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        let key = key.clone();
        self.call("delete", move |way| async move { way.store.delete_ended(&key, counter).await }).await
    }

    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.call("delete", move |way| async move { way.store.delete(&key).await }).await
    }

    async fn note(&self, name: &str, value: &str) -> Result<Option<String>, StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.call("note", move |way| async move { way.store.note(&name, &value).await }).await
    }

    async fn forget_note(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.call("forget note", move |way| async move { way.store.forget_note(&name).await }).await
    }

    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        let mut worker = worker.clone();
        worker.process = None;
        self.call("heartbeat", move |way| async move {
            let heartbeat = way.store.heartbeat(&worker).await?;
            way.judge.beat(&way.process, &heartbeat);
            Ok(heartbeat)
        })
        .await
    }

    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        let worker = worker.clone();
        self.call("forget worker", move |way| async move {
            way.store.forget_worker(&worker, seen).await?;
            way.judge.left(&way.process, &worker);
            Ok(())
        })
        .await
    }

    fn renews_all(&self) -> bool {
        self.store.renews_all()
    }

    fn describe(&self) -> String {
        format!("simulated:{}", self.process)
    }
}

pub(crate) const fn done(write: &Write) -> &'static str {
    match write {
        Write::Done { .. } => "done",
        Write::Refused { .. } => "refused",
        Write::Unknown { .. } => "unknown",
    }
}
