//! The store on DynamoDB, against DynamoDB Local.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/emulator.rs"]
mod emulator;
#[path = "../common/faults.rs"]
mod faults;
mod lost_answers;
mod rig;

mod dynamodb_local {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    };
    use shardmill_checkpoint::{
        AppState, Checkpoint, DynamoDbOptions, DynamoDbStore, LeaseStore, OtherApplication, Renewal,
        StoreError, Write, conformance,
    };
    use shardmill_engine::{LeaseKey, Position};

    use crate::rig::{Rig, after, claim, get, item_of, key, lease, owned, report, text, unique};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn the_dynamodb_store_passes() {
        let rig = Rig::start();
        conformance::run_all(async || rig.open(&unique("orders"))).await;
        conformance::run_shared(async || {
            let application = unique("orders");
            (rig.open(&application), rig.open(&application))
        })
        .await;
    }

    /// What this worker has not written itself is seen by the number of changes, which checkpoints do not raise.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn the_dynamodb_store_passes_with_listings_that_read_only_what_changed() {
        let rig = Rig::start();
        conformance::run_all(async || rig.open_by_default(&unique("orders"))).await;
        conformance::run_shared(async || {
            let application = unique("orders");
            (rig.open_by_default(&application), rig.open_by_default(&application))
        })
        .await;
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn two_applications_in_one_dynamodb_table_share_nothing() {
        let rig = Rig::start();
        conformance::applications_are_separate(rig.open("f1@orders"), rig.open("f2@orders")).await;
        let store = rig.open("f3@orders");
        let other = store.for_application("f4@orders").unwrap();
        conformance::applications_are_separate(store, other).await;
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn attributes_of_other_programs_survive_every_write() {
        let rig = Rig::start();
        let store = rig.open("orders");
        let held = owned(&store, "0", "a").await;
        store.heartbeat(&report("a")).await.unwrap();
        let strange = AttributeValue::L(vec![text("x")]);
        for item in [item_of("0"), "worker#a".into(), "application".into()] {
            rig.set("orders", &item, "strange", strange.clone()).await;
        }
        let nested = AttributeValue::M([("n".to_owned(), AttributeValue::N("7".into()))].into());
        rig.set("orders", &item_of("0"), "app", nested.clone()).await;
        store.heartbeat(&report("a")).await.unwrap();
        let app = AppState::from([("pinned".to_owned(), "5".to_owned())]);
        let checkpoint = Checkpoint { key: held.key.clone(), counter: 1, position: after("9"), app };
        assert_eq!(store.checkpoint(&[checkpoint]).await.unwrap(), [Write::Done { counter: 2 }]);
        store.renew(&[Renewal { key: held.key.clone(), counter: 2 }]).await.unwrap();
        store.set_children(&held.key, &["1".into()]).await.unwrap();
        store.acquire(&held.key, 3, &claim("a", "again", 0)).await.unwrap();
        store.release(&held.key, 4).await.unwrap();
        store.create(&[lease("0")]).await.unwrap();
        for item in [item_of("0"), "worker#a".into(), "application".into()] {
            assert_eq!(rig.item("orders", &item).await.unwrap()["strange"], strange, "{item}");
        }
        let row = rig.item("orders", &item_of("0")).await.unwrap();
        let app = row["app"].as_m().unwrap();
        assert_eq!((&app["n"], &app["pinned"]), (&AttributeValue::N("7".into()), &text("5")));
        assert_eq!(row["checkpoint"], text("9"), "human-readable");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_table_of_another_program_is_refused_and_stays_as_it_is() {
        let rig = Rig::start();
        let attribute = AttributeDefinition::builder().attribute_name("leaseKey");
        let attribute = attribute.attribute_type(ScalarAttributeType::S).build().unwrap();
        let hash = KeySchemaElement::builder().attribute_name("leaseKey").key_type(KeyType::Hash);
        let create =
            rig.client.create_table().table_name(&rig.table).billing_mode(BillingMode::PayPerRequest);
        let create = create.attribute_definitions(attribute).key_schema(hash.build().unwrap());
        create.send().await.unwrap();
        let error = rig.open("orders").list().await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains("has the key leaseKey (HASH, S)"), "{error}");
        let scan = rig.client.scan().table_name(&rig.table).send().await.unwrap();
        assert_eq!(scan.count(), 0);
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_table_is_created_on_demand_and_only_if_that_is_wanted() {
        let rig = Rig::start();
        let mut options = DynamoDbOptions::default();
        options.create_table = false;
        let error = rig.open_with("orders", &options).list().await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains("application (S)"), "{error}");
        let stores: Vec<DynamoDbStore> = (0..4).map(|_| rig.open("orders")).collect();
        let listings = stores.iter().map(|store| store.list());
        for listing in futures::future::join_all(listings).await {
            assert_eq!(listing.unwrap(), []);
        }
        let table = rig.client.describe_table().table_name(&rig.table).send().await.unwrap().table.unwrap();
        let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
        assert_eq!(billing, Some(&BillingMode::PayPerRequest));
        let expiry = rig.client.describe_time_to_live().table_name(&rig.table).send().await.unwrap();
        let expiry = expiry.time_to_live_description.unwrap();
        assert_eq!(expiry.attribute_name(), Some("expires"));
        assert_eq!(rig.open_with("orders", &options).list().await.unwrap(), []);
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn other_applications_that_read_a_stream_are_found_in_any_epoch() {
        let rig = Rig::start();
        let [one, two, three] = ["one", "two # %", "three"].map(|name| rig.open(name));
        let older = LeaseKey { epoch: "1600000000".into(), ..key("0") };
        two.create(&[lease("0"), lease("1")]).await.unwrap();
        let mut old = lease("0");
        old.key = older;
        two.create(&[old]).await.unwrap();
        let mut elsewhere = lease("0");
        elsewhere.key.stream = "orders2".into();
        three.create(&[elsewhere]).await.unwrap();
        one.create(&[lease("0")]).await.unwrap();
        let other =
            |epoch: &str, leases| OtherApplication { name: "two # %".into(), epoch: epoch.into(), leases };
        assert_eq!(one.others(&key("0")).await.unwrap(), [other("1600000000", 1), other("1700000000", 2)]);
        two.delete(&key("0")).await.unwrap();
        two.delete(&key("1")).await.unwrap();
        assert_eq!(one.others(&key("7")).await.unwrap(), [other("1600000000", 1)]);
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_96_a_lease_that_cannot_be_read_costs_no_other_and_names_the_remedy() {
        let rig = Rig::start();
        let store = rig.open_by_default("orders");
        for shard in ["0", "1"] {
            owned(&store, shard, "a").await;
        }
        let end = Checkpoint { key: key("0"), counter: 1, position: after("9"), app: AppState::new() };
        store.checkpoint(&[end]).await.unwrap();
        // Set back by hand, and the text that orders it forgotten.
        rig.set("orders", &item_of("0"), "checkpoint", text("TRIM_HORIZON")).await;
        let list = rig.open("orders").list_readable().await.unwrap();
        assert_eq!(list.leases.iter().map(|lease| &lease.key).collect::<Vec<_>>(), [&key("1")]);
        assert_eq!(list.unreadable[0].key, key("0"));
        assert!(list.unreadable[0].reason.contains("remove checkpointOrder"), "{:?}", list.unreadable);
        let write = rig.open("orders").acquire(&key("0"), 2, &claim("b", "b", 0)).await.unwrap();
        assert_eq!(write, Write::Refused { current: None });
        let remove = rig.client.update_item().table_name(&rig.table).key("application", text("orders"));
        let remove = remove.key("item", text(&item_of("0"))).update_expression("REMOVE checkpointOrder");
        remove.send().await.unwrap();
        let store = rig.open("orders");
        assert_eq!(get(&store, "0").await.checkpoint, Position::TrimHorizon);
        let forward = Checkpoint { key: key("0"), counter: 2, position: after("1"), app: AppState::new() };
        assert_eq!(store.checkpoint(&[forward]).await.unwrap(), [Write::Done { counter: 3 }]);
    }
}
