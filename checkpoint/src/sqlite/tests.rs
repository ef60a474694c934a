//! What can only be shown from inside: a full disk, grouped commits, errors without a file to provoke them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::{Connection, ErrorCode, StatementStatus, ffi};
use shardmill_engine::{HashRange, Position, Seq};
use tempfile::TempDir;

use super::*;
use crate::AppState;

fn key(n: usize) -> LeaseKey {
    LeaseKey {
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        stream: "orders".into(),
        epoch: "1700000000".into(),
        shard: ShardId::new(format!("shardId-{n:012}")),
    }
}

fn new_lease(n: usize) -> NewLease {
    NewLease {
        key: key(n),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_range: None,
        app: AppState::new(),
    }
}

fn checkpoint(n: usize, counter: u64, number: &str) -> Checkpoint {
    let position = Position::After(Seq::plain(number));
    Checkpoint { key: key(n), counter, position, app: AppState::new() }
}

async fn store_with(leases: usize) -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { busy_timeout: Duration::from_secs(60) };
    let store = SqliteStore::open_with(folder.path().join("s.db"), "app", &options).unwrap();
    let leases: Vec<_> = (0..leases).map(new_lease).collect();
    store.create(&leases).await.unwrap();
    (folder, store)
}

/// Runs SQL on the store's own connection, outside of what others can do to it.
async fn inside(store: &SqliteStore, sql: &'static str) {
    store.call(Access::Read, move |leases| Ok(leases.connection.execute_batch(sql)?)).await.unwrap();
}

/// Keeps the store's thread busy until the sender speaks, so that what is called meanwhile waits together.
async fn busy(store: &SqliteStore) -> std::sync::mpsc::Sender<()> {
    let (end, ended) = std::sync::mpsc::channel();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let store = store.clone();
    tokio::spawn(async move {
        let work = move |_: &Leases<'_>| {
            begin.send(()).unwrap();
            ended.recv().unwrap();
            Ok(())
        };
        store.call(Access::Read, work).await.unwrap();
    });
    begun.await.unwrap();
    end
}

/// Makes all calls in one group.
async fn all_at_once<T: Send + 'static>(
    store: &SqliteStore,
    calls: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let gate = busy(store).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let all = calls.len();
    let tasks: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let begun = Arc::clone(&begun);
            tokio::spawn(async move {
                // On one thread nothing runs between this and the first poll of the call, which queues it.
                begun.fetch_add(1, Ordering::Relaxed);
                call.await
            })
        })
        .collect();
    while begun.load(Ordering::Relaxed) < all {
        tokio::task::yield_now().await;
    }
    gate.send(()).unwrap();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn calls_that_wait_at_the_same_moment_share_a_commit() {
    let (_folder, store) = store_with(300).await;
    let before = store.commits();
    let calls = (0..300).map(|n| {
        let store = store.clone();
        async move { store.checkpoint(&[checkpoint(n, 0, "5")]).await.unwrap() }
    });
    for answer in all_at_once(&store, calls.collect()).await {
        assert_eq!(answer, [Write::Done { counter: 1 }]);
    }
    assert_eq!(store.commits() - before, 1, "300 calls, one commit");
    assert!(store.list().await.unwrap().iter().all(|lease| lease.counter == 1));
}

/// SQLite plans a statement anew when a value is bound by which it chose its plan: that costs more than the statement.
#[tokio::test]
async fn a_statement_is_prepared_once() {
    let (_folder, store) = store_with(100).await;
    for n in 0..100 {
        store.checkpoint(&[checkpoint(n, 0, "5")]).await.unwrap();
    }
    let counts = |leases: &Leases<'_>| {
        let find = leases.connection.prepare_cached(leases::FIND)?;
        Ok([StatementStatus::Run, StatementStatus::RePrepare].map(|status| find.get_status(status)))
    };
    let [runs, prepared_again] = store.call(Access::Read, counts).await.unwrap();
    assert_eq!((runs, prepared_again), (100, 0));
}

