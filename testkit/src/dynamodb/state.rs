//! Tables, their streams and what was written: pure state.

use crate::service::FakeError;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Distance between two sequence numbers; large, and such that numbers differ in length.
const STEP: u128 = 100_000_000_000_000_000_003;

/// The sequence number of a counter.
pub(crate) fn sequence(counter: u64) -> String {
    (u128::from(counter) * STEP).to_string()
}

/// The counter of a sequence number that this fake gave out; leading zeros are accepted.
pub(crate) fn counter_of(number: &str) -> Result<u64, FakeError> {
    let parsed = number.parse::<u128>().ok().filter(|n| n % STEP == 0);
    parsed
        .and_then(|n| u64::try_from(n / STEP).ok())
        .ok_or_else(|| FakeError::new("ValidationException", format!("Invalid SequenceNumber: {number}")))
}

/// A change of an item.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub counter: u64,
    pub created_ms: u64,
    pub name: &'static str,
    pub keys: Value,
    pub new: Option<Value>,
    pub old: Option<Value>,
    /// Whether the service itself deleted the item, because its time had come.
    pub expired: bool,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub id: String,
    pub parent: Option<String>,
    /// Which hashes of keys it takes, both included.
    range: (u64, u64),
    pub start: u64,
    /// The number with which it was closed.
    pub end: Option<u64>,
    closed_ms: Option<u64>,
    pub changes: Vec<Change>,
    /// Changes before this one are trimmed.
    pub first: usize,
    pub forgotten: bool,
}

impl Shard {
    /// Index of the first change with at least this counter.
    pub(crate) fn index_from(&self, counter: u64) -> usize {
        self.changes.partition_point(|change| change.counter < counter)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Enabling,
    Enabled,
    Disabled,
}

impl Status {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Enabling => "ENABLING",
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
        }
    }
}

/// One stream of a table; a table that had its stream disabled and enabled again has several.
#[derive(Debug)]
pub(crate) struct Stream {
    pub arn: String,
    pub table: String,
    pub label: String,
    pub status: Status,
    pub created_ms: u64,
    pub shards: Vec<Shard>,
}

impl Stream {
    pub(crate) fn shard(&mut self, id: &str) -> Result<&mut Shard, FakeError> {
        let missing = || {
            FakeError::new("ResourceNotFoundException", format!("Requested resource not found: Shard {id}"))
        };
        self.shards.iter_mut().find(|shard| shard.id == id && !shard.forgotten).ok_or_else(missing)
    }
}

#[derive(Debug)]
struct Table {
    keys: Vec<String>,
    items: BTreeMap<String, Value>,
    /// The ARN of its last stream.
    stream: String,
}

/// Everything the fake holds, and its settings.
#[derive(Debug)]
pub(crate) struct World {
    tables: BTreeMap<String, Table>,
    pub streams: BTreeMap<String, Stream>,
    counter: u64,
    pub request: u64,
    pub iterator_lifetime_ms: u64,
    pub retention_ms: Option<u64>,
    pub list_page_size: usize,
    pub knows_at_timestamp: bool,
    pub shows_ends: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            tables: BTreeMap::new(),
            streams: BTreeMap::new(),
            counter: 0,
            request: 0,
            iterator_lifetime_ms: 15 * 60 * 1_000,
            retention_ms: None,
            list_page_size: 100,
            knows_at_timestamp: true,
            shows_ends: true,
        }
    }
}

impl World {
    /// Forgets everything but what distinguishes later streams and records from earlier ones.
    pub(crate) fn reset(&mut self) {
        *self = Self { counter: self.counter, request: self.request, ..Self::default() };
    }

