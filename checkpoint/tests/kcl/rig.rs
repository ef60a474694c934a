//! A table of its own in DynamoDB Local, stores on it, and KCL's workers as their writes are.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use shardmill_checkpoint::{Claim, KclOptions, KclStore, Lease, LeaseStore, WorkerId, WorkerReport, Write};

pub(super) use crate::common::{after, key, new_lease as lease};
pub(super) use crate::emulator::{settings, unique};

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) struct Rig {
    pub(super) table: String,
    pub(super) client: Client,
}

impl Rig {
    /// With a table that does not exist yet.
    pub(super) fn start() -> Self {
        Self { table: unique("kcl"), client: Client::from_conf(settings().build()) }
    }

    /// A store that knows which stream is read.
    pub(super) fn open(&self) -> KclStore {
        let store = self.open_with("orders", &KclOptions::default());
        store.bind(&key("any"));
        store
    }

    pub(super) fn open_with(&self, application: &str, options: &KclOptions) -> KclStore {
        KclStore::from_client(self.client.clone(), &self.table, application, options).unwrap()
    }

    /// A table of KCL's with these items.
    pub(super) async fn with_items(items: &[Item]) -> Self {
        let rig = Self::start();
        rig.open().list().await.unwrap();
        for item in items {
            rig.put(item.clone()).await;
        }
        rig
    }

    pub(super) async fn put(&self, item: Item) {
        self.client.put_item().table_name(&self.table).set_item(Some(item)).send().await.unwrap();
    }

    pub(super) async fn item(&self, name: &str) -> Option<Item> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        get.key("leaseKey", text(name)).send().await.unwrap().item
    }

    /// An update as another program makes it.
    pub(super) async fn update(&self, name: &str, expression: &str, values: &[(&str, AttributeValue)]) {
        let mut update = self.client.update_item().table_name(&self.table).key("leaseKey", text(name));
        update = update.update_expression(expression);
        for (name, value) in values {
            update = update.expression_attribute_values(*name, value.clone());
        }
        update.send().await.unwrap();
    }

    /// KCL's renewal.
    pub(super) async fn kcl_renews(&self, shard: &str) {
        self.update(shard, "SET leaseCounter = leaseCounter + :one", &[(":one", number(1))]).await;
    }

    /// KCL's leader, or a worker that takes the lease: the owner changes and no handoff is left.
    pub(super) async fn kcl_assigns(&self, shard: &str, to: &str) {
        let expression = "SET leaseOwner = :to, leaseCounter = leaseCounter + :one REMOVE checkpointOwner";
        self.update(shard, expression, &[(":to", text(to)), (":one", number(1))]).await;
    }

    /// KCL's leader asks the owner to hand the lease over.
    pub(super) async fn kcl_initiates_handoff(&self, shard: &str, from: &str, to: &str) {
        let expression = "SET leaseOwner = :to, checkpointOwner = :from";
        self.update(shard, expression, &[(":to", text(to)), (":from", text(from))]).await;
    }
}

pub(super) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn item(attributes: &[(&str, AttributeValue)]) -> Item {
    attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// A lease as KCL 2 has it, which `owner` holds.
pub(super) fn kcl_lease(shard: &str, owner: Option<&str>, checkpoint: &str) -> Item {
    let mut lease = item(&[
        ("leaseKey", text(shard)),
        ("leaseCounter", number(7)),
        ("checkpoint", text(checkpoint)),
        ("checkpointSubSequenceNumber", number(0)),
        ("ownerSwitchesSinceCheckpoint", number(0)),
        ("startingHashKey", text("0")),
        ("endingHashKey", text("340282366920938463463374607431768211455")),
    ]);
    lease.extend(owner.map(|owner| ("leaseOwner".to_owned(), text(owner))));
    lease
}

pub(super) fn claim(worker: &str, token: &str) -> Claim {
    let owner = WorkerId::new(worker);
    Claim { owner, token: token.into(), process: None, lease_time: Some(LEASE), seen_heartbeat: 0 }
}

pub(super) const LEASE: Duration = Duration::from_secs(10);

pub(super) fn report(worker: &str) -> WorkerReport {
    WorkerReport::new(WorkerId::new(worker), LEASE)
}

/// Creates the lease of `shard` and makes `worker` its owner.
pub(super) async fn owned(store: &KclStore, shard: &str, worker: &str) -> Lease {
    store.create(&[lease(shard)]).await.unwrap();
    let write = store.acquire(&key(shard), 0, &claim(worker, worker)).await.unwrap();
    assert_eq!(write, Write::Done { counter: 1 });
    get(store, shard).await
}

pub(super) async fn get(store: &KclStore, shard: &str) -> Lease {
    let leases = store.list_readable().await.unwrap().leases;
    leases.into_iter().find(|lease| lease.key == key(shard)).unwrap()
}
