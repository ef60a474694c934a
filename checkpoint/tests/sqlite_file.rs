//! The SQLite store's file: what it holds, who else may hold it, and what a broken one says.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{after, checkpoint, claim, key, new_lease};
use rusqlite::Connection;
use shardmill_checkpoint::{
    AppState, Checkpoint, LeaseStore, Renewal, SqliteOptions, SqliteStore, StoreError, Write,
};
use shardmill_engine::{Position, Seq};
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shardmill.db");
    (folder, path)
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, "orders").unwrap()
}

fn open_error(path: &Path) -> StoreError {
    let options = quick();
    SqliteStore::open_with(path, "orders", &options).unwrap_err()
}

fn quick() -> SqliteOptions {
    let mut options = SqliteOptions::default();
    options.busy_timeout = Duration::from_millis(50);
    options
}

/// Asserts that opening `path` is refused permanently, with all of `words`, and leaves the file as it is.
fn assert_unusable(path: &Path, words: &[&str]) {
    let before = fs::read(path).ok();
    let error = open_error(path);
    assert!(matches!(error, StoreError::Unusable { .. }) && !error.is_retryable(), "{error:?}");
    let text = error.to_string();
    for word in words.iter().chain([&path.to_str().unwrap()]) {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert_eq!(fs::read(path).ok(), before, "the file was changed");
}

async fn lease_at_seven(store: &SqliteStore) {
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    store.acquire(&key("shardId-0"), 0, &claim("a", "t")).await.unwrap();
    let app = AppState::from([("window".to_owned(), "w".to_owned())]);
    let position = Position::After(Seq { number: "0007".into(), sub: 3 });
    let moved = Checkpoint { key: key("shardId-0"), counter: 1, position, app };
    assert_eq!(store.checkpoint(&[moved]).await.unwrap(), [Write::Done { counter: 2 }]);
}

#[tokio::test]
async fn a_file_that_is_opened_again_holds_everything() {
    let (_folder, path) = folder();
    let store = open(&path);
    lease_at_seven(&store).await;
    let before = store.list().await.unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(store.list().await.unwrap(), before);
    assert_eq!(store.describe(), format!("sqlite:{}", path.display()));
}

#[tokio::test]
async fn a_relative_path_is_shown_as_an_absolute_one() {
    let (folder, path) = folder();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let roundabout = folder.path().join("sub/../shardmill.db");
    let relative = Path::new("relative-shardmill.db");
    assert!(SqliteStore::open(&roundabout, "orders").unwrap().path().is_absolute());
    assert!(path.exists());
    // The working directory is not written to: the error shows how the path would be understood.
    let error = SqliteStore::open(relative, "").unwrap_err();
    let absolute = std::env::current_dir().unwrap().join(relative);
    assert!(error.to_string().contains(absolute.to_str().unwrap()), "{error}");
    assert!(matches!(error, StoreError::Invalid { .. }));
}

#[tokio::test]
async fn the_columns_are_readable_with_sqlite3() {
    let (_folder, path) = folder();
    let store = open(&path);
    lease_at_seven(&store).await;
    let positions = [
        (Position::AtTimestamp(1_700_000_000_123), "AT_TIMESTAMP|0|1700000000123|0"),
        (Position::TrimHorizon, "TRIM_HORIZON|0||0"),
        (Position::At(Seq::plain("42")), "42|0||1"),
        (Position::ShardEnd, "SHARD_END|0||0"),
    ];
    for (position, _) in &positions {
        let mut lease = new_lease(&position.to_string());
        lease.checkpoint = position.clone();
        store.create(&[lease]).await.unwrap();
    }
    let sqlite3 = Connection::open(&path).unwrap();
    let columns =
        "checkpoint || '|' || sub_sequence_number || '|' || ifnull(at_timestamp_ms, '') || '|' || inclusive";
    let read =
        |sql: &str, shard: &str| -> String { sqlite3.query_row(sql, [shard], |row| row.get(0)).unwrap() };
    let position = format!("SELECT {columns} FROM leases WHERE shard = ?1");
    assert_eq!(read(&position, "shardId-0"), "0007|3||0");
    for (at, expected) in positions {
        assert_eq!(read(&position, &at.to_string()), expected);
    }
    let owner = "SELECT application || '|' || counter || '|' || lease_owner || '|' || concurrency_token || '|' || \
                 owner_host || '|' || owner_pid || '|' || owner_started || '|' || app FROM leases WHERE shard = ?1";
    assert_eq!(read(owner, "shardId-0"), "orders|2|a|t|host of a|12|77|{\"window\":\"w\"}");
    let mode: String = sqlite3.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn columns_and_values_of_someone_else_survive_every_write() {
    let (_folder, path) = folder();
    let store = open(&path);
    lease_at_seven(&store).await;
    let sqlite3 = Connection::open(&path).unwrap();
    sqlite3
        .execute_batch(
            "ALTER TABLE leases ADD COLUMN throughput_kbps REAL;
             UPDATE leases SET throughput_kbps = 1.5, app = '{\"window\":\"w\",\"theirs\":{\"deep\":[1,null]},\"n\":7}'",
        )
        .unwrap();
    let key = key("shardId-0");
    let lease = store.list().await.unwrap().remove(0);
    assert_eq!(lease.app, AppState::from([("window".to_owned(), "w".to_owned())]), "only text is shown");
    store.renew(&[Renewal { key: key.clone(), counter: 2 }]).await.unwrap();
    let app = AppState::from([("window".to_owned(), "v".to_owned())]);
    store.checkpoint(&[Checkpoint { app, ..checkpoint("shardId-0", 3, "8") }]).await.unwrap();
    store.set_children(&key, &["shardId-1".into()]).await.unwrap();
    store.acquire(&key, 4, &claim("b", "t2")).await.unwrap();
    store.release(&key, 5).await.unwrap();
    let (theirs, app): (f64, String) = sqlite3
        .query_row("SELECT throughput_kbps, app FROM leases", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!((theirs - 1.5).abs() < f64::EPSILON);
    let app: serde_json::Value = serde_json::from_str(&app).unwrap();
    assert_eq!(app, serde_json::json!({"window": "v", "theirs": {"deep": [1, null]}, "n": 7}));
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let (_folder, path) = folder();
    drop(open(&path));
    let sqlite3 = Connection::open(&path).unwrap();
    sqlite3.pragma_update(None, "user_version", 4).unwrap();
    sqlite3.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert_unusable(&path, &["schema version is 4", "knows up to 3", "use a newer Shardmill"]);
}

/// A file as the version before lease times made it, with a lease that it holds.
fn old_file(path: &Path) -> Connection {
    let old = Connection::open(path).unwrap();
    old.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    old.execute_batch(include_str!("../src/sqlite/schema_v1.sql")).unwrap();
    old.pragma_update(None, "application_id", 0x5368_4d6c).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute_batch(
        "INSERT INTO leases (application, account, region, stream, epoch, shard, lease_counter, lease_owner, \
         concurrency_token, owner_host, owner_pid, owner_started, checkpoint, sub_sequence_number, parent_shards, app) \
         VALUES ('orders', '123456789012', 'eu-central-1', 'orders', '1700000000', 'shardId-0', 7, 'a', 't', 'h', 12, \
         77, '0007', 3, '[\"shardId-p\"]', '{\"window\":\"w\"}')",
    )
    .unwrap();
    old
}

#[tokio::test]
async fn incident_76_a_file_of_the_version_before_is_brought_forward_with_everything_in_it() {
    let (_folder, path) = folder();
    let old = old_file(&path);
    let store = open(&path);
    let lease = store.list().await.unwrap().remove(0);
    assert_eq!((lease.counter, lease.owner.unwrap().as_str()), (7, "a"));
    assert_eq!((lease.token.as_deref(), lease.process.unwrap().pid), (Some("t"), 12));
    assert_eq!((lease.checkpoint, lease.parents), (after_seven(), vec!["shardId-p".into()]));
    assert_eq!(lease.app, AppState::from([("window".to_owned(), "w".to_owned())]));
    assert_eq!(lease.lease_time, None, "its owner did not say one");
    let version: i32 = old.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 3);
    // A process of that version that still runs would take leases that are renewed by heartbeats.
    let renewed =
        old.execute("UPDATE leases SET lease_counter = lease_counter + 1 WHERE lease_counter = 7", []);
    assert!(renewed.unwrap_err().to_string().contains("no such column: lease_counter"));
    assert_eq!(
        store.acquire(&key("shardId-0"), 7, &claim("b", "t2")).await.unwrap(),
        Write::Done { counter: 8 }
    );
    let shown: i64 = old.query_row("SELECT owner_lease_ms FROM leases", [], |row| row.get(0)).unwrap();
    assert_eq!(shown, 10_000, "it is shown in a column of its own");
    drop(store);
    assert_eq!(open(&path).list().await.unwrap()[0].lease_time, Some(Duration::from_secs(10)));
}

#[cfg(unix)]
#[tokio::test]
async fn incident_87_a_new_file_is_its_owners_alone_and_one_that_exists_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let beside = |path: &Path, ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
    let (folder, path) = folder();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert_eq!(mode(&plain), 0o644, "the mode of a file without restrictions");
    let store = open(&path);
    lease_at_seven(&store).await;
    for ending in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&path, ending)), 0o600, "{ending:?}");
    }
    let shared = folder.path().join("shared.db");
    fs::write(&shared, "").unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o660)).unwrap();
    let store = open(&shared);
    lease_at_seven(&store).await;
    for ending in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&shared, ending)), 0o660, "{ending:?}");
    }
}

