//! Several threads and processes on one SQLite file, and the death of one of them.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;

use common::{claim, key, new_lease};
use shardmill_checkpoint::{Checkpoint, Claim, LeaseStore, ProcessIdentity, SqliteStore, Write};
use shardmill_engine::{Position, Seq};

const FILE: &str = "SHARDMILL_TEST_FILE";
const WORKER: &str = "SHARDMILL_TEST_WORKER";

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[test]
fn threads_that_create_one_file_at_the_same_moment_all_get_it() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shardmill.db");
        let together = Barrier::new(8);
        let created: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        let store = SqliteStore::open(&path, "orders").unwrap();
                        block_on(store.create(&[new_lease("shardId-0"), new_lease("shardId-1")])).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(created, 2, "each lease was created by one of them");
    }
}

#[test]
fn i10_of_workers_with_a_connection_each_only_the_owner_moves_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shardmill.db");
    let mut written: BTreeMap<u64, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let path = &path;
                scope.spawn(move || block_on(acquire_and_write(path, n)))
            })
            .collect();
        for number in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
            *written.entry(number).or_default() += 1;
        }
    });
    assert_eq!(written.len(), 100);
    assert!(written.values().all(|times| *times == 1), "two owners wrote after one counter: {written:?}");
    let lease = block_on(SqliteStore::open(&path, "orders").unwrap().list()).unwrap().remove(0);
    let last = *written.keys().last().unwrap();
    assert_eq!(lease.checkpoint, Position::After(Seq::plain(last.to_string())));
}

/// Steals the lease from the others over and over, and returns which 25 numbers it wrote, each named after its counter.
async fn acquire_and_write(path: &Path, n: usize) -> Vec<u64> {
    let store = SqliteStore::open(path, "orders").unwrap();
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    let mut written = Vec::new();
    let mut seen = 0;
    while written.len() < 25 {
        let claim = claim(&format!("worker-{n}"), &format!("token-{n}-{seen}"));
        let counter = match store.acquire(&key("shardId-0"), seen, &claim).await.unwrap() {
            Write::Done { counter } => counter,
            Write::Refused { current } => {
                seen = current.unwrap().counter;
                continue;
            }
            Write::Unknown { reason } => panic!("{reason}"),
        };
        match store
            .checkpoint(&[common::checkpoint("shardId-0", counter, &counter.to_string())])
            .await
            .unwrap()[0]
        {
            Write::Done { counter: next } => {
                written.push(counter);
                seen = next;
            }
            Write::Refused { ref current } => seen = current.as_ref().unwrap().counter,
            Write::Unknown { ref reason } => panic!("{reason}"),
        }
    }
    written
}

/// Not a test: the other process of the tests below, which checkpoints 1, 2, 3... and says so, until it is killed.
#[test]
#[ignore = "started by other tests"]
fn a_worker_that_checkpoints_until_it_is_killed() {
    let (Some(path), Ok(name)) = (std::env::var_os(FILE), std::env::var(WORKER)) else { return };
    block_on(async {
        let store = SqliteStore::open(path, "orders").unwrap();
        store.create(&[new_lease(&name)]).await.unwrap();
        let process = ProcessIdentity::current();
        let claim = Claim { process, ..claim(&name, "t") };
        let Write::Done { mut counter } = store.acquire(&key(&name), 0, &claim).await.unwrap() else {
            return;
        };
        for number in 1_u64.. {
            let position = Position::After(Seq::plain(number.to_string()));
            let app = [("number".to_owned(), number.to_string())].into();
            let write = Checkpoint { key: key(&name), counter, position, app };
            let [Write::Done { counter: next }] = store.checkpoint(&[write]).await.unwrap()[..] else {
                return;
            };
            counter = next;
            // Past the test harness, which keeps what is printed.
            writeln!(std::io::stderr(), "wrote {number}").unwrap();
        }
    });
}

fn start(path: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_worker_that_checkpoints_until_it_is_killed", "--ignored", "--nocapture"])
        .env(FILE, path)
        .env(WORKER, name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn processes_that_are_killed_lose_nothing_that_they_were_told_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shardmill.db");
    let store = SqliteStore::open(&path, "orders").unwrap();
    let mut workers: Vec<_> = ["w1", "w2"].map(|name| (name, start(&path, name))).into();
    let mut seen = BTreeMap::new();
    for (name, worker) in &mut workers {
        let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut numbers = lines.by_ref().filter_map(|line| line.strip_prefix("wrote ")?.parse::<u64>().ok());
        assert!(numbers.any(|number| number == 50), "worker {name} ended");
        if cfg!(target_os = "linux") {
            assert!(!process_of(&store, name).is_dead());
        }
        worker.kill().unwrap();
        seen.insert(*name, numbers.last().unwrap_or(50));
        if cfg!(target_os = "linux") {
            let process = process_of(&store, name);
            while !process.is_dead() {
                std::thread::yield_now();
            }
        }
        worker.wait().unwrap();
    }
    drop(store);
    for lease in block_on(SqliteStore::open(&path, "orders").unwrap().list()).unwrap() {
        let number: u64 = lease.app["number"].parse().unwrap();
        let told = seen[lease.key.shard.as_str()];
        assert!(number == told || number == told + 1, "{number} is stored, {told} was the last answer");
        assert_eq!(lease.checkpoint, Position::After(Seq::plain(number.to_string())));
        assert_eq!(lease.counter, number + 1);
    }
    assert_eq!(seen.len(), 2);
}

fn process_of(store: &SqliteStore, name: &str) -> ProcessIdentity {
    let leases = block_on(store.list()).unwrap();
    let lease = leases.into_iter().find(|lease| lease.key.shard.as_str() == name).unwrap();
    lease.process.unwrap_or_else(|| panic!("worker {name} left no process"))
}
