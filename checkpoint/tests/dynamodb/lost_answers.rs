//! Lost answers and throttles, between the store's client and the emulator.

mod dynamodb_local {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use aws_sdk_dynamodb::Client;
    use shardmill_checkpoint::{
        AppState, Checkpoint, DynamoDbOptions, DynamoDbStore, Heartbeat, LeaseStore, Renewal, StoreError,
        Write,
    };

    use crate::faults::Faults;
    use crate::rig::{Rig, after, claim, get, key, lease, owned, report, settings};

    /// A store whose calls can be made to fail, and one on the same application whose calls cannot.
    fn stores() -> (DynamoDbStore, DynamoDbStore, Faults) {
        let (rig, faults) = (Rig::start(), Faults::default());
        let client = Client::from_conf(settings().interceptor(faults.clone()).build());
        let mut options = DynamoDbOptions::default();
        options.full_listing_interval = Duration::ZERO;
        let store = DynamoDbStore::from_client(client, &rig.table, "orders", &options).unwrap();
        let other = rig.open("orders");
        (store, other, faults)
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_13_an_acquisition_whose_answer_was_lost_is_recognised_by_its_token() {
        let (store, other, faults) = stores();
        owned(&other, "0", "a").await;
        store.heartbeat(&report("b")).await.unwrap();
        get(&store, "0").await;
        // The eviction's answer, and that of the acquisition.
        faults.lose.store(1, Ordering::Relaxed);
        let write = store.acquire(&key("0"), 1, &claim("b", "b1", 0)).await.unwrap();
        assert_eq!(write, Write::Done { counter: 2 });
        faults.lose.store(1, Ordering::Relaxed);
        let write = store.acquire(&key("0"), 2, &claim("b", "b2", 0)).await.unwrap();
        assert_eq!(write, Write::Done { counter: 3 });
        assert_eq!(get(&other, "0").await.token.as_deref(), Some("b2"));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn incident_13_a_write_refused_after_a_lost_answer_is_unknown_not_refused() {
        let (store, other, faults) = stores();
        owned(&store, "0", "a").await;
        faults.lose.store(1, Ordering::Relaxed);
        let checkpoint = Checkpoint { key: key("0"), counter: 1, position: after("7"), app: AppState::new() };
        let writes = store.checkpoint(&[checkpoint]).await.unwrap();
        assert!(matches!(writes.as_slice(), [Write::Unknown { .. }]), "{writes:?}");
        assert_eq!(get(&other, "0").await.checkpoint, after("7"), "it was written");
        // The caller finds out by asking again: the refusal shows its own token and the next counter.
        let writes = store.renew(&[Renewal { key: key("0"), counter: 1 }]).await.unwrap();
        let [Write::Refused { current: Some(current) }] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!((current.counter, current.token.as_deref()), (2, Some("a")));
        faults.lose.store(1, Ordering::Relaxed);
        let error = store.release(&key("0"), 2).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert_eq!(get(&other, "0").await.owner, None);
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn i10_a_heartbeat_whose_answer_was_lost_is_followed_by_one_that_counts() {
        let (store, other, faults) = stores();
        owned(&store, "0", "a").await;
        store.heartbeat(&report("a")).await.unwrap();
        let before = get(&other, "0").await.heartbeat;
        faults.lose.store(1, Ordering::Relaxed);
        let heartbeat = before + 2;
        assert_eq!(store.heartbeat(&report("a")).await.unwrap(), Heartbeat::Written { heartbeat });
        assert_eq!(get(&other, "0").await.heartbeat, heartbeat, "the lost one and its successor");
        assert!(matches!(store.heartbeat(&report("a")).await.unwrap(), Heartbeat::Written { .. }));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_throttled_element_is_unknown_and_the_others_are_written() {
        let (store, other, faults) = stores();
        for shard in ["0", "1"] {
            owned(&store, shard, "a").await;
        }
        // One throttle is retried within the call.
        let renewal = |shard: &str, counter| Renewal { key: key(shard), counter };
        faults.cut.store(1, Ordering::Relaxed);
        assert_eq!(store.renew(&[renewal("0", 1)]).await.unwrap(), [Write::Done { counter: 2 }]);
        // An element that was refused for its counter is without effect, so a throttle in place of it tells no lie.
        faults.throttle.store(3, Ordering::Relaxed);
        let writes = store.renew(&[renewal("1", 77)]).await.unwrap();
        let [Write::Unknown { reason }] = writes.as_slice() else { panic!("{writes:?}") };
        assert!(reason.contains("ProvisionedThroughputExceeded"), "{reason}");
        assert_eq!(get(&other, "0").await.counter, 2);
        assert_eq!(store.renew(&[renewal("1", 1)]).await.unwrap(), [Write::Done { counter: 2 }]);
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn without_a_connection_the_call_fails_and_nothing_is_written() {
        let (store, other, faults) = stores();
        owned(&store, "0", "a").await;
        faults.cut.store(100, Ordering::Relaxed);
        let error = store.renew(&[Renewal { key: key("0"), counter: 1 }]).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(store.heartbeat(&report("a")).await.is_err() && store.list().await.is_err());
        assert!(store.create(&[lease("1")]).await.is_err());
        faults.cut.store(0, Ordering::Relaxed);
        assert_eq!(get(&other, "0").await.counter, 1);
        assert!(matches!(store.heartbeat(&report("a")).await.unwrap(), Heartbeat::Written { .. }));
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn a_quiet_listing_reads_no_lease_and_sees_what_others_change() {
        let rig = Rig::start();
        let faults = Faults::default();
        let client = Client::from_conf(settings().interceptor(faults.clone()).build());
        let options = DynamoDbOptions::default();
        let store = DynamoDbStore::from_client(client, &rig.table, "orders", &options).unwrap();
        let other = rig.open_by_default("orders");
        owned(&store, "0", "a").await;
        store.list().await.unwrap();
        let calls = async || {
            let before = faults.calls.load(Ordering::Relaxed);
            let lease = get(&store, "0").await;
            (faults.calls.load(Ordering::Relaxed) - before, lease)
        };
        let (quiet, lease) = calls().await;
        assert_eq!((quiet, lease.counter), (1, 1), "only the number of changes");
        // This worker's own writes are known to it.
        store.renew(&[Renewal { key: key("0"), counter: 1 }]).await.unwrap();
        let (quiet, lease) = calls().await;
        assert_eq!((quiet, lease.counter), (1, 2));
        // Another worker's are read.
        other.renew(&[Renewal { key: key("0"), counter: 2 }]).await.unwrap();
        let (full, lease) = calls().await;
        assert_eq!((full, lease.counter), (3, 3), "the leases and the workers");
    }

    #[tokio::test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn one_eviction_serves_all_leases_of_a_worker() {
        let (store, other, faults) = stores();
        other.heartbeat(&report("a")).await.unwrap();
        let mut seen = 0;
        for shard in ["0", "1", "2"] {
            seen = owned(&other, shard, "a").await.heartbeat;
        }
        store.heartbeat(&report("b")).await.unwrap();
        store.list().await.unwrap();
        let mut calls = Vec::new();
        for shard in ["0", "1", "2"] {
            let before = faults.calls.load(Ordering::Relaxed);
            let write = store.acquire(&key(shard), 1, &claim("b", shard, seen)).await.unwrap();
            assert_eq!(write, Write::Done { counter: 2 });
            calls.push(faults.calls.load(Ordering::Relaxed) - before);
        }
        // The lease, and the number of changes; once the worker.
        assert_eq!(calls, [3, 2, 2]);
        assert_eq!(other.heartbeat(&report("a")).await.unwrap(), Heartbeat::Evicted);
    }
}