#[test]
fn another_programs_database_is_left_alone() {
    let (_folder, path) = folder();
    let theirs = Connection::open(&path).unwrap();
    theirs.execute_batch("CREATE TABLE customers (id INTEGER)").unwrap();
    drop(theirs);
    assert_unusable(&path, &["another program", "choose another path"]);
    let theirs = Connection::open(&path).unwrap();
    theirs.pragma_update(None, "user_version", 1).unwrap();
    drop(theirs);
    assert_unusable(&path, &["another program"]);
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let (_folder, path) = folder();
    fs::write(&path, "Checkpoints: sqlite:./shardmill.db\n".repeat(100)).unwrap();
    assert_unusable(&path, &["no SQLite database", "choose another path"]);
}

#[test]
fn paths_that_cannot_be_a_file_are_refused_with_a_remedy() {
    let (folder, path) = folder();
    assert_unusable(folder.path(), &["it is a directory", "shardmill.db"]);
    assert_unusable(
        &folder.path().join("missing/shardmill.db"),
        &["its directory cannot be used", "create it"],
    );
    fs::write(&path, "").unwrap();
    assert_unusable(&path.join("below"), &["its parent is a file"]);
    #[cfg(target_os = "linux")]
    {
        assert_unusable(Path::new("/proc/shardmill.db"), &["cannot be opened or created"]);
        assert_unusable(Path::new("/dev/null"), &["no ordinary file"]);
    }
    for path in ["", ":memory:"] {
        let error = SqliteStore::open(path, "orders").unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_recognised_at_the_start() {
    let (_folder, path) = folder();
    let store = open(&path);
    let leases: Vec<_> = (0..400).map(|n| new_lease(&format!("shardId-{n}"))).collect();
    store.create(&leases).await.unwrap();
    drop(store);
    flush(&path);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("damaged") && error.to_string().contains(".recover"), "{error}");
}

/// Moves everything from the log to the file, once the store's connection has let go of it.
fn flush(path: &Path) {
    let sqlite3 = Connection::open(path).unwrap();
    sqlite3.busy_timeout(Duration::from_secs(60)).unwrap();
    let busy: i64 = sqlite3.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
}

#[tokio::test]
async fn a_row_that_was_damaged_by_hand_is_named() {
    let (_folder, path) = folder();
    let store = open(&path);
    lease_at_seven(&store).await;
    let sqlite3 = Connection::open(&path).unwrap();
    let cases = [
        ("checkpoint = 'yesterday'", "column checkpoint"),
        ("checkpoint = 'AT_TIMESTAMP'", "no time in column at_timestamp_ms"),
        ("checkpoint = '8', app = '[]'", "column app"),
        ("app = '{}', parent_shards = 'shardId-9'", "column parent_shards"),
        ("parent_shards = '[]', owner_lease_ms = -1", "the negative number -1 in column owner_lease_ms"),
        ("owner_lease_ms = 1, counter = -4", "the negative number -4 in column counter"),
    ];
    for (damage, words) in cases {
        sqlite3.execute(&format!("UPDATE leases SET {damage}"), []).unwrap();
        let error = store.list().await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("orders:1700000000:shardId-0"), "{text}");
    }
    sqlite3.execute("UPDATE leases SET counter = 9", []).unwrap();
    assert_eq!(store.list().await.unwrap()[0].counter, 9);
}