    /// Trims what is older than the retention, and forgets closed shards that have nothing left.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let Some(before) = self.retention_ms.map(|retention| now_ms.saturating_sub(retention)) else {
            return;
        };
        for shard in self.streams.values_mut().flat_map(|stream| &mut stream.shards) {
            while shard.changes.get(shard.first).is_some_and(|change| change.created_ms < before) {
                shard.first += 1;
            }
            let is_empty = shard.first == shard.changes.len();
            shard.forgotten |= is_empty && shard.closed_ms.is_some_and(|closed| closed < before);
        }
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(crate) const fn last_counter(&self) -> u64 {
        self.counter
    }

    pub(crate) fn create_table(
        &mut self,
        name: &str,
        keys: &[&str],
        shards: u32,
        now_ms: u64,
    ) -> Result<String, FakeError> {
        if self.tables.contains_key(name) {
            return Err(FakeError::new("ResourceInUseException", format!("Table already exists: {name}")));
        }
        if !(1..=10_000).contains(&shards) || !(1..=2).contains(&keys.len()) {
            let message = "a table has one or two key attributes, its stream here 1 to 10000 shards";
            return Err(FakeError::new("ValidationException", message));
        }
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let stream = self.open_stream(name, shards, now_ms);
        self.tables.insert(name.to_owned(), Table { keys, items: BTreeMap::new(), stream: stream.clone() });
        Ok(stream)
    }

    fn open_stream(&mut self, table: &str, shards: u32, now_ms: u64) -> String {
        let seconds = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
        let time = aws_smithy_types::DateTime::from_secs(seconds);
        let time = time.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap_or_default();
        // A stream enabled within the same millisecond still has a label of its own.
        let fraction = now_ms % 1_000 + self.streams.len() as u64 * 1_000;
        let label = format!("{}.{fraction:03}", time.trim_end_matches('Z'));
        let arn = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{table}/stream/{label}");
        let mut stream = Stream {
            arn: arn.clone(),
            table: table.to_owned(),
            label,
            status: Status::Enabled,
            created_ms: now_ms,
            shards: Vec::new(),
        };
        let width = u64::MAX / u64::from(shards);
        for i in 0..u64::from(shards) {
            let high = if i + 1 == u64::from(shards) { u64::MAX } else { (i + 1) * width - 1 };
            let start = self.next();
            open_shard(&mut stream, (i * width, high), None, start, now_ms);
        }
        self.streams.insert(arn.clone(), stream);
        arn
    }

    /// The stream that an ARN or a table's name means.
    pub(crate) fn stream(&mut self, name_or_arn: &str) -> Result<&mut Stream, FakeError> {
        let arn = self.tables.get(name_or_arn).map_or(name_or_arn, |table| &table.stream).to_owned();
        self.streams.get_mut(&arn).ok_or_else(|| {
            FakeError::new(
                "ResourceNotFoundException",
                format!("Requested resource not found: Stream: {arn}"),
            )
        })
    }

    pub(crate) fn disable(&mut self, table: &str, now_ms: u64) -> Result<(), FakeError> {
        let end = self.next();
        let stream = self.stream(table)?;
        stream.status = Status::Disabled;
        for shard in &mut stream.shards {
            shard.end.get_or_insert(end);
            shard.closed_ms.get_or_insert(now_ms);
        }
        Ok(())
    }

    pub(crate) fn enable(&mut self, table: &str, now_ms: u64) -> Result<String, FakeError> {
        if self.stream(table)?.status != Status::Disabled {
            return Err(FakeError::new("ValidationException", "Table already has an enabled stream"));
        }
        let arn = self.open_stream(table, 1, now_ms);
        if let Some(table) = self.tables.get_mut(table) {
            table.stream.clone_from(&arn);
        }
        Ok(arn)
    }

    /// Closes a shard and opens this many children over its range.
    pub(crate) fn roll(
        &mut self,
        table: &str,
        id: &str,
        children: u64,
        now_ms: u64,
    ) -> Result<Vec<String>, FakeError> {
        let (end, start) = (self.next(), self.next());
        let stream = self.stream(table)?;
        let shard = stream.shard(id)?;
        if shard.end.is_some() {
            return Err(FakeError::new("ValidationException", format!("Shard {id} is closed.")));
        }
        shard.end = Some(end);
        shard.closed_ms = Some(now_ms);
        let (low, high) = shard.range;
        let width = (high - low) / children.max(1);
        let opened = (0..children).map(|i| {
            let top = if i + 1 == children { high } else { low + (i + 1) * width - 1 };
            open_shard(stream, (low + i * width, top), Some(id.to_owned()), start, now_ms)
        });
        Ok(opened.collect())
    }

    /// Writes an item, or deletes the one with the key in `attributes`. `None`: nothing changed.
    pub(crate) fn write(
        &mut self,
        table_name: &str,
        attributes: &Value,
        delete: Option<bool>,
        now_ms: u64,
    ) -> Result<Option<(String, Change)>, FakeError> {
        let missing = || FakeError::new("ResourceNotFoundException", "Requested resource not found");
        let table = self.tables.get_mut(table_name).ok_or_else(missing)?;
        let mut keys = Map::new();
        for key in &table.keys {
            let value = attributes.get(key).ok_or_else(|| {
                FakeError::new("ValidationException", format!("Missing the key {key} in the item"))
            })?;
            keys.insert(key.clone(), value.clone());
        }
        let keys = Value::Object(keys);
        let key = keys.to_string();
        let old = table.items.remove(&key);
        let new = delete.is_none().then(|| attributes.clone());
        if let Some(new) = &new {
            table.items.insert(key.clone(), new.clone());
        }
        let name = match (&old, &new) {
            (None, Some(_)) => "INSERT",
            (Some(old), Some(new)) if old != new => "MODIFY",
            (Some(_), None) => "REMOVE",
            // A write that changes nothing writes no stream record (R63).
            _ => return Ok(None),
        };
        let counter = self.next();
        let stream = self.stream(table_name)?;
        if stream.status == Status::Disabled {
            return Ok(None);
        }
        let change =
            Change { counter, created_ms: now_ms, name, keys, new, old, expired: delete == Some(true) };
        let hash = hash(&key);
        let shard =
            stream.shards.iter_mut().find(|s| s.end.is_none() && s.range.0 <= hash && hash <= s.range.1);
        let shard = shard.ok_or_else(|| {
            FakeError::new("ValidationException", "the shard for this item was closed without a child")
        })?;
        shard.changes.push(change.clone());
        Ok(Some((shard.id.clone(), change)))
    }
}

