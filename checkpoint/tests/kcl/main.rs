//! The store in KCL's layout, against DynamoDB Local.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/emulator.rs"]
mod emulator;
#[path = "../common/faults.rs"]
mod faults;
mod foreign;
mod modes;
mod rig;

mod dynamodb_local {
    use std::sync::atomic::Ordering;

    use aws_sdk_dynamodb::Client;
    use aws_sdk_dynamodb::types::AttributeValue;
    use shardmill_checkpoint::{
        AppState, Checkpoint, DynamoDbStore, KclOptions, KclStore, LeaseStore, NewLease, Renewal, StoreError,
        WorkerId, Write, conformance,
    };
    use shardmill_engine::{HashRange, LeaseKey, Position};

    use crate::faults::Faults;
    use crate::rig::{
        Item, Rig, after, claim, get, item, kcl_lease, key, lease, number, owned, report, settings, text,
    };

    const SHARD: &str = "shardId-000000000001";

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn the_kcl_store_passes() {
        conformance::run_all(async || Rig::start().open()).await;
        conformance::run_shared(async || {
            let rig = Rig::start();
            (rig.open(), rig.open())
        })
        .await;
    }

    /// Every lease then has its whole key for a name.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn the_kcl_store_passes_without_a_stream_of_its_own() {
        conformance::run_all(async || Rig::start().open_with("orders", &KclOptions::default())).await;
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_new_table_is_as_kcl_makes_it_and_one_of_another_shape_is_refused() {
        let rig = Rig::start();
        let mut options = KclOptions::default();
        options.create_table = false;
        let error = rig.open_with("orders", &options).list().await.unwrap_err();
        assert!(error.to_string().contains("partition key leaseKey (S)"), "{error}");
        rig.open().list().await.unwrap();
        let table = rig.client.describe_table().table_name(&rig.table).send().await.unwrap().table.unwrap();
        assert_eq!(table.billing_mode_summary().unwrap().billing_mode().unwrap().as_str(), "PAY_PER_REQUEST");
        assert_eq!(table.key_schema().len(), 1);
        let index = &table.global_secondary_indexes()[0];
        assert_eq!(index.index_name(), Some("LeaseOwnerToLeaseKeyIndex"));
        let keys: Vec<&str> = index.key_schema().iter().map(|key| key.attribute_name()).collect();
        assert_eq!(keys, ["leaseOwner", "leaseKey"]);
        assert_eq!(index.projection().unwrap().projection_type().unwrap().as_str(), "KEYS_ONLY");
        let own = DynamoDbStore::from_client(rig.client.clone(), "own-layout", "orders", &Default::default());
        own.unwrap().list().await.unwrap();
        let store = KclStore::from_client(rig.client.clone(), "own-layout", "orders", &KclOptions::default());
        let error = store.unwrap().list().await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains("not leaseKey (HASH, S)"), "{error}");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_new_lease_is_a_row_that_kcl_can_read() {
        let rig = Rig::start();
        let new = NewLease {
            parents: vec!["shardId-2".into(), "shardId-1".into()],
            hash_range: Some(HashRange { start: 5, end: 9 }),
            ..lease(SHARD)
        };
        let narrow = NewLease { hash_range: Some(HashRange { start: 7, end: 7 }), ..lease("shardId-9") };
        let store = rig.open();
        store.create(&[new, narrow]).await.unwrap();
        let row = rig.item(SHARD).await.unwrap();
        let of_kcl = [
            ("leaseKey", text(SHARD)),
            ("leaseCounter", number(0)),
            ("ownerSwitchesSinceCheckpoint", number(0)),
            ("checkpoint", text("TRIM_HORIZON")),
            ("checkpointSubSequenceNumber", number(0)),
            ("parentShardId", AttributeValue::Ss(vec!["shardId-1".into(), "shardId-2".into()])),
            ("startingHashKey", text("5")),
            ("endingHashKey", text("9")),
            ("entityType", text("LEASE")),
        ];
        for (name, value) in &of_kcl {
            assert_eq!(&row[*name], value, "{name}");
        }
        let beyond = row.keys().filter(|name| !of_kcl.iter().any(|(known, _)| known == name));
        assert!(beyond.clone().all(|name| name.starts_with("shardmill")), "{row:?}");
        let narrow = rig.item("shardId-9").await.unwrap();
        assert!(!narrow.contains_key("startingHashKey"), "KCL cannot read a range of one key");
        let acquired = store.acquire(&key(SHARD), 0, &claim("a", "t")).await.unwrap();
        assert_eq!(acquired, Write::Done { counter: 1 });
        let position = after("495903");
        let write = Checkpoint { key: key(SHARD), counter: 1, position, app: AppState::new() };
        store.checkpoint(&[write]).await.unwrap();
        store.set_children(&key(SHARD), &["shardId-4".into(), "shardId-3".into()]).await.unwrap();
        let row = rig.item(SHARD).await.unwrap();
        assert_eq!((&row["leaseOwner"], &row["leaseCounter"]), (&text("a"), &number(2)));
        assert_eq!((&row["checkpoint"], &row["checkpointSubSequenceNumber"]), (&text("495903"), &number(0)));
        assert_eq!(row["childShardIds"], AttributeValue::Ss(vec!["shardId-3".into(), "shardId-4".into()]));
        store.release(&key(SHARD), 2).await.unwrap();
        assert!(!rig.item(SHARD).await.unwrap().contains_key("leaseOwner"));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn two_applications_of_ours_in_one_table_are_refused() {
        let rig = Rig::start();
        owned(&rig.open(), SHARD, "a").await;
        let other = rig.open_with("bills", &KclOptions::default());
        other.bind(&key("any"));
        for error in [
            other.list().await.unwrap_err(),
            other.create(&[lease(SHARD)]).await.unwrap_err(),
            other.acquire(&key(SHARD), 1, &claim("b", "b")).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
            assert!(
                error.to_string().contains("of the mapping \"orders\" and this one is \"bills\""),
                "{error}"
            );
        }
        assert_eq!(get(&rig.open(), SHARD).await.owner.unwrap().as_str(), "a");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_43_the_leases_of_an_earlier_stream_are_not_taken_for_those_of_the_new_one() {
        let rig = Rig::start();
        owned(&rig.open(), SHARD, "a").await;
        let store = rig.open();
        let newer = LeaseKey { epoch: "1800000000".into(), ..key(SHARD) };
        store.bind(&newer);
        let error = store.create(&[NewLease { key: newer, ..lease(SHARD) }]).await.unwrap_err();
        assert!(error.to_string().contains("delete the table"), "{error}");
        assert_eq!(store.list().await.unwrap()[0].key, key(SHARD), "shown as what it is");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn workers_report_themselves_on_the_first_row_and_not_in_rows_of_their_own() {
        let rig = Rig::start();
        let (one, other) = (rig.open(), rig.open());
        owned(&one, "shardId-0", "a").await;
        owned(&one, "shardId-1", "b").await;
        let mut full = report("a");
        (full.stopping, full.leases, full.maximum_leases, full.started) = (true, 3, Some(9), 5);
        for _ in 0..2 {
            one.list().await.unwrap();
            other.list().await.unwrap();
            one.heartbeat(&full).await.unwrap();
            other.heartbeat(&report("b")).await.unwrap();
        }
        let workers = one.list_readable().await.unwrap().workers;
        assert_eq!(workers.iter().map(|worker| &worker.report).collect::<Vec<_>>(), [&full, &report("b")]);
        one.heartbeat(&full).await.unwrap();
        let later = other.list_readable().await.unwrap().workers;
        assert!(later[0].heartbeat > workers[0].heartbeat && later[1] == workers[1], "{later:?}");
        let scan = rig.client.scan().table_name(&rig.table).send().await.unwrap();
        assert_eq!(scan.count(), 2, "rows of leases only");
        other.forget_worker(&full.id, later[0].heartbeat).await.unwrap();
        let left = one.list_readable().await.unwrap().workers;
        assert_eq!(left.iter().map(|worker| worker.report.id.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    /// A store whose calls can be made to fail, and one whose calls cannot.
    fn faulty() -> (KclStore, KclStore, Faults) {
        let (rig, faults) = (Rig::start(), Faults::default());
        let client = Client::from_conf(settings().interceptor(faults.clone()).build());
        let store = KclStore::from_client(client, &rig.table, "orders", &KclOptions::default()).unwrap();
        store.bind(&key("any"));
        (store, rig.open(), faults)
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_13_spurious_refusals_are_recognised_in_the_middle_of_a_handoff_too() {
        let (store, other, faults) = faulty();
        owned(&store, SHARD, "a").await;
        faults.lose.store(1, Ordering::Relaxed);
        let write = store.acquire(&key(SHARD), 1, &claim("a", "again")).await.unwrap();
        assert_eq!(write, Write::Done { counter: 2 }, "by its token");
        other.hand_off(&key(SHARD), &WorkerId::new("a"), &WorkerId::new("b")).await.unwrap();
        faults.lose.store(1, Ordering::Relaxed);
        let renewal = [Renewal { key: key(SHARD), counter: 2 }];
        let writes = store.renew(&renewal).await.unwrap();
        assert!(matches!(writes.as_slice(), [Write::Unknown { .. }]), "{writes:?}");
        let writes = store.renew(&renewal).await.unwrap();
        let [Write::Refused { current: Some(current) }] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!((current.counter, current.token.as_deref()), (3, Some("again")), "its own write");
        faults.lose.store(1, Ordering::Relaxed);
        let checkpoint =
            Checkpoint { key: key(SHARD), counter: 3, position: after("7"), app: AppState::new() };
        let writes = store.checkpoint(&[checkpoint]).await.unwrap();
        assert!(matches!(writes.as_slice(), [Write::Unknown { .. }]), "{writes:?}");
        assert_eq!(get(&other, SHARD).await.checkpoint, after("7"));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn i2_a_checkpoint_is_compared_with_the_one_that_is_there_now() {
        let rig = Rig::start();
        let store = rig.open();
        owned(&store, SHARD, "a").await;
        // Set by hand, so the counter has not moved.
        rig.update(SHARD, "SET checkpoint = :there", &[(":there", text("500"))]).await;
        let to = |number: &str| Checkpoint {
            key: key(SHARD),
            counter: 1,
            position: after(number),
            app: AppState::new(),
        };
        let writes = store.checkpoint(&[to("77")]).await.unwrap();
        let [Write::Refused { current: Some(current) }] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!(current.checkpoint, after("500"));
        assert_eq!(store.checkpoint(&[to("501")]).await.unwrap(), [Write::Done { counter: 2 }]);
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn rows_that_cannot_be_read_are_named_and_cost_no_other() {
        let bad = |shard: &str, name: &str, value: AttributeValue| {
            let mut row = kcl_lease(shard, None, "TRIM_HORIZON");
            row.insert(name.to_owned(), value);
            row
        };
        let rig = Rig::with_items(&[
            kcl_lease("shardId-0", None, "77"),
            bad("shardId-1", "checkpoint", text("AT_TIMESTAMP")),
            bad("shardId-2", "checkpoint", text("soon")),
            bad("shardId-3", "leaseCounter", text("seven")),
            bad("shardId-4", "pendingCheckpointState", number(0)),
        ])
        .await;
        let list = rig.open().list_readable().await.unwrap();
        let mut readable: Vec<&str> = list.leases.iter().map(|lease| lease.key.shard.as_str()).collect();
        readable.sort_unstable();
        assert_eq!(readable, ["shardId-0", "shardId-4"]);
        let said = |shard: &str| {
            let found = list.unreadable.iter().find(|lease| lease.key == key(shard));
            found.map(|lease| lease.reason.clone()).unwrap_or_default()
        };
        assert!(said("shardId-1").contains("StartingPositionTimestamp"), "{list:?}");
        assert!(said("shardId-2").contains("\"soon\"") && said("shardId-3").contains("leaseCounter"));
        let mut options = KclOptions::default();
        options.starting_time = Some(1_600_000_000_000);
        let store = rig.open_with("orders", &options);
        store.bind(&key("any"));
        assert_eq!(get(&store, "shardId-1").await.checkpoint, Position::AtTimestamp(1_600_000_000_000));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn leases_of_several_streams_are_told_apart_and_those_of_others_left_alone() {
        let multi = |stream: &str, shard: &str| -> Item {
            let name = format!("123456789012:{stream}:1700000000");
            let mut row = kcl_lease(&format!("{name}:{shard}"), Some("java"), "77");
            row.extend(item(&[("streamName", text(&name)), ("shardId", text(shard))]));
            row
        };
        let rig = Rig::with_items(&[multi("orders", "shardId-0"), multi("bills", "shardId-0")]).await;
        let store = rig.open();
        let leases = store.list().await.unwrap();
        let ours: Vec<_> = leases.iter().filter(|lease| lease.key.is_sibling_of(&key("any"))).collect();
        assert_eq!((leases.len(), ours.len(), &ours[0].key), (2, 1, &key("shardId-0")));
        assert_eq!(store.create(&[lease("shardId-0"), lease("shardId-1")]).await.unwrap(), 1);
        let made = rig.item("123456789012:orders:1700000000:shardId-1").await.unwrap();
        assert_eq!(made["streamName"], text("123456789012:orders:1700000000"));
        assert_eq!(made["shardId"], text("shardId-1"));
        store.acquire(&key("shardId-0"), 7, &claim("a", "a")).await.unwrap();
        let bills = rig.item("123456789012:bills:1700000000:shardId-0").await.unwrap();
        assert_eq!(bills, multi("bills", "shardId-0"));
    }
}
