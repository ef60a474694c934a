//! What the fake knows: streams, shards, records. No clock, no IO: time comes in as milliseconds since 1970.

use super::sequence;
use crate::service::FakeError;
use bytes::Bytes;
use md5::{Digest, Md5};
use std::collections::{BTreeMap, VecDeque};

/// The account of a stream that is named without an ARN.
pub(crate) const ACCOUNT: &str = "000000000000";
/// The region of a stream that is named without an ARN.
pub(crate) const REGION: &str = "us-east-1";

/// Account, region and name of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamKey {
    pub account: String,
    pub region: String,
    pub name: String,
}

impl StreamKey {
    /// Reads a stream name or a stream ARN.
    pub(crate) fn parse(name_or_arn: &str) -> Result<Self, FakeError> {
        let key = match name_or_arn.strip_prefix("arn:") {
            None => Self { account: ACCOUNT.into(), region: REGION.into(), name: name_or_arn.into() },
            Some(rest) => {
                let parts: Vec<&str> = rest.splitn(5, ':').collect();
                match parts[..] {
                    [_, "kinesis", region, account, resource] if resource.starts_with("stream/") => Self {
                        account: account.into(),
                        region: region.into(),
                        name: resource.trim_start_matches("stream/").into(),
                    },
                    _ => {
                        return Err(FakeError::new(
                            "ValidationException",
                            format!("StreamARN {name_or_arn} is not the ARN of a stream."),
                        ));
                    }
                }
            }
        };
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if key.name.is_empty() || key.name.len() > 128 || !key.name.chars().all(good) {
            let message =
                format!("StreamName {:?} must have 1 to 128 of the characters a-zA-Z0-9_.-", key.name);
            return Err(FakeError::new("ValidationException", message));
        }
        Ok(key)
    }

    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:kinesis:{}:{}:stream/{}", self.region, self.account, self.name)
    }

    fn not_found(&self) -> FakeError {
        FakeError::new(
            "ResourceNotFoundException",
            format!("Stream {} under account {} not found.", self.name, self.account),
        )
    }
}

/// A record as it lies in its shard.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub counter: u64,
    pub key: Option<String>,
    pub data: Bytes,
    pub arrival_ms: u64,
}

impl Record {
    /// What the service counts against its page cap and its read limits.
    pub(crate) fn size(&self) -> usize {
        self.data.len() + self.key.as_ref().map_or(0, String::len)
    }
}

/// One shard. Trimmed records stay in `records` for the observer; readers see those from `first` on.
#[derive(Debug)]
pub(crate) struct Shard {
    pub id: String,
    pub hash: (u128, u128),
    pub parent: Option<String>,
    pub adjacent: Option<String>,
    /// Counter of its starting and, once closed, ending sequence number.
    pub start: u64,
    pub end: Option<u64>,
    pub opened_ms: u64,
    pub closed_ms: Option<u64>,
    pub records: Vec<Record>,
    /// Index of the first record that has not been trimmed.
    pub first: usize,
    /// No longer listed and no longer readable: its retention has run out.
    pub forgotten: bool,
    /// Recent reads (time in ms, bytes), kept for the read limits.
    pub reads: VecDeque<(u64, usize)>,
}

impl Shard {
    /// Index of the first retained record with at least this counter.
    pub(crate) fn index_from(&self, counter: u64) -> usize {
        self.records.partition_point(|r| r.counter < counter).max(self.first)
    }

    /// Whether this counter was given to one of its records, its beginning or its end.
    pub(crate) fn numbered(&self, counter: u64) -> bool {
        self.start == counter
            || self.end == Some(counter)
            || self.records.binary_search_by_key(&counter, |r| r.counter).is_ok()
    }

    /// Refuses a read above 5 calls or 2 MiB in a second; a page above 2 MiB is paid off at 2 MiB a second.
    pub(crate) fn check_read_limits(&mut self, now_ms: u64) -> Result<(), FakeError> {
        const SECOND_BYTES: usize = 2 << 20;
        let hold = |bytes: usize| 1_000.max(bytes as u64 * 1_000 / SECOND_BYTES as u64);
        self.reads.retain(|(at, bytes)| now_ms < at + hold(*bytes));
        let calls = self.reads.iter().filter(|(at, _)| now_ms < at + 1_000).count();
        let bytes: usize = self.reads.iter().map(|(_, bytes)| bytes).sum();
        if calls >= 5 || bytes >= SECOND_BYTES {
            return Err(FakeError::new(
                "ProvisionedThroughputExceededException",
                format!("Rate exceeded for shard {}.", self.id),
            ));
        }
        Ok(())
    }
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub key: StreamKey,
    /// Tells incarnations apart and starts every sequence number; grows with every stream of the fake.
    pub epoch: u64,
    pub created_ms: u64,
    pub retention_ms: u64,
    pub shards: Vec<Shard>,
    counter: u64,
    round_robin: usize,
    expired_before: u64,
}