#[tokio::test]
async fn incident_96_a_row_that_cannot_be_read_costs_its_own_lease_and_no_other() {
    let (_folder, path) = folder();
    let store = open(&path);
    lease_at_seven(&store).await;
    let shards = ["shardId-1", "shardId-2", "shardId-3"];
    store.create(&shards.map(new_lease)).await.unwrap();
    let sqlite3 = Connection::open(&path).unwrap();
    let cases = [
        (
            "shardId-1",
            "checkpoint = 'yesterday'",
            "checkpoint = 'TRIM_HORIZON'",
            "\"yesterday\", which is no sequence",
        ),
        ("shardId-2", "app = x'ff'", "app = '{}'", "in column app"),
        ("shardId-3", "lease_owner = x'fffe'", "lease_owner = NULL", "in column lease_owner"),
    ];
    for (shard, damage, _, _) in cases {
        sqlite3.execute(&format!("UPDATE leases SET {damage} WHERE shard = '{shard}'"), []).unwrap();
    }
    let list = store.list_readable().await.unwrap();
    assert_eq!(list.leases.len(), 1);
    for (unreadable, (shard, _, _, words)) in list.unreadable.iter().zip(cases) {
        assert_eq!(unreadable.key, key(shard));
        assert!(unreadable.reason.contains(words), "{}", unreadable.reason);
        assert!(unreadable.reason.contains("correct or delete that row"), "{}", unreadable.reason);
    }
    // What shares a call with it goes on.
    let moved = [checkpoint("shardId-1", 0, "8"), checkpoint("shardId-0", 2, "8")];
    let written = store.checkpoint(&moved).await.unwrap();
    assert_eq!(written, [Write::Refused { current: None }, Write::Done { counter: 3 }]);
    let refused = Write::Refused { current: None };
    assert_eq!(store.acquire(&key("shardId-2"), 0, &claim("b", "t")).await.unwrap(), refused);
    assert_eq!(store.release(&key("shardId-3"), 0).await.unwrap(), refused);
    assert_eq!(store.create(&shards.map(new_lease)).await.unwrap(), 0, "it is still there");
    for (shard, _, repair, _) in cases {
        sqlite3.execute(&format!("UPDATE leases SET {repair} WHERE shard = '{shard}'"), []).unwrap();
    }
    let list = store.list_readable().await.unwrap();
    assert_eq!((list.leases, list.unreadable), (store.list().await.unwrap(), vec![]));
}

