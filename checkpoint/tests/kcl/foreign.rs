//! Next to workers of KCL, and items that are no leases.

mod dynamodb_local {
    use std::time::Duration;

    use aws_sdk_dynamodb::types::AttributeValue;
    use shardmill_checkpoint::{
        AppState, Checkpoint, Lease, LeaseStore, Ownership, Renewal, WorkerId, Write,
    };
    use shardmill_engine::{Position, Seq};

    use crate::rig::{
        Item, Rig, after, claim, get, item, kcl_lease, key, lease, number, owned, report, text,
    };

    const SHARD: &str = "shardId-000000000001";

    fn other_items() -> Vec<Item> {
        let strange = AttributeValue::M([("n".to_owned(), number(7))].into());
        let of = |name: &str, kind: Option<&str>| {
            let mut row = item(&[("leaseKey", text(name)), ("strange", strange.clone())]);
            row.extend(kind.map(|kind| ("entityType".to_owned(), text(kind))));
            row
        };
        vec![
            of("Leader", Some("LEADER")),
            of("java-worker-1", Some("WORKER_METRIC_STATS")),
            of("123456789012:orders:1700000000", Some("STREAM")),
            of("shardId-000000000009", Some("SOMETHING_NEW")),
            of("TableMigration3.5", None),
            of("somebody's notes", None),
        ]
    }