impl Stream {
    fn next_counter(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// The last counter given out.
    pub(crate) fn last_counter(&self) -> u64 {
        self.counter
    }

    pub(crate) fn sequence(&self, counter: u64) -> String {
        sequence::text(self.epoch, counter)
    }

    fn open_shard(
        &mut self,
        hash: (u128, u128),
        parents: (Option<String>, Option<String>),
        now_ms: u64,
    ) -> String {
        let id = format!("shardId-{:012}", self.shards.len());
        let start = self.next_counter();
        self.shards.push(Shard {
            id: id.clone(),
            hash,
            parent: parents.0,
            adjacent: parents.1,
            start,
            end: None,
            opened_ms: now_ms,
            closed_ms: None,
            records: Vec::new(),
            first: 0,
            forgotten: false,
            reads: VecDeque::new(),
        });
        id
    }

    /// Index of a listed shard.
    pub(crate) fn shard_index(&self, id: &str) -> Result<usize, FakeError> {
        // Ids are numbered by index; streams may have thousands of shards.
        let index = id.strip_prefix("shardId-").and_then(|number| number.parse::<usize>().ok());
        let listed = |i: &usize| self.shards.get(*i).is_some_and(|s| s.id == id && !s.forgotten);
        index.filter(listed).ok_or_else(|| {
            let StreamKey { name, account, .. } = &self.key;
            let message = format!("Shard {id} in stream {name} under account {account} does not exist");
            FakeError::new("ResourceNotFoundException", message)
        })
    }

    /// Appends a record to a shard; the counter becomes its sequence number.
    pub(crate) fn append(&mut self, shard: usize, key: Option<String>, data: Bytes, now_ms: u64) -> u64 {
        let counter = self.next_counter();
        self.shards[shard].records.push(Record { counter, key, data, arrival_ms: now_ms });
        counter
    }

    /// The open shard for a record: by explicit hash key, else by the key's MD5, else in turn.
    pub(crate) fn route(&mut self, key: Option<&str>, explicit: Option<u128>) -> Result<usize, FakeError> {
        let hash = explicit.or_else(|| key.map(hash_key));
        let open = |s: &Shard| s.end.is_none();
        let found = match hash {
            Some(h) => self.shards.iter().position(|s| open(s) && s.hash.0 <= h && h <= s.hash.1),
            None => {
                let all: Vec<usize> = (0..self.shards.len()).filter(|i| open(&self.shards[*i])).collect();
                self.round_robin += 1;
                all.get(self.round_robin.wrapping_sub(1) % all.len().max(1)).copied()
            }
        };
        found.ok_or_else(|| FakeError::new("ResourceNotFoundException", "No open shard takes this record."))
    }

    fn close(&mut self, shard: usize, now_ms: u64) {
        let end = self.next_counter();
        self.shards[shard].end = Some(end);
        self.shards[shard].closed_ms = Some(now_ms);
    }

    /// Splits an open shard before `at`, or in the middle; returns the children's ids, lower range first.
    pub(crate) fn split(
        &mut self,
        id: &str,
        at: Option<u128>,
        now_ms: u64,
    ) -> Result<(String, String), FakeError> {
        let index = self.open_index(id)?;
        let (low, high) = self.shards[index].hash;
        let at = at.unwrap_or(low + (high - low) / 2 + 1);
        if at <= low || at > high {
            return Err(FakeError::invalid(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {id} is not in its hash key range ({low}, {high}]"
            )));
        }
        self.close(index, now_ms);
        let lower = self.open_shard((low, at - 1), (Some(id.into()), None), now_ms);
        let upper = self.open_shard((at, high), (Some(id.into()), None), now_ms);
        Ok((lower, upper))
    }

    /// Merges two open shards with neighbouring hash ranges; returns the child's id.
    pub(crate) fn merge(&mut self, id: &str, adjacent: &str, now_ms: u64) -> Result<String, FakeError> {
        let (a, b) = (self.open_index(id)?, self.open_index(adjacent)?);
        let ((a_low, a_high), (b_low, b_high)) = (self.shards[a].hash, self.shards[b].hash);
        let neighbours = a_high.checked_add(1) == Some(b_low) || b_high.checked_add(1) == Some(a_low);
        if !neighbours {
            return Err(FakeError::invalid(format!("Shards {id} and {adjacent} are not adjacent.")));
        }
        self.close(a, now_ms);
        self.close(b, now_ms);
        let range = (a_low.min(b_low), a_high.max(b_high));
        Ok(self.open_shard(range, (Some(id.into()), Some(adjacent.into())), now_ms))
    }