#[tokio::test]
async fn incident_96_a_row_whose_very_name_is_no_text_is_shown_as_far_as_it_can_be() {
    let (_folder, path) = folder();
    let store = open(&path);
    lease_at_seven(&store).await;
    let sqlite3 = Connection::open(&path).unwrap();
    sqlite3.execute("UPDATE leases SET shard = x'73686172'", []).unwrap();
    let list = store.list_readable().await.unwrap();
    assert_eq!((list.leases.len(), list.unreadable.len()), (0, 1));
    assert_eq!(list.unreadable[0].key, key("shar"));
    assert!(list.unreadable[0].reason.contains("no text in column shard"), "{}", list.unreadable[0].reason);
}

#[tokio::test]
async fn a_lock_that_is_held_for_long_is_unavailable_and_passes() {
    let (_folder, path) = folder();
    let store = SqliteStore::open_with(&path, "orders", &quick()).unwrap();
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let renewal = [Renewal { key: key("shardId-0"), counter: 0 }];
    let error = store.renew(&renewal).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("end the open transaction"), "{error}");
    assert_eq!(store.list().await.unwrap().len(), 1, "reading waits for no writer");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(store.renew(&renewal).await.unwrap(), [Write::Done { counter: 1 }]);
}

#[test]
fn opening_a_file_that_is_locked_for_long_is_unavailable() {
    let (_folder, path) = folder();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = open_error(&path);
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    other.execute_batch("ROLLBACK").unwrap();
    SqliteStore::open(&path, "orders").unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_removed_or_replaced_while_in_use_fences_nobody_and_says_so() {
    let (folder, path) = folder();
    let store = open(&path);
    lease_at_seven(&store).await;
    let aside = folder.path().join("aside.db");
    fs::rename(&path, &aside).unwrap();
    let renewal = [Renewal { key: key("shardId-0"), counter: 2 }];
    let error = store.renew(&renewal).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("removed or replaced"), "{error}");
    fs::write(&path, "").unwrap();
    store.list().await.unwrap_err();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(store.renew(&renewal).await.unwrap(), [Write::Done { counter: 3 }], "back in place");
    assert_eq!(store.list().await.unwrap()[0].checkpoint, after_seven());
}

fn after_seven() -> Position {
    let Position::After(seq) = after("7") else { unreachable!() };
    Position::After(Seq { sub: 3, ..seq })
}

#[tokio::test]
async fn incident_99_a_file_tells_which_other_applications_have_positions_of_a_stream() {
    let (_folder, path) = folder();
    let orders = open(&path);
    let bills = orders.for_application("bills").unwrap();
    assert_eq!(orders.others(&key("")).await.unwrap(), [], "no application has any");
    bills.create(&[new_lease("shardId-0"), new_lease("shardId-1")]).await.unwrap();
    orders.create(&[new_lease("shardId-0")]).await.unwrap();
    let others = orders.others(&key("")).await.unwrap();
    let [other] = &others[..] else { panic!("{others:?}") };
    assert_eq!((other.name.as_str(), other.leases), ("bills", 2));
    assert_eq!(*other.epoch, *key("").epoch);
    let elsewhere = shardmill_engine::LeaseKey { stream: "another".into(), ..key("") };
    assert_eq!(orders.others(&elsewhere).await.unwrap(), []);
}
