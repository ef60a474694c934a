//! A store that is full, locked, that flaps or holds rows that cannot be read; leases that vanish (incidents 89, 94 to
//! 96).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shardmill::checkpoint::{
    Checkpoint, Claim, Fault, Lease, LeaseList, LeaseStore, NewLease, Ownership, Renewal, StoreError,
    UnreadableLease, WorkerId, Write,
};
use shardmill::engine::{LeaseKey, ShardId};
use shardmill_testkit::kinesis::{Fault as StreamFault, Operation as StreamOperation};
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};

use crate::logs;
use crate::support::*;

/// Lines that were logged at INFO or above and contain `text`.
fn loud(text: &str) -> Vec<String> {
    let levels = ["INFO", "WARN", "ERROR"];
    let is_loud = |line: &String| levels.iter().any(|level| line.starts_with(level)) && line.contains(text);
    logs::lines().into_iter().filter(is_loud).collect()
}

fn lines(text: &str) -> usize {
    loud(text).len()
}

#[tokio::test(start_paused = true)]
async fn incident_89_a_store_that_can_be_read_and_not_written_is_told_once_and_does_not_answer_again() {
    logs::collect();
    let (fake, store, seen) = (stream(40), store(), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the leases", || run.report().shards.len() == 40).await;
    pass(LEASE).await;
    assert_eq!((run.report().last_error, run.report().store_error), (None, None));
    for operation in WRITES {
        store.fail(operation, Fault::ErrorBefore);
    }
    until("the loss of every lease", || run.report().shards.is_empty()).await;
    pass(LEASE * 20).await;
    let report = run.report();
    let error = report.store_error.clone().unwrap();
    assert_eq!(error.what, "checkpoint store");
    assert!(error.message.contains("failed on demand") && error.at.is_some(), "{error:?}");
    assert_eq!(report.last_error, report.store_error, "nothing else is wrong");
    assert_eq!((lines("the checkpoint store fails"), lines("answers again")), (1, 0));
    let lost = loud("lost leases");
    assert!(lost.len() <= 2, "{lost:#?}");
    assert!(lost[0].contains("mapping=") && lost[0].contains("first=shardId-"), "{lost:#?}");
    store.heal();
    until("the leases again", || run.report().shards.len() == 40).await;
    until("the end of the trouble", || run.report().store_error.is_none()).await;
    assert_eq!(run.report().last_error, None);
    put(&fake, 40);
    until("the records", || seen.len() == 40).await;
    assert_eq!((lines("the checkpoint store fails"), lines("answers again")), (1, 1));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_89_a_store_that_flaps_writes_one_line_when_it_begins_and_one_when_it_ends() {
    logs::collect();
    let (fake, store, seen) = (stream(40), store(), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the leases", || run.report().shards.len() == 40).await;
    for round in 0..60 {
        store.fail_all(if round % 2 == 0 { Fault::ErrorBefore } else { Fault::HangAfter });
        pass(LEASE / 2).await;
        store.heal();
        put(&fake, 10);
        pass(LEASE / 2).await;
    }
    until("every record", || seen.distinct() == 600).await;
    until("the end of the trouble", || run.report().store_error.is_none()).await;
    assert_eq!((lines("the checkpoint store fails"), lines("answers again")), (1, 1));
    let about = logs::lines().iter().filter(|l| !l.starts_with("DEBUG") && !l.starts_with("TRACE")).count();
    assert!(about <= 40, "{about} lines in two minutes: {:#?}", loud(""));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_89_a_takeover_of_many_leases_is_one_line_that_says_from_whom_and_why() {
    logs::collect();
    let (fake, store, seen) = (stream(30), store(), Seen::default());
    let (a, b) = (worker("a"), worker("b"));
    let first = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("a's leases", || first.report().shards.len() == 30).await;
    pass(LEASE).await;
    let took = loud("took leases");
    assert_eq!(took.len(), 1, "{took:#?}");
    assert!(took[0].contains("leases=30") && took[0].contains("no worker had it"), "{took:#?}");
    let seconds = another(&store);
    let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &seconds));
    first.crash(&store).await;
    until("b's leases", || second.report().shards.len() == 30).await;
    pass(LEASE).await;
    let took = loud("took leases");
    assert_eq!(took.len(), 2, "{took:#?}");
    let words = ["leases=30", "from=\"a\"", "did not renew it for a lease time", "first=shardId-"];
    assert!(words.iter().all(|word| took[1].contains(word)), "{took:#?}");
    second.stop().await;
    let gave = loud("released leases");
    assert!(gave.len() == 1 && gave[0].contains("leases=30"), "{gave:#?}");
}

/// A store in which the rows of some shards cannot be read.
#[derive(Clone, Debug)]
struct Spoilt {
    inner: Store,
    shards: Arc<Mutex<BTreeSet<ShardId>>>,
}

impl Spoilt {
    fn is_spoilt(&self, key: &LeaseKey) -> bool {
        self.shards.lock().unwrap().contains(&key.shard)
    }
}

#[async_trait]
impl LeaseStore for Spoilt {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        let list = self.list_readable().await?;
        match list.unreadable.into_iter().next() {
            None => Ok(list.leases),
            Some(UnreadableLease { reason, .. }) => {
                Err(StoreError::Unusable { store: self.describe(), reason, source: None })
            }
        }
    }
    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        let (spoilt, leases) = self.inner.list().await?.into_iter().partition(|l| self.is_spoilt(&l.key));
        let spoilt: Vec<Lease> = spoilt;
        let unreadable = |lease: Lease| {
            let reason = format!("the lease {} has \"x\" in column checkpoint; correct it", lease.key);
            UnreadableLease::new(lease.key, reason)
        };
        Ok(LeaseList::new(leases, spoilt.into_iter().map(unreadable).collect()))
    }
    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        self.inner.create(leases).await
    }
    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        self.inner.acquire(key, seen, claim).await
    }
    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        self.inner.renew(renewals).await
    }
    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        let mut writes = Vec::new();
        for checkpoint in checkpoints {
            if self.is_spoilt(&checkpoint.key) {
                writes.push(Write::Refused { current: None });
            } else {
                writes.extend(self.inner.checkpoint(std::slice::from_ref(checkpoint)).await?);
            }
        }
        Ok(writes)
    }
    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        self.inner.assign(key, seen, to).await
    }
    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        self.inner.hand_off(key, from, to).await
    }
    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        self.inner.set_children(key, children).await
    }
    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.inner.release(key, counter).await
    }
    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.inner.delete_ended(key, counter).await
    }
    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
    fn describe(&self) -> String {
        "spoilt".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn incident_96_a_lease_that_cannot_be_read_costs_its_shard_until_it_is_corrected_and_no_other() {
    logs::collect();
    let (fake, seen) = (stream(4), Seen::default());
    let spoilt = fake.shards("orders").unwrap()[1].id.clone();
    let store = Spoilt { inner: store(), shards: Arc::default() };
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the leases", || run.report().shards.len() == 4).await;
    goes_on_without(&fake, &run, &store, &seen, &spoilt, 1).await;
    run.stop().await;
    // The same at the next start, when no worker holds it.
    store.shards.lock().unwrap().insert(ShardId::from(spoilt.as_str()));
    let b = worker("b");
    let run = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &store));
    goes_on_without(&fake, &run, &store, &seen, &spoilt, 2).await;
    run.stop().await;
    assert_eq!(seen.first_sights(), accepted(&fake), "in the end everything was read");
    assert_eq!((lines("leases cannot be read"), lines("can be read again")), (2, 2));
}

