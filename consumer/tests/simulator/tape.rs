//! The stream of a run as it was written, and a source that reads it without the service's wire: what a run costs is mostly
//! the SDK otherwise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shardmill::engine::{Data, Page, Position, Record, Seq, Shard, ShardId, Wall};
use shardmill::{
    ServiceClock, ShardListing, ShardReader, SourceContext, SourceError, SourceErrorKind, StreamSource,
    StreamSummary,
};
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::Placed;
use tokio::time::Instant;

use crate::support::ARN;

/// How often the service lets a shard be read.
const PACE: Duration = Duration::from_millis(200);
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// What the service does to a few calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hiccup {
    ExpiredIterator,
    Throttle,
    EmptyPage,
    ShortPage,
    Listing,
}

/// Cheap to clone; clones are the same stream.
#[derive(Clone, Debug)]
pub(crate) struct Tape {
    /// Has the service's time.
    fake: FakeKinesis,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    shards: BTreeMap<ShardId, Reel>,
    hiccup: Option<(Hiccup, u64)>,
}

#[derive(Debug)]
struct Reel {
    shard: Shard,
    records: Vec<Record>,
    children: Vec<Shard>,
}

impl Tape {
    pub(crate) fn new(fake: FakeKinesis) -> Self {
        Self { fake, inner: Arc::default() }
    }

    pub(crate) const fn fake(&self) -> &FakeKinesis {
        &self.fake
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A shard that follows these, which are closed.
    pub(crate) fn opened(&self, id: &str, parents: &[&str]) {
        let parents: Vec<ShardId> = parents.iter().map(|parent| ShardId::from(*parent)).collect();
        let shard = Shard::new(ShardId::from(id), parents.clone());
        let mut inner = self.inner();
        for parent in &parents {
            let parent = inner.shards.get_mut(parent).unwrap();
            parent.shard.open = false;
            parent.children.push(shard.clone());
        }
        let reel = Reel { shard, records: Vec::new(), children: Vec::new() };
        inner.shards.insert(reel.shard.id.clone(), reel);
    }

    pub(crate) fn written(&self, key: &str, placed: &Placed) {
        let seq = Seq::plain(placed.sequence_number.as_str());
        let data = Data::Raw(Bytes::from_static(b"record"));
        let record = Record::new(seq, Some(key.to_owned()), Some(self.time()), data);
        let shard = ShardId::from(placed.shard_id.as_str());
        self.inner().shards.get_mut(&shard).unwrap().records.push(record);
    }

    /// The next calls that it concerns fail.
    pub(crate) fn hiccup(&self, what: Hiccup, times: u64) {
        self.inner().hiccup = Some((what, times));
    }

    pub(crate) fn clear(&self) {
        self.inner().hiccup = None;
    }

    fn time(&self) -> Wall {
        Wall::from_millis(i64::try_from(self.fake.now_ms()).unwrap())
    }
}

impl Inner {
    /// What a call of one of these kinds meets.
    fn meets(&mut self, listing: bool) -> Option<Hiccup> {
        let (what, times) = self.hiccup.as_mut().filter(|(what, _)| listing == (*what == Hiccup::Listing))?;
        let what = *what;
        *times -= 1;
        if *times == 0 {
            self.hiccup = None;
        }
        Some(what)
    }
}

/// Reads the tape at the service's pace, and learns the service's time by every answer.
#[derive(Debug)]
pub(crate) struct TapeSource {
    tape: Tape,
    clock: OnceLock<ServiceClock>,
}

impl TapeSource {
    pub(crate) const fn new(tape: Tape) -> Self {
        Self { tape, clock: OnceLock::new() }
    }

    fn answered(tape: &Tape, clock: &ServiceClock) {
        // A Date header has whole seconds.
        let millis = tape.time().as_millis();
        clock.observe(millis - millis.rem_euclid(1_000));
    }

    fn hear(&self) -> ServiceClock {
        let clock = self.clock.get().unwrap();
        Self::answered(&self.tape, clock);
        clock.clone()
    }
}

#[async_trait]
impl StreamSource for TapeSource {
    fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        self.clock.get_or_init(|| cx.clock().for_endpoint("tape"));
        Ok(())
    }

    fn stream_arn(&self) -> Option<&str> {
        Some(ARN)
    }

    async fn shards(&self) -> Result<ShardListing, SourceError> {
        if self.tape.inner().meets(true).is_some() {
            return Err(SourceError::new(SourceErrorKind::Throttled, "ListShards", "simulated"));
        }
        self.hear();
        let shards = self.tape.inner().shards.values().map(|reel| reel.shard.clone()).collect();
        let mut listing = ShardListing::new("1", shards);
        (listing.service_time, listing.retention) = (Some(self.tape.time()), Some(RETENTION));
        Ok(listing)
    }

    async fn summary(&self) -> Result<Option<StreamSummary>, SourceError> {
        self.hear();
        let mut summary = StreamSummary::new("1");
        let open = self.tape.inner().shards.values().filter(|reel| reel.shard.open).count();
        (summary.open_shards, summary.retention) = (Some(open), Some(RETENTION));
        Ok(Some(summary))
    }

    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let (tape, shard, clock) = (self.tape.clone(), shard.clone(), self.clock.get().unwrap().clone());
        Ok(Box::new(TapeReader {
            tape,
            shard,
            clock,
            next: Next::Place(at.clone()),
            may_read: Instant::now(),
        }))
    }

    fn clock(&self) -> Option<ServiceClock> {
        self.clock.get().cloned()
    }

    fn describe(&self) -> String {
        "tape".to_owned()
    }
}

struct TapeReader {
    tape: Tape,
    shard: ShardId,
    clock: ServiceClock,
    next: Next,
    may_read: Instant,
}

enum Next {
    Place(Position),
    Record(usize),
}

#[async_trait]
impl ShardReader for TapeReader {
    async fn next_page(&mut self, limit: usize) -> Result<Page, SourceError> {
        tokio::time::sleep_until(self.may_read).await;
        self.may_read = Instant::now() + PACE;
        let mut inner = self.tape.inner();
        let error = |kind| Err(SourceError::new(kind, "GetRecords", "simulated"));
        let (mut limit, hiccup) = (limit, inner.meets(false));
        match hiccup {
            Some(Hiccup::ExpiredIterator) => return error(SourceErrorKind::IteratorExpired),
            Some(Hiccup::Throttle) => return error(SourceErrorKind::Throttled),
            Some(Hiccup::EmptyPage) => limit = 0,
            Some(Hiccup::ShortPage) => limit = 1,
            Some(Hiccup::Listing) | None => {}
        }
        let Some(Reel { records, children, shard }) = inner.shards.get(&self.shard) else {
            return error(SourceErrorKind::NotFound);
        };
        let from = match &self.next {
            Next::Record(index) => *index,
            Next::Place(place) => records.partition_point(|record| is_before(record, place)),
        };
        let to = records.len().min(from + limit);
        let page = if from == records.len() && !shard.open {
            Page::last(children.clone())
        } else {
            Page::new(records[from..to].to_vec()).millis_behind(u64::from(to < records.len()) * 1_000)
        };
        self.next = Next::Record(to);
        drop(inner);
        TapeSource::answered(&self.tape, &self.clock);
        Ok(page)
    }
}

fn is_before(record: &Record, place: &Position) -> bool {
    match place {
        Position::TrimHorizon => false,
        Position::Latest | Position::ShardEnd => true,
        Position::AtTimestamp(millis) => record.arrival.is_some_and(|at| at.as_millis() < *millis),
        Position::At(seq) => record.seq < *seq,
        Position::After(seq) => record.seq <= *seq,
    }
}
