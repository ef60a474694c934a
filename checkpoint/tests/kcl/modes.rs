//! Who decides which worker gets which lease: KCL's leader or this library's plan.

mod dynamodb_local {
    use std::time::{Duration, SystemTime};

    use aws_sdk_dynamodb::types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    };
    use shardmill_checkpoint::{LeaseStore, WorkerId};

    use crate::rig::{Item, Rig, item, kcl_lease, number, owned, report, text};

    fn migration(version: &str) -> Item {
        item(&[
            ("leaseKey", text("Migration3.0")),
            ("entityType", text("CLIENT_VERSION_MIGRATION")),
            ("cv", text(&format!("CLIENT_VERSION_{version}"))),
        ])
    }

    fn leader(version: &str) -> Item {
        let kind = ("entityType", text("LEADER"));
        item(&[("leaseKey", text("Leader")), kind, ("recordVersionNumber", text(version))])
    }

    fn java(lut: u64) -> Item {
        let kind = ("entityType", text("WORKER_METRIC_STATS"));
        item(&[("leaseKey", text("java")), kind, ("lut", number(lut))])
    }

    fn now() -> u64 {
        SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
    }

    async fn is_led(items: &[Item]) -> bool {
        Rig::with_items(items).await.open().list_readable().await.unwrap().led
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_leader_decides_where_all_workers_are_of_kcl_3_and_one_of_them_lives() {
        assert!(!is_led(&[]).await, "a table of this library's");
        assert!(!is_led(&[kcl_lease("shardId-0", Some("java"), "7")]).await, "KCL 2");
        for version in ["2X", "UPGRADE_FROM_2X"] {
            assert!(!is_led(&[migration(version), leader("1")]).await, "{version}");
        }
        for version in ["3X", "3X_WITH_ROLLBACK", "INIT"] {
            assert!(is_led(&[migration(version), leader("1")]).await, "{version}");
            assert!(is_led(&[migration(version), java(now())]).await, "a worker may come to lead: {version}");
            assert!(!is_led(&[migration(version)]).await, "nobody is there: {version}");
            assert!(!is_led(&[migration(version), java(now() - 600)]).await, "it is long gone: {version}");
        }
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_leader_that_gives_no_sign_of_life_no_longer_decides() {
        let rig = Rig::with_items(&[migration("3X"), leader("1")]).await;
        let store = rig.open();
        assert!(store.list_readable().await.unwrap().led);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(119)).await;
        tokio::time::resume();
        rig.put(leader("2")).await;
        assert!(store.list_readable().await.unwrap().led);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(119)).await;
        tokio::time::resume();
        assert!(store.list_readable().await.unwrap().led);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        assert!(!store.list_readable().await.unwrap().led, "its workers must not starve");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_worker_shows_itself_to_a_leader_in_kcls_way_and_is_gone_after_its_stop() {
        let rig = Rig::with_items(&[migration("3X"), leader("1")]).await;
        let store = rig.open();
        owned(&store, "shardId-0", "ours").await;
        store.heartbeat(&report("ours")).await.unwrap();
        let shown = rig.item("ours").await.unwrap();
        let nothing = AttributeValue::M(Item::new());
        assert_eq!((&shown["sts"], &shown["opr"]), (&nothing, &nothing));
        assert_eq!((&shown["entityType"], &shown["sup"]), (&text("WORKER_METRIC_STATS"), &number(1)));
        let updated: u64 = shown["lut"].as_n().unwrap().parse().unwrap();
        assert!(updated.abs_diff(now()) < 60 && shown["slu"] == shown["lut"]);
        store.forget_worker(&WorkerId::new("ours"), u64::MAX).await.unwrap();
        assert_eq!(rig.item("ours").await, None);
        let plain = Rig::start();
        let store = plain.open();
        owned(&store, "shardId-0", "ours").await;
        store.heartbeat(&report("ours")).await.unwrap();
        assert_eq!(plain.item("ours").await, None, "KCL 2 would take it for a lease");
    }

    async fn own_table(rig: &Rig, kind: &str, key: &str) -> String {
        let name = format!("{}-{kind}", rig.table);
        let attribute =
            AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S);
        let hash = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash);
        let create = rig.client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
        let create =
            create.attribute_definitions(attribute.build().unwrap()).key_schema(hash.build().unwrap());
        create.send().await.unwrap();
        name
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn the_tables_of_kcl_3_before_3_5_are_looked_at_too() {
        let rig = Rig::start();
        let coordinator = own_table(&rig, "CoordinatorState", "key").await;
        let metrics = own_table(&rig, "WorkerMetricStats", "wid").await;
        for (name, attribute, value) in
            [("Migration3.0", "cv", "CLIENT_VERSION_3X"), ("Leader", "recordVersionNumber", "1")]
        {
            let put = rig.client.put_item().table_name(&coordinator).item("key", text(name));
            put.item(attribute, text(value)).send().await.unwrap();
        }
        let store = rig.open();
        owned(&store, "shardId-0", "ours").await;
        assert!(store.list_readable().await.unwrap().led);
        store.heartbeat(&report("ours")).await.unwrap();
        let get = rig.client.get_item().table_name(&metrics).key("wid", text("ours"));
        assert!(get.clone().send().await.unwrap().item.unwrap().contains_key("lut"));
        assert_eq!(rig.item("ours").await, None, "the lease table stays free of it");
        store.forget_worker(&WorkerId::new("ours"), u64::MAX).await.unwrap();
        assert_eq!(get.send().await.unwrap().item, None);
    }
}