#[tokio::test]
async fn a_listing_reads_the_leases_only_if_they_may_be_others_than_are_known() {
    let (_folder, store) = store_with(3).await;
    inside(
        &store,
        "CREATE TRIGGER fail BEFORE UPDATE ON leases WHEN new.shard = 'shardId-000000000002'
         BEGIN SELECT RAISE(ABORT, 'not this one'); END;",
    )
    .await;
    let counters = async || store.list().await.unwrap().iter().map(|l| l.counter).collect::<Vec<_>>();
    let reads = async || {
        let runs = |leases: &Leases<'_>| {
            Ok(leases.connection.prepare_cached(leases::LIST)?.get_status(StatementStatus::Run))
        };
        store.call(Access::Read, runs).await.unwrap()
    };
    assert_eq!((counters().await, reads().await), (vec![0, 0, 0], 1));
    store.checkpoint(&[checkpoint(1, 0, "5")]).await.unwrap();
    let report = WorkerReport::new(WorkerId::new("a"), Duration::from_secs(10));
    store.heartbeat(&report).await.unwrap();
    assert_eq!((counters().await, reads().await), (vec![0, 1, 0], 1), "its own writes are known");

    let other = SqliteStore::open(store.path(), "app").unwrap();
    other.checkpoint(&[checkpoint(0, 0, "6")]).await.unwrap();
    assert_eq!((counters().await, reads().await), (vec![1, 1, 0], 2), "another connection has written");
    other.heartbeat(&WorkerReport { id: WorkerId::new("b"), ..report }).await.unwrap();
    assert_eq!((counters().await, reads().await), (vec![1, 1, 0], 3), "it might have been a lease");

    store.checkpoint(&[checkpoint(1, 1, "7"), checkpoint(2, 0, "7")]).await.unwrap_err();
    assert_eq!((counters().await, reads().await), (vec![1, 1, 0], 4), "what was written is undone");
    assert_eq!((counters().await, reads().await), (vec![1, 1, 0], 4));
    store.delete(&key(0)).await.unwrap();
    store.create(&[new_lease(4)]).await.unwrap();
    assert_eq!((counters().await, reads().await), (vec![1, 0, 0], 5));
}

#[tokio::test]
async fn in_a_shared_commit_a_refusal_or_a_failure_hinders_nobody_else() {
    let (_folder, store) = store_with(4).await;
    inside(
        &store,
        "CREATE TRIGGER fail BEFORE UPDATE ON leases WHEN new.shard = 'shardId-000000000002'
         BEGIN SELECT RAISE(ABORT, 'not this one'); END;",
    )
    .await;
    let call = |batch: Vec<Checkpoint>| {
        let store = store.clone();
        async move { store.checkpoint(&batch).await }
    };
    let calls = vec![
        call(vec![checkpoint(0, 0, "5")]),
        call(vec![checkpoint(1, 9, "5")]),
        // The row that refuses fails the call, which takes back what it did to shard 3.
        call(vec![checkpoint(3, 0, "4"), checkpoint(2, 0, "5")]),
        call(vec![checkpoint(3, 0, "5")]),
    ];
    let answers = all_at_once(&store, calls).await;
    assert_eq!(answers[0].as_ref().unwrap(), &[Write::Done { counter: 1 }]);
    assert!(matches!(answers[1].as_ref().unwrap()[0], Write::Refused { current: Some(_) }));
    let error = answers[2].as_ref().unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }));
    assert!(error.to_string().contains("not this one"), "{error}");
    assert_eq!(answers[3].as_ref().unwrap(), &[Write::Done { counter: 1 }]);
    assert_eq!(store.commits(), 2, "one for the creation and one here");
}

