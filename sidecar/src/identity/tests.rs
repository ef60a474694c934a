//! Positions under another identity are found.

use shardmill::checkpoint::{AppState, Claim, MemoryStore, Renewal, SqliteStore, WorkerId};
use shardmill::engine::{Page, Position, Seq};
use shardmill::{ShardListing, ShardReader, SourceError, StreamSummary};

use super::*;

const STREAM: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";
const UUID: &str = "1b3f6a52-3c0e-4d5c-9e9e-2f4b6a1c7d80";
const LEASE: Duration = Duration::from_secs(10);

/// A stream of one epoch; nothing reads it.
struct Stream(&'static str);

#[async_trait::async_trait]
impl StreamSource for Stream {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        unreachable!("only a summary is needed")
    }

    async fn summary(&self) -> Result<Option<StreamSummary>, SourceError> {
        Ok(Some(StreamSummary::new(self.0)))
    }

    async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        struct Nothing;
        #[async_trait::async_trait]
        impl ShardReader for Nothing {
            async fn next_page(&mut self, _: usize) -> Result<Page, SourceError> {
                Ok(Page::default())
            }
        }
        Ok(Box::new(Nothing))
    }

    fn describe(&self) -> String {
        "a stream".to_owned()
    }
}

fn mapping(function: &str, uuid: Option<&str>) -> EventSourceMapping {
    let builder = EventSourceMapping::builder(STREAM, function);
    let builder = match uuid {
        Some(uuid) => builder.uuid(uuid),
        None => builder,
    };
    builder.build().unwrap()
}

fn positions(
    mapping: EventSourceMapping,
    store: impl LeaseStore,
    named: Option<Arc<dyn LeaseStore>>,
) -> Positions {
    let taken = Arc::new(BTreeSet::from([mapping.identity().to_owned()]));
    Positions { mapping, store: Arc::new(store), named, source: Arc::new(Stream("e")), taken }
}

fn lease(shard: &str, number: &str) -> NewLease {
    NewLease {
        key: LeaseKey {
            account: "123456789012".into(),
            region: "eu-west-1".into(),
            stream: "orders".into(),
            epoch: "e".into(),
            shard: shard.into(),
        },
        checkpoint: Position::After(Seq::plain(number)),
        parents: vec!["parent".into()],
        hash_range: None,
        app: AppState::from([("pinnedStart".to_owned(), "7".to_owned())]),
    }
}

fn claim() -> Claim {
    Claim {
        owner: WorkerId::new("old-host-1"),
        token: "t".to_owned(),
        process: None,
        lease_time: None,
        seen_heartbeat: 0,
    }
}

/// In one file, as it is: positions under the name of a function's first version.
async fn file() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let name = mapping("f:1", None).application_name().to_owned();
    let first = SqliteStore::open(folder.path().join("a.db"), &name).unwrap();
    first.create(&[lease("0", "7"), lease("1", "8")]).await.unwrap();
    (folder, first)
}

#[tokio::test]
async fn incident_99_another_version_without_a_uuid_is_told_which_name_has_the_positions() {
    let (_folder, first) = file().await;
    let second = mapping("f:2", None);
    let store = first.for_application(second.identity()).unwrap();
    let positions = positions(second.clone(), store.clone(), None);
    let found = positions.find().await.unwrap();
    let text = found.describe(&second).unwrap();
    assert!(text.contains("Name: \"f:1@123456789012.eu-west-1.orders\" (2 shards)"), "{text}");
    positions.settle(LEASE).await.unwrap();
    assert_eq!(store.list().await.unwrap(), [], "only reported: the name might be another function's");
    // Written down, it is the mapping's own.
    let named =
        EventSourceMapping::builder(STREAM, "f:2").name("f:1@123456789012.eu-west-1.orders").build().unwrap();
    let store = first.for_application(named.identity()).unwrap();
    assert_eq!(self::positions(named, store, None).find().await.unwrap(), Found::Own(2));
}

#[tokio::test]
async fn incident_99_with_a_uuid_the_position_stays_where_the_functions_version_changes() {
    let (_folder, first) = file().await;
    // The version before this one stored under the name although the file had the UUID.
    let before = mapping("f:1", Some(UUID));
    let of = |mapping: &EventSourceMapping| {
        let store = first.for_application(mapping.identity()).unwrap();
        let named: Arc<dyn LeaseStore> = Arc::new(first.for_application(mapping.application_name()).unwrap());
        (store.clone(), positions(mapping.clone(), store, Some(named)))
    };
    let (store, positions) = of(&before);
    assert_eq!(positions.find().await.unwrap(), Found::Named(2));
    positions.settle(LEASE).await.unwrap();
    let mut adopted = store.list().await.unwrap();
    adopted.sort_by(|one, other| one.key.cmp(&other.key));
    let [zero, one] = &adopted[..] else { panic!("{adopted:?}") };
    assert_eq!(zero.checkpoint, Position::After(Seq::plain("7")));
    assert_eq!((&one.parents[..], one.app["pinnedStart"].as_str()), (&["parent".into()][..], "7"));
    assert_eq!(first.list().await.unwrap().len(), 2, "an earlier version still finds its own");
    // Another version of the function, and nothing happens.
    let (_, positions) = of(&mapping("f:2", Some(UUID)));
    assert_eq!(positions.find().await.unwrap(), Found::Own(2));
    // With a new UUID and another version nothing is taken, and the name is reported.
    let other = mapping("f:2", Some("2b3f6a52-3c0e-4d5c-9e9e-2f4b6a1c7d80"));
    let (_, positions) = of(&other);
    let text = positions.find().await.unwrap().describe(&other).unwrap();
    assert!(text.contains("Name: \"f:1@123456789012.eu-west-1.orders\""), "{text}");
}