    fn open_index(&self, id: &str) -> Result<usize, FakeError> {
        let index = self.shard_index(id)?;
        if self.shards[index].end.is_some() {
            return Err(FakeError::new("ResourceInUseException", format!("Shard {id} is closed.")));
        }
        Ok(index)
    }

    /// Trims what is older than the retention and forgets closed shards that have nothing left.
    fn expire(&mut self, now_ms: u64) {
        let before = now_ms.saturating_sub(self.retention_ms);
        if before == self.expired_before {
            return;
        }
        self.expired_before = before;
        for shard in &mut self.shards {
            while shard.records.get(shard.first).is_some_and(|r| r.arrival_ms < before) {
                shard.first += 1;
            }
            if shard.closed_ms.is_some_and(|closed| closed < before) && shard.first == shard.records.len() {
                shard.forgotten = true;
            }
        }
    }
}

/// The hash key of a partition key: its MD5 as a 128-bit integer.
pub(crate) fn hash_key(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_bytes()).into())
}

/// Everything the fake holds, and its settings.
#[derive(Debug)]
pub(crate) struct World {
    streams: BTreeMap<StreamKey, Stream>,
    last_epoch: u64,
    pub request: u64,
    pub iterator_lifetime_ms: u64,
    pub token_lifetime_ms: u64,
    pub list_page_size: usize,
    pub read_limits: bool,
    pub separate_end_page: bool,
    pub listing_lag_ms: u64,
    pub tells_children: bool,
    pub speaks_cbor: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            streams: BTreeMap::new(),
            last_epoch: 0,
            request: 0,
            iterator_lifetime_ms: 300_000,
            token_lifetime_ms: 300_000,
            list_page_size: 1_000,
            read_limits: false,
            separate_end_page: false,
            listing_lag_ms: 0,
            tells_children: true,
            speaks_cbor: true,
        }
    }
}

impl World {
    /// Forgets everything but what distinguishes later streams from earlier ones.
    pub(crate) fn reset(&mut self) {
        *self = Self { last_epoch: self.last_epoch, request: self.request, ..Self::default() };
    }

    pub(crate) fn create(
        &mut self,
        name_or_arn: &str,
        shards: u32,
        now_ms: u64,
    ) -> Result<&Stream, FakeError> {
        let key = StreamKey::parse(name_or_arn)?;
        if !(1..=10_000).contains(&shards) {
            return Err(FakeError::invalid(format!("ShardCount {shards} must be between 1 and 10000.")));
        }
        if self.streams.contains_key(&key) {
            let message = format!("Stream {} under account {} already exists.", key.name, key.account);
            return Err(FakeError::new("ResourceInUseException", message));
        }
        let epoch = now_ms.max(self.last_epoch + 1);
        self.last_epoch = epoch;
        let mut stream = Stream {
            key: key.clone(),
            epoch,
            created_ms: now_ms,
            retention_ms: 24 * 3_600_000,
            shards: Vec::new(),
            counter: 0,
            round_robin: 0,
            expired_before: 0,
        };
        let width = u128::MAX / u128::from(shards);
        for i in 0..u128::from(shards) {
            let high = if i + 1 == u128::from(shards) { u128::MAX } else { (i + 1) * width - 1 };
            stream.open_shard((i * width, high), (None, None), now_ms);
        }
        Ok(self.streams.entry(key).or_insert(stream))
    }

    pub(crate) fn delete(&mut self, key: &StreamKey) -> Result<(), FakeError> {
        self.streams.remove(key).map(|_| ()).ok_or_else(|| key.not_found())
    }

    pub(crate) fn names(&self) -> Vec<StreamKey> {
        self.streams.keys().cloned().collect()
    }

    /// The stream, without what has outlived its retention.
    pub(crate) fn stream(&mut self, key: &StreamKey, now_ms: u64) -> Result<&mut Stream, FakeError> {
        let stream = self.streams.get_mut(key).ok_or_else(|| key.not_found())?;
        stream.expire(now_ms);
        Ok(stream)
    }

    /// The stream of an iterator or a token, which name it by its epoch.
    pub(crate) fn stream_by_epoch(&mut self, epoch: u64, now_ms: u64) -> Result<&mut Stream, FakeError> {
        let stream = self.streams.values_mut().find(|s| s.epoch == epoch).ok_or_else(|| {
            FakeError::new(
                "ResourceNotFoundException",
                "The stream of this iterator or token no longer exists.",
            )
        })?;
        stream.expire(now_ms);
        Ok(stream)
    }
}