#[tokio::test]
async fn a_full_disk_fails_writes_with_a_remedy_and_passes_when_there_is_space_again() {
    let (_folder, store) = store_with(1).await;
    inside(&store, "PRAGMA max_page_count = 1").await; // SQLite raises it to the file's present size.
    let many: Vec<_> = (1..500).map(new_lease).collect();
    let error = store.create(&many).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("the disk is full; free some space"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(store.list().await.unwrap().len(), 1, "nothing of the failed call is left");
    inside(&store, "PRAGMA max_page_count = 100000").await;
    assert_eq!(store.create(&many).await.unwrap(), 499);
}

#[tokio::test]
async fn a_failed_commit_fails_every_call_of_its_group() {
    let (_folder, store) = store_with(2).await;
    // A deferred constraint fails at the commit and nowhere before.
    inside(
        &store,
        "PRAGMA foreign_keys = ON;
         CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER fail AFTER UPDATE ON leases WHEN new.shard = 'shardId-000000000001'
         BEGIN INSERT INTO child VALUES (1); END;",
    )
    .await;
    let calls = [0, 1].map(|n| {
        let store = store.clone();
        async move { store.renew(&[Renewal { key: key(n), counter: 0 }]).await }
    });
    let answers = all_at_once(&store, calls.into()).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    assert!(store.list().await.unwrap().iter().all(|lease| lease.counter == 0));
    let renewal = Renewal { key: key(0), counter: 0 };
    assert_eq!(
        store.renew(&[renewal]).await.unwrap(),
        [Write::Done { counter: 1 }],
        "the next group is not hindered"
    );
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_not_begun() {
    let (_folder, store) = store_with(1).await;
    let gate = busy(&store).await;
    let given_up = tokio::spawn({
        let store = store.clone();
        async move { store.renew(&[Renewal { key: key(0), counter: 0 }]).await }
    });
    tokio::task::yield_now().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    gate.send(()).unwrap();
    assert_eq!(store.list().await.unwrap()[0].counter, 0);
}

#[test]
fn incident_80_every_refusal_of_sqlite_becomes_a_class_and_a_remedy_which_depend_on_whether_the_file_was_open()
 {
    let fault =
        |code: std::ffi::c_int| Fault::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
    let cases = [
        (ffi::SQLITE_BUSY, (true, true), "end the open transaction"),
        (ffi::SQLITE_FULL, (true, true), "free some space"),
        (ffi::SQLITE_IOERR, (true, true), "check the disk"),
        (ffi::SQLITE_NOMEM, (true, true), "could not finish"),
        (ffi::SQLITE_CORRUPT, (false, false), ".recover"),
        (ffi::SQLITE_NOTADB, (false, false), "choose another path"),
        (ffi::SQLITE_READONLY, (false, true), "let the worker's user write"),
        (ffi::SQLITE_CANTOPEN, (false, true), "cannot be opened"),
        (ffi::SQLITE_ERROR, (false, false), "changed by hand"),
    ];
    for (code, (while_opening, once_open), remedy) in cases {
        let opening = fault(code).into_error_of_opening("sqlite:/data/s.db");
        let open = fault(code).into_error("sqlite:/data/s.db");
        assert_eq!((opening.is_retryable(), open.is_retryable()), (while_opening, once_open), "{open}");
        for text in [opening.to_string(), open.to_string()] {
            assert!(text.contains(remedy) && text.contains("sqlite:/data/s.db"), "{text}");
        }
    }
    assert_eq!(ffi::Error::new(ffi::SQLITE_BUSY_SNAPSHOT).code, ErrorCode::DatabaseBusy);
}

#[test]
fn incident_92_a_file_on_a_network_file_system_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let nfs = |_: &Path| Some(file_system::FileSystem { magic: 0x6969, mount: None });
    let store = describe(&path);
    let Err(error) = schema::open(&path, Duration::ZERO, &store, &nfs) else { panic!("it was opened") };
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    let text = error.to_string();
    for word in [store.as_str(), "NFS (type 0x6969)", "put the file on a local disk"] {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!path.exists());
    let disk = |_: &Path| Some(file_system::FileSystem { magic: 0xef53, mount: None });
    assert!(schema::open(&path, Duration::ZERO, &store, &disk).is_ok());
    assert!(schema::open(&path, Duration::ZERO, &store, &|_| None).is_ok(), "one that is not known");
}

#[tokio::test]
async fn a_hash_range_is_stored_in_decimal_digits_and_other_text_is_an_unknown_range() {
    let (_folder, store) = store_with(0).await;
    let range = HashRange { start: 0, end: u128::MAX };
    store.create(&[NewLease { hash_range: Some(range), ..new_lease(1) }]).await.unwrap();
    let text = "SELECT starting_hash_key || ' ' || ending_hash_key FROM leases";
    let read = |leases: &Leases<'_>| Ok(leases.connection.query_row(text, [], |row| row.get(0))?);
    let stored: String = store.call(Access::Read, read).await.unwrap();
    assert_eq!(stored, "0 340282366920938463463374607431768211455");
    assert_eq!(store.list().await.unwrap()[0].hash_range, Some(range));
    let by_hand = Connection::open(store.path()).unwrap();
    by_hand.execute("UPDATE leases SET starting_hash_key = 'ab'", []).unwrap();
    let lease = store.list().await.unwrap().remove(0);
    assert_eq!((lease.key, lease.hash_range), (key(1), None), "the lease itself can be read");
}
