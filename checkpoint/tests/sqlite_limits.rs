//! The store where the process can open no more files. One test, as the limit is the whole process's.
#![cfg(all(feature = "sqlite", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs::File;
use std::os::fd::AsRawFd as _;

use common::{checkpoint, key, new_lease};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shardmill_checkpoint::{LeaseStore, Renewal, SqliteStore, Write};

const SHARDS: usize = 3_000;

fn shard(n: usize) -> String {
    format!("shardId-{n:012}")
}

/// Lets the process open nothing more, as when every place for a temporary file is read-only; the limit before.
fn open_nothing_more() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    // The next descriptor is the lowest one that is free.
    let next = File::open("/dev/null").unwrap().as_raw_fd();
    let limit = Rlimit { current: Some(u64::try_from(next).unwrap()), maximum: before.maximum };
    setrlimit(Resource::Nofile, limit).unwrap();
    before
}

#[tokio::test]
async fn incident_80_three_thousand_leases_are_kept_where_no_temporary_file_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("shardmill.db"), "orders").unwrap();
    let leases: Vec<_> = (0..SHARDS).map(|n| new_lease(&shard(n))).collect();
    store.create(&leases[..1]).await.unwrap();
    let before = open_nothing_more();
    assert!(File::open("/dev/null").is_err(), "nothing can be opened");
    assert_eq!(store.create(&leases).await.unwrap(), SHARDS - 1);
    // One call for all, as renewals are.
    let renewals: Vec<_> = (0..SHARDS).map(|n| Renewal { key: key(&shard(n)), counter: 0 }).collect();
    let renewed = store.renew(&renewals).await.unwrap();
    assert!(renewed.iter().all(|write| *write == Write::Done { counter: 1 }));
    // Many calls that share a commit, as releases do.
    let calls: Vec<_> = (0..SHARDS)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.checkpoint(&[checkpoint(&shard(n), 1, "5")]).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), [Write::Done { counter: 2 }]);
    }
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(store.list().await.unwrap().len(), SHARDS);
}