async fn goes_on_without(
    fake: &FakeKinesis,
    run: &Running,
    store: &Spoilt,
    seen: &Seen,
    spoilt: &str,
    round: usize,
) {
    store.shards.lock().unwrap().insert(ShardId::from(spoilt));
    for shard in fake.shards("orders").unwrap() {
        fake.put_to_shard("orders", &shard.id, Some("key"), "record").unwrap();
    }
    until("the row is shown", || !run.report().unreadable_leases.is_empty()).await;
    let others = || seen.all().iter().filter(|sight| sight.shard != spoilt).count();
    until("the other shards' records", || others() == 3 * round).await;
    pass(Duration::from_secs(30)).await;
    let report = run.report();
    assert_eq!(report.unreadable_leases[0].key.shard.as_str(), spoilt);
    assert!(report.unreadable_leases[0].reason.contains("in column checkpoint"));
    assert_eq!((report.known_shards, report.state), (4, shardmill::RunState::Enabled));
    assert_eq!(report.shards.len(), 3, "no worker reads its shard");
    store.shards.lock().unwrap().clear();
    until("its records", || seen.distinct() == 4 * round).await;
    until("the report", || run.report().unreadable_leases.is_empty()).await;
    assert_eq!(others(), 3 * round, "the others were not disturbed");
}

