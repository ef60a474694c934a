//! A lease as columns, human-readable when the file is opened with `sqlite3`.

use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::{FromSql, ValueRef};
use serde_json::{Map, Value};
use shardmill_engine::{HashRange, LeaseKey, Position, Seq, ShardId};

use super::fault::{BadRow, Fault};
use crate::{AppState, Lease, ProcessIdentity, WorkerId};

/// A query for the columns that [`Stored::read`] expects, in its order.
macro_rules! select_leases {
    () => {
        "SELECT account, region, stream, epoch, shard, counter, lease_owner, checkpoint_owner, concurrency_token, \
         owner_host, owner_pid, owner_started, owner_switches_since_checkpoint, checkpoint, sub_sequence_number, \
         at_timestamp_ms, inclusive, parent_shards, child_shards, starting_hash_key, ending_hash_key, app, owner_lease_ms, \
         owner_epoch FROM leases"
    };
}
pub(super) use select_leases;

/// A lease together with what a [`Lease`] does not show. Its heartbeat is not in the row.
pub(super) struct Stored {
    pub(super) lease: Lease,
    /// The life in which the owner acquired it.
    pub(super) owner_epoch: Option<i64>,
    /// All application state, including values that are not text and were written by another program.
    app: Map<String, Value>,
}

impl Stored {
    pub(super) fn read(row: &Row<'_>) -> Result<Self, Fault> {
        let key = LeaseKey {
            account: name(row, 0)?.into(),
            region: name(row, 1)?.into(),
            stream: name(row, 2)?.into(),
            epoch: name(row, 3)?.into(),
            shard: ShardId::new(name(row, 4)?),
        };
        Reader { row, key: &key }.check_names()?;
        Self::of(&key, row)
    }

    /// The row of this lease.
    pub(super) fn of(key: &LeaseKey, row: &Row<'_>) -> Result<Self, Fault> {
        let read = Reader { row, key };
        let app = read.app()?;
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let lease = Lease {
            counter: read.count(5, "counter")?,
            heartbeat: 0,
            owner: read.worker(6, "lease_owner")?,
            checkpoint_owner: read.worker(7, "checkpoint_owner")?,
            token: read.get(8, "concurrency_token")?,
            process: read.process()?,
            lease_time: read.lease_time()?,
            checkpoint: read.position()?,
            parents: read.shards(17, "parent_shards")?,
            children: read.shards(18, "child_shards")?,
            hash_range: read.hash_range()?,
            owner_switches: read.count(12, "owner_switches_since_checkpoint")?,
            app: app.iter().filter_map(text).collect(),
            key: key.clone(),
        };
        Ok(Self { owner_epoch: read.get(23, "owner_epoch")?, lease, app })
    }

    /// The application state with `changes` made, as the column holds it.
    pub(super) fn app_with(&self, changes: &AppState) -> String {
        let mut app = self.app.clone();
        app.extend(changes.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
        Value::Object(app).to_string()
    }
}

/// A part of a lease's name, as far as it can be shown.
fn name(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(index)? {
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Null => String::new(),
    })
}

struct Reader<'a> {
    row: &'a Row<'a>,
    key: &'a LeaseKey,
}