fn open_shard(
    stream: &mut Stream,
    range: (u64, u64),
    parent: Option<String>,
    start: u64,
    now_ms: u64,
) -> String {
    // The service's form: when it was opened, and something that distinguishes it from its siblings.
    let id = format!("shardId-{now_ms:020}-{:08x}", stream.shards.len());
    stream.shards.push(Shard {
        id: id.clone(),
        parent,
        range,
        start,
        end: None,
        closed_ms: None,
        changes: Vec::new(),
        first: 0,
        forgotten: false,
    });
    id
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Change {
    /// The record as GetRecords gives it.
    pub(crate) fn json(&self) -> Value {
        let size = [Some(&self.keys), self.new.as_ref(), self.old.as_ref()];
        let size: usize = size.iter().flatten().map(|value| value.to_string().len()).sum();
        let mut change = json!({
            "ApproximateCreationDateTime": self.created_ms / 1_000,
            "Keys": self.keys,
            "SequenceNumber": sequence(self.counter),
            "SizeBytes": size,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        });
        for (name, image) in [("NewImage", &self.new), ("OldImage", &self.old)] {
            if let Some(image) = image {
                change[name] = image.clone();
            }
        }
        let mut record = json!({
            "eventID": format!("{:032x}", u128::from(self.counter) * STEP),
            "eventName": self.name,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": change,
        });
        if self.expired {
            record["userIdentity"] = json!({"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"});
        }
        record
    }
}