    /// Every kind of write, on a lease that `a` holds at the counter 1.
    async fn write_everything(rig: &Rig) {
        let store = rig.open();
        store.list().await.unwrap();
        store.heartbeat(&report("a")).await.unwrap();
        store.create(&[lease(SHARD)]).await.unwrap();
        store.renew(&[Renewal { key: key(SHARD), counter: 1 }]).await.unwrap();
        let app = AppState::from([("pinnedStart".to_owned(), "5".to_owned())]);
        let end = |counter, position, app| [Checkpoint { key: key(SHARD), counter, position, app }];
        assert_eq!(store.checkpoint(&end(2, after("9"), app)).await.unwrap(), [Write::Done { counter: 3 }]);
        store.set_children(&key(SHARD), &["shardId-2".into()]).await.unwrap();
        store.hand_off(&key(SHARD), &WorkerId::new("a"), &WorkerId::new("b")).await.unwrap();
        let (owner, checkpoint_owner) = (Some(WorkerId::new("b")), Some(WorkerId::new("a")));
        let seen = Ownership { counter: 3, owner, checkpoint_owner };
        store.assign(&key(SHARD), &seen, &WorkerId::new("b")).await.unwrap();
        store.acquire(&key(SHARD), 4, &claim("b", "b")).await.unwrap();
        assert_eq!(store.release(&key(SHARD), 5).await.unwrap(), Write::Done { counter: 6 });
        store.forget_worker(&WorkerId::new("a"), u64::MAX).await.unwrap();
        store.forget_worker(&WorkerId::new("java-worker-1"), u64::MAX).await.unwrap();
        store.delete(&key("shardId-000000000009")).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_29_items_and_attributes_of_other_programs_survive_every_write() {
        let rig = Rig::with_items(&other_items()).await;
        let before = owned(&rig.open(), SHARD, "a").await;
        assert_eq!(before.counter, 1);
        let strange = [("strange", text("x")), ("fromAnotherVersion", AttributeValue::N("1.5".into()))];
        for (name, value) in &strange {
            rig.update(SHARD, &format!("SET {name} = :value"), &[(":value", value.clone())]).await;
        }
        write_everything(&rig).await;
        let row = rig.item(SHARD).await.unwrap();
        for (name, value) in &strange {
            assert_eq!(&row[*name], value, "{name}");
        }
        for item in other_items() {
            let name = item["leaseKey"].as_s().unwrap();
            assert_eq!(rig.item(name).await.as_ref(), Some(&item), "{name}");
        }
        let leases = rig.open().list().await.unwrap();
        assert_eq!(leases.len(), 1, "what is no lease is not listed: {leases:?}");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_lease_of_kcl_goes_on_from_its_checkpoint_here_and_back_there() {
        let mut row = kcl_lease(SHARD, None, "495903");
        row.insert("pendingCheckpoint".to_owned(), text("495999"));
        row.insert("throughputKBps".to_owned(), number(12));
        let rig = Rig::with_items(&[row]).await;
        let store = rig.open();
        let found = get(&store, SHARD).await;
        assert_eq!((&found.checkpoint, found.token.as_ref()), (&after("495903"), None));
        let taken = store.acquire(&found.key, found.counter, &claim("a", "t")).await.unwrap();
        assert_eq!(taken, Write::Done { counter: 8 });
        let row = rig.item(SHARD).await.unwrap();
        assert!(!row.contains_key("throughputKBps"), "a leader then takes it for the average");
        assert_eq!(store.create(&[lease(SHARD)]).await.unwrap(), 0, "it stays as it is");
        let app = AppState::from([("earliestWindow".to_owned(), "7".to_owned())]);
        let write = Checkpoint { key: key(SHARD), counter: 8, position: after("495904"), app: app.clone() };
        assert_eq!(store.checkpoint(&[write]).await.unwrap(), [Write::Done { counter: 9 }]);
        let back = rig.item(SHARD).await.unwrap();
        assert_eq!((&back["checkpoint"], &back["leaseCounter"]), (&text("495904"), &number(9)));
        assert!(!back.contains_key("pendingCheckpoint"), "void since the checkpoint moved");
        rig.kcl_assigns(SHARD, "java").await;
        rig.update(SHARD, "SET checkpoint = :at", &[(":at", text("495950"))]).await;
        let theirs = get(&store, SHARD).await;
        assert_eq!((&theirs.checkpoint, &theirs.app), (&after("495950"), &app));
    }

    /// The end of the aggregate may still be to come, and it is one record here.
    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn an_aggregate_in_which_kcl_stopped_is_read_again() {
        let mut row = kcl_lease(SHARD, None, "495903");
        row.insert("checkpointSubSequenceNumber".to_owned(), number(4));
        let rig = Rig::with_items(&[row]).await;
        assert_eq!(get(&rig.open(), SHARD).await.checkpoint, Position::At(Seq::plain("495903")));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn i15_latest_of_kcl_is_pinned_when_the_lease_is_taken() {
        let rig = Rig::with_items(&[kcl_lease(SHARD, None, "LATEST")]).await;
        let store = rig.open();
        let found = get(&store, SHARD).await;
        let Position::AtTimestamp(pinned) = found.checkpoint else { panic!("{found:?}") };
        store.acquire(&found.key, found.counter, &claim("a", "t")).await.unwrap();
        assert_eq!(rig.item(SHARD).await.unwrap()["checkpoint"], text("LATEST"), "for KCL");
        assert_eq!(
            get(&rig.open(), SHARD).await.checkpoint,
            Position::AtTimestamp(pinned),
            "for any later run"
        );
    }

    fn shown(lease: &Lease) -> (Option<&str>, Option<&str>, Option<&str>, Option<Duration>) {
        (
            lease.owner.as_ref().map(WorkerId::as_str),
            lease.checkpoint_owner.as_ref().map(WorkerId::as_str),
            lease.token.as_deref(),
            lease.lease_time,
        )
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn an_acquisition_is_over_once_kcl_has_raised_the_counter() {
        let rig = Rig::start();
        let store = rig.open();
        owned(&store, SHARD, "a").await;
        rig.kcl_assigns(SHARD, "java").await;
        let ten = Some(Duration::from_secs(10));
        assert_eq!(shown(&get(&store, SHARD).await), (Some("java"), None, Some("kcl"), ten));
        // Given back by a leader: this worker's, and not by its earlier acquisition.
        rig.kcl_assigns(SHARD, "a").await;
        assert_eq!(shown(&get(&store, SHARD).await), (Some("a"), None, Some("kcl"), ten));
        let stale = store.renew(&[Renewal { key: key(SHARD), counter: 1 }]).await.unwrap();
        assert!(matches!(stale.as_slice(), [Write::Refused { .. }]), "{stale:?}");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_21_a_handoff_that_a_leader_has_begun_is_ended_by_the_old_owner() {
        let rig = Rig::start();
        let store = rig.open();
        owned(&store, SHARD, "a").await;
        rig.kcl_initiates_handoff(SHARD, "a", "java").await;
        let lease = get(&store, SHARD).await;
        assert_eq!(shown(&lease), (Some("java"), Some("a"), Some("a"), Some(Duration::from_secs(10))));
        let write = Checkpoint { key: key(SHARD), counter: 1, position: after("9"), app: AppState::new() };
        assert_eq!(store.checkpoint(&[write]).await.unwrap(), [Write::Done { counter: 2 }], "it works on");
        let seen = Ownership { counter: 2, owner: lease.owner, checkpoint_owner: lease.checkpoint_owner };
        let java = WorkerId::new("java");
        assert_eq!(store.assign(&key(SHARD), &seen, &java).await.unwrap(), Write::Done { counter: 3 });
        let row = rig.item(SHARD).await.unwrap();
        assert_eq!((&row["leaseOwner"], &row["checkpoint"]), (&text("java"), &text("9")));
        assert!(!row.contains_key("checkpointOwner") && !row.contains_key("shardmillToken"));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_22_a_handoff_between_kcls_workers_has_longer_before_the_lease_is_free() {
        let mut row = kcl_lease(SHARD, Some("me"), "7");
        row.insert("checkpointOwner".to_owned(), text("java"));
        let rig = Rig::with_items(&[row]).await;
        let store = rig.open();
        let lease = get(&store, SHARD).await;
        let patience = Some(Duration::from_secs(40));
        assert_eq!(shown(&lease), (Some("me"), Some("java"), Some("kcl"), patience), "only the next owner");
        // Nothing has moved for that long: whoever takes it ends the handoff.
        let taken = store.acquire(&key(SHARD), 7, &claim("me", "t")).await.unwrap();
        assert_eq!(taken, Write::Done { counter: 8 });
        assert!(!rig.item(SHARD).await.unwrap().contains_key("checkpointOwner"));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn kcls_workers_are_known_by_the_leases_that_they_renew() {
        let rig = Rig::with_items(&[
            kcl_lease("shardId-0", Some("java"), "7"),
            kcl_lease("shardId-1", Some("java"), "7"),
        ])
        .await;
        let store = rig.open();
        owned(&store, "shardId-2", "a").await;
        let workers = store.list_readable().await.unwrap().workers;
        let [java] = workers.as_slice() else { panic!("{workers:?}") };
        assert!(java.report.foreign && java.report.leases == 2 && java.report.id.as_str() == "java");
        assert_eq!(store.list_readable().await.unwrap().workers, workers, "no sign of life");
        rig.kcl_renews("shardId-1").await;
        assert_ne!(store.list_readable().await.unwrap().workers[0].heartbeat, java.heartbeat);
    }
}