#[tokio::test]
async fn incident_99_positions_of_another_mapping_of_the_file_or_of_an_earlier_stream_are_left_alone() {
    let (_folder, first) = file().await;
    let one = mapping("f:1", Some(UUID));
    let store = first.for_application(one.identity()).unwrap();
    let mut positions = positions(one, store, Some(Arc::new(first.clone())));
    positions.taken = Arc::new(BTreeSet::from(["f:1@123456789012.eu-west-1.orders".to_owned()]));
    assert_eq!(positions.find().await.unwrap(), Found::Nothing);
    let two = mapping("f:2", None);
    let store = first.for_application(two.identity()).unwrap();
    let mut positions = self::positions(two, store, None);
    positions.source = Arc::new(Stream("made anew"));
    assert_eq!(positions.find().await.unwrap(), Found::Nothing);
}

#[tokio::test(start_paused = true)]
async fn incident_99_positions_are_taken_over_only_once_nobody_works_on_them() {
    let named = Arc::new(MemoryStore::default());
    named.create(&[lease("0", "7")]).await.unwrap();
    let key = lease("0", "7").key;
    named.acquire(&key, 0, &claim()).await.unwrap();
    let store = Arc::new(MemoryStore::default());
    let under_name: Arc<dyn LeaseStore> = Arc::<MemoryStore>::clone(&named);
    let positions = positions(mapping("f", Some(UUID)), Arc::clone(&store), Some(under_name));
    let settling = tokio::spawn(async move { positions.settle(LEASE).await });
    for counter in 1..20 {
        named.renew(&[Renewal { key: key.clone(), counter }]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!settling.is_finished() && store.list().await.unwrap().is_empty(), "renewal {counter}");
    }
    // Its worker is killed: the lease is no longer renewed.
    settling.await.unwrap().unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn incident_99_a_worker_with_a_longer_lease_is_waited_for_as_long_as_it_may_be_silent() {
    let named = Arc::new(MemoryStore::default());
    named.create(&[lease("0", "7")]).await.unwrap();
    let of_a_minute = Claim { lease_time: Some(6 * LEASE), ..claim() };
    named.acquire(&lease("0", "7").key, 0, &of_a_minute).await.unwrap();
    let store = Arc::new(MemoryStore::default());
    let began = Instant::now();
    positions(mapping("f", Some(UUID)), Arc::clone(&store), Some(named)).settle(LEASE).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
    assert!(began.elapsed() >= 6 * LEASE, "by the paused clock: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn incident_99_a_worker_that_stopped_in_order_is_not_waited_for() {
    let named = Arc::new(MemoryStore::default());
    named.create(&[lease("0", "7")]).await.unwrap();
    let store = Arc::new(MemoryStore::default());
    let began = Instant::now();
    positions(mapping("f", Some(UUID)), Arc::clone(&store), Some(named)).settle(LEASE).await.unwrap();
    assert_eq!((store.list().await.unwrap().len(), began.elapsed()), (1, Duration::ZERO));
}

#[tokio::test]
async fn incident_96_a_row_that_cannot_be_read_ends_no_mapping_at_its_start_and_is_not_left_behind() {
    let (folder, store) = file().await;
    let own = store.for_application("orders-worker:2@123456789012.eu-west-1.orders").unwrap();
    own.create(&[lease("shardId-0", "7"), lease("shardId-1", "8")]).await.unwrap();
    let spoil = "UPDATE leases SET checkpoint = 'x' WHERE shard = 'shardId-1'";
    rusqlite::Connection::open(folder.path().join("a.db")).unwrap().execute(spoil, []).unwrap();
    let here = positions(mapping("orders-worker:2", None), own.clone(), None);
    assert_eq!(here.find().await.unwrap(), Found::Own(2));
    here.settle(LEASE).await.unwrap();
    // Under the name of before, all of them or none are taken over.
    let new = store.for_application(UUID).unwrap();
    let moved = positions(mapping("orders-worker:2", Some(UUID)), new.clone(), Some(Arc::new(own)));
    assert_eq!(moved.find().await.unwrap(), Found::Named(2));
    let error = moved.try_settle(LEASE).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("shardId-1"), "{error}");
    assert_eq!(new.list().await.unwrap(), []);
}
