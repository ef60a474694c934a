//! The public suite against the stores of this crate.
#![allow(clippy::unwrap_used, reason = "tests")]

use shardmill_checkpoint::{FaultyStore, MemoryStore, conformance};

#[tokio::test]
async fn the_memory_store_passes() {
    conformance::run_all(async || MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_passes_on_several_threads() {
    conformance::run_all(async || MemoryStore::new()).await;
    conformance::run_shared(async || {
        let store = MemoryStore::new();
        (store.clone(), store)
    })
    .await;
    conformance::applications_are_separate(MemoryStore::new(), MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_whose_heartbeats_renew_all_leases_passes() {
    conformance::run_all(async || MemoryStore::renewed_by_heartbeat()).await;
    conformance::run_shared(async || {
        let store = MemoryStore::renewed_by_heartbeat();
        (store.clone(), store)
    })
    .await;
}

#[tokio::test]
async fn a_faulty_store_without_faults_passes() {
    conformance::run_all(async || FaultyStore::new(MemoryStore::new())).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::Mutex;

    use shardmill_checkpoint::{SqliteStore, conformance};
    use tempfile::TempDir;

    /// A new folder for each store, all removed at the end.
    #[derive(Default)]
    struct Folders(Mutex<Vec<TempDir>>);

    impl Folders {
        fn file(&self) -> std::path::PathBuf {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("shardmill.db");
            self.0.lock().unwrap().push(folder);
            path
        }
    }

    #[tokio::test]
    async fn the_sqlite_store_passes() {
        let folders = Folders::default();
        conformance::run_all(async || SqliteStore::open(folders.file(), "orders").unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_sqlite_store_passes_on_several_threads_and_two_connections() {
        let folders = Folders::default();
        conformance::run_all(async || SqliteStore::open(folders.file(), "orders").unwrap()).await;
        conformance::run_shared(async || {
            let path = folders.file();
            (SqliteStore::open(&path, "orders").unwrap(), SqliteStore::open(&path, "orders").unwrap())
        })
        .await;
    }

    #[tokio::test]
    async fn two_applications_in_one_sqlite_file_share_nothing() {
        let folders = Folders::default();
        let path = folders.file();
        let open = |application| SqliteStore::open(&path, application).unwrap();
        conformance::applications_are_separate(open("f1@orders"), open("f2@orders")).await;
        let store = open("f3@orders");
        let other = store.for_application("f4@orders").unwrap();
        conformance::applications_are_separate(store, other).await;
    }
}