impl Reader<'_> {
    fn bad(&self, column: &'static str, problem: String) -> Fault {
        Fault::Row(Box::new(BadRow { key: self.key.clone(), column, problem }))
    }

    fn check_names(&self) -> Result<(), Fault> {
        for (index, column) in ["account", "region", "stream", "epoch", "shard"].into_iter().enumerate() {
            let value = self.row.get_ref(index)?;
            if !matches!(value, ValueRef::Text(text) if std::str::from_utf8(text).is_ok()) {
                return Err(self.bad(column, "a value that is no text".to_owned()));
            }
        }
        Ok(())
    }

    fn get<T: FromSql>(&self, index: usize, column: &'static str) -> Result<T, Fault> {
        self.row.get(index).map_err(|error| self.bad(column, format!("an unreadable value ({error})")))
    }

    fn count(&self, index: usize, column: &'static str) -> Result<u64, Fault> {
        let value: i64 = self.get(index, column)?;
        u64::try_from(value).map_err(|_| self.bad(column, format!("the negative number {value}")))
    }

    fn worker(&self, index: usize, column: &'static str) -> Result<Option<WorkerId>, Fault> {
        let name: Option<String> = self.get(index, column)?;
        Ok(name.filter(|name| !name.is_empty()).map(WorkerId::new))
    }

    fn json(&self, index: usize, column: &'static str) -> Result<Value, Fault> {
        let text: String = self.get(index, column)?;
        serde_json::from_str(&text).map_err(|error| self.bad(column, format!("{text:?}, no JSON ({error})")))
    }

    fn app(&self) -> Result<Map<String, Value>, Fault> {
        match self.json(21, "app")? {
            Value::Object(app) => Ok(app),
            other => Err(self.bad("app", format!("{other}, no JSON object"))),
        }
    }

    fn shards(&self, index: usize, column: &'static str) -> Result<Vec<ShardId>, Fault> {
        let value = self.json(index, column)?;
        let name = |shard: &Value| shard.as_str().map(ShardId::from);
        let names = value.as_array().and_then(|shards| shards.iter().map(name).collect());
        names.ok_or_else(|| self.bad(column, format!("{value}, no JSON list of shard names")))
    }

    /// A process that is only half known is unknown: succession then waits for the lease to expire.
    fn process(&self) -> Result<Option<ProcessIdentity>, Fault> {
        let host: Option<String> = self.get(9, "owner_host")?;
        let pid: Option<i64> = self.get(10, "owner_pid")?;
        let started: Option<i64> = self.get(11, "owner_started")?;
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        let started = started.and_then(|started| u64::try_from(started).ok());
        Ok(host.zip(pid).zip(started).map(|((host, pid), started)| ProcessIdentity { host, pid, started }))
    }

    fn lease_time(&self) -> Result<Option<Duration>, Fault> {
        let millis: Option<i64> = self.get(22, "owner_lease_ms")?;
        let valid = |millis: i64| {
            u64::try_from(millis)
                .map_err(|_| self.bad("owner_lease_ms", format!("the negative number {millis}")))
        };
        Ok(millis.map(valid).transpose()?.map(Duration::from_millis))
    }

    /// One that is not a range of hash keys is unknown: it is only shown.
    fn hash_range(&self) -> Result<Option<HashRange>, Fault> {
        let start: Option<String> = self.get(19, "starting_hash_key")?;
        let end: Option<String> = self.get(20, "ending_hash_key")?;
        Ok(start.zip(end).and_then(|(start, end)| HashRange::parse(&start, &end)))
    }

    fn position(&self) -> Result<Position, Fault> {
        let text: String = self.get(13, "checkpoint")?;
        let bad = |problem: &str| Err(self.bad("checkpoint", format!("{text:?}, {problem}")));
        match text.as_str() {
            "TRIM_HORIZON" => Ok(Position::TrimHorizon),
            "SHARD_END" => Ok(Position::ShardEnd),
            "AT_TIMESTAMP" => match self.get(15, "at_timestamp_ms")? {
                Some(ms) => Ok(Position::AtTimestamp(ms)),
                None => bad("but no time in column at_timestamp_ms"),
            },
            digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                let sub = self.count(14, "sub_sequence_number")?;
                let seq = Seq { number: digits.into(), sub };
                let inclusive: bool = self.get(16, "inclusive")?;
                Ok(if inclusive { Position::At(seq) } else { Position::After(seq) })
            }
            _ => bad("which is no sequence number, TRIM_HORIZON, AT_TIMESTAMP or SHARD_END"),
        }
    }
}

/// A position as columns: checkpoint, sub_sequence_number, at_timestamp_ms, inclusive.
pub(super) struct PositionColumns<'a> {
    pub(super) checkpoint: &'a str,
    pub(super) sub: i64,
    pub(super) at_timestamp_ms: Option<i64>,
    pub(super) inclusive: bool,
}

impl<'a> PositionColumns<'a> {
    pub(super) fn of(position: &'a Position) -> Result<Self, Fault> {
        let sentinel = |checkpoint| Self { checkpoint, sub: 0, at_timestamp_ms: None, inclusive: false };
        let record = |seq: &'a Seq, inclusive| {
            let sub = integer(seq.sub, "sub-sequence number")?;
            Ok(Self { checkpoint: seq.number.as_str(), sub, at_timestamp_ms: None, inclusive })
        };
        match position {
            Position::TrimHorizon => Ok(sentinel("TRIM_HORIZON")),
            Position::Latest => Ok(sentinel("LATEST")),
            Position::ShardEnd => Ok(sentinel("SHARD_END")),
            Position::AtTimestamp(ms) => Ok(Self { at_timestamp_ms: Some(*ms), ..sentinel("AT_TIMESTAMP") }),
            Position::At(seq) => record(seq, true),
            Position::After(seq) => record(seq, false),
        }
    }
}

/// A count as an INTEGER column holds it.
pub(super) fn integer(count: u64, what: &'static str) -> Result<i64, Fault> {
    i64::try_from(count).map_err(|_| Fault::TooLarge(what))
}

/// Shard names as a column holds them.
pub(super) fn shards_text(shards: &[ShardId]) -> String {
    Value::from(shards.iter().map(ShardId::as_str).collect::<Vec<_>>()).to_string()
}