#[tokio::test(start_paused = true)]
async fn incident_94_a_lease_that_is_deleted_by_hand_is_made_anew_within_a_minute() {
    for store in stores() {
        a_deleted_lease_is_made_anew(store).await;
    }
}

async fn a_deleted_lease_is_made_anew(store: Store) {
    let (fake, seen) = (stream(3), Seen::default());
    put(&fake, 30);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the records", || seen.len() == 30).await;
    // Two minutes in which nothing changes: since then summaries do.
    pass(Duration::from_secs(120)).await;
    let lease = leases(&store).await.remove(1);
    let before = seen.all().iter().filter(|sight| lease.key.shard.as_str() == sight.shard).count();
    store.inner().delete(&lease.key).await.unwrap();
    pass(Duration::from_secs(60)).await;
    assert_eq!(leases(&store).await.len(), 3, "it is there again");
    until("its records again", || seen.len() == 30 + before).await;
    assert_eq!(run.report().shards.len(), 3);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_94_a_lease_of_a_table_that_is_deleted_by_hand_is_made_anew_within_a_minute() {
    let (fake, store, seen) = (FakeDynamoDbStreams::new(), store(), Seen::default());
    let arn = fake.create_table("orders", &["id"], 2).unwrap();
    put_items(&fake, 0..20);
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    until("the records", || seen.len() == 20).await;
    pass(Duration::from_secs(120)).await;
    let lease = leases(&store).await.remove(0);
    let before = seen.all().iter().filter(|sight| lease.key.shard.as_str() == sight.shard).count();
    store.inner().delete(&lease.key).await.unwrap();
    pass(Duration::from_secs(60)).await;
    assert_eq!(leases(&store).await.len(), 2, "it is there again");
    until("its records again", || seen.len() == 20 + before).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_95_a_listing_that_lags_behind_does_not_revive_a_finished_shard() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 20);
    let a = worker("a");
    let seldom = mapping()
        .idle_interval(Duration::from_millis(5_000))
        .maximum_idle_interval(Duration::from_millis(60_000));
    let run = launch(consumer(&fake, &a, seldom, seen.handler("a"), &store));
    until("the records", || seen.len() == 20).await;
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    let (left, _) = fake.split("orders", &parent).unwrap();
    put(&fake, 20);
    until("the children's records", || seen.len() == 40).await;
    // The service has forgotten the parent: its lease goes with the next listing.
    let forgotten =
        fake.faults().on(StreamOperation::ListShards).hold(StreamFault::OmitShard(parent.clone()));
    pass(Duration::from_secs(3_700)).await;
    let has_lease = |leases: Vec<Lease>| leases.iter().any(|lease| lease.key.shard.as_str() == parent);
    assert!(!has_lease(leases(&store).await), "it was deleted");
    // A replica that has not heard of it, asked because of another split.
    drop(forgotten);
    fake.split("orders", &left).unwrap();
    put(&fake, 20);
    until("the grandchildren's records", || seen.len() >= 60).await;
    pass(Duration::from_secs(60)).await;
    assert!(!has_lease(leases(&store).await), "it stays finished");
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake), "nothing twice");
}
