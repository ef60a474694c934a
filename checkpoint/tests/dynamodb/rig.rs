//! A table of its own in DynamoDB Local, and stores on it.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use shardmill_checkpoint::{
    Claim, DynamoDbOptions, DynamoDbStore, Lease, LeaseStore, WorkerId, WorkerReport, Write,
};

pub(super) use crate::common::{after, key, new_lease as lease};
pub(super) use crate::emulator::{settings, unique};

pub(super) struct Rig {
    pub(super) table: String,
    pub(super) client: Client,
}

impl Rig {
    /// With a table that does not exist yet.
    pub(super) fn start() -> Self {
        Self { table: unique("leases"), client: Client::from_conf(settings().build()) }
    }

    /// A store that reads all leases each time.
    pub(super) fn open(&self, application: &str) -> DynamoDbStore {
        let mut options = DynamoDbOptions::default();
        options.full_listing_interval = Duration::ZERO;
        self.open_with(application, &options)
    }

    /// A store that reads all leases when it must.
    pub(super) fn open_by_default(&self, application: &str) -> DynamoDbStore {
        self.open_with(application, &DynamoDbOptions::default())
    }

    pub(super) fn open_with(&self, application: &str, options: &DynamoDbOptions) -> DynamoDbStore {
        DynamoDbStore::from_client(self.client.clone(), &self.table, application, options).unwrap()
    }

    pub(super) async fn item(
        &self,
        application: &str,
        item: &str,
    ) -> Option<std::collections::HashMap<String, AttributeValue>> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let get = get.key("application", text(application)).key("item", text(item));
        get.send().await.unwrap().item
    }

    /// Sets one attribute of an item, as another program or a person does.
    pub(super) async fn set(&self, application: &str, item: &str, name: &str, value: AttributeValue) {
        let update = self.client.update_item().table_name(&self.table);
        let update = update.key("application", text(application)).key("item", text(item));
        let update = update.update_expression("SET #name = :value").expression_attribute_names("#name", name);
        update.expression_attribute_values(":value", value).send().await.unwrap();
    }
}

pub(super) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// The name of the item of [`key`].
pub(super) fn item_of(shard: &str) -> String {
    format!("lease#123456789012#eu-central-1#orders#1700000000#{shard}")
}

pub(super) fn claim(worker: &str, token: &str, seen_heartbeat: u64) -> Claim {
    let owner = WorkerId::new(worker);
    Claim { owner, token: token.into(), process: None, lease_time: Some(LEASE), seen_heartbeat }
}

pub(super) const LEASE: Duration = Duration::from_secs(10);

pub(super) fn report(worker: &str) -> WorkerReport {
    WorkerReport::new(WorkerId::new(worker), LEASE)
}

/// Creates the lease of `shard` and makes `worker` its owner.
pub(super) async fn owned(store: &DynamoDbStore, shard: &str, worker: &str) -> Lease {
    store.create(&[lease(shard)]).await.unwrap();
    let write = store.acquire(&key(shard), 0, &claim(worker, worker, 0)).await.unwrap();
    assert_eq!(write, Write::Done { counter: 1 });
    get(store, shard).await
}

pub(super) async fn get(store: &DynamoDbStore, shard: &str) -> Lease {
    let leases = store.list().await.unwrap();
    leases.into_iter().find(|lease| lease.key == key(shard)).unwrap()
}
