//! Control commands of the Kinesis.

use super::Refused;
use super::faults::{CallsAsked, Injected, Injection};
use crate::FakeKinesis;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The most that a record may have, its partition key included.
const RECORD_BYTES: usize = 10 << 20;

/// A command: its name is the variant's in kebab case, its body has the fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum Command {
    CreateStream { stream: String, shards: u32 },
    DeleteStream { stream: String },
    Put(Put),
    Fill { stream: String, records: u32, bytes: usize },
    Split { stream: String, shard: String },
    Merge { stream: String, shard: String, adjacent: String },
    Trim { stream: String, shard: String, through: String },
    Forget { stream: String, shard: String },
    SetRetention { stream: String, ms: u64 },
    Shards { stream: String },
    Records { stream: String },
    Set(Settings),
    InjectFault(Injection),
    Faults {},
    RemoveFault { id: u64 },
    RemoveFaults {},
    Calls(CallsAsked),
    ClearCalls {},
}

/// A record to put. Exactly one of `data`, `base64` and `bytes` is its content.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Put {
    stream: String,
    key: Option<String>,
    shard: Option<String>,
    data: Option<String>,
    base64: Option<String>,
    /// So many zeros.
    bytes: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settings {
    iterator_lifetime_ms: Option<u64>,
    next_token_lifetime_ms: Option<u64>,
    list_page_size: Option<usize>,
    read_limits: Option<bool>,
    separate_end_page: Option<bool>,
    clock_offset_ms: Option<i64>,
    cbor: Option<bool>,
}

pub(super) fn perform(fake: &FakeKinesis, injected: &Injected, command: Command) -> Result<Value, Refused> {
    let done = |()| json!({});
    Ok(match command {
        Command::CreateStream { stream, shards } => json!({ "arn": fake.create_stream(&stream, shards)? }),
        Command::DeleteStream { stream } => fake.delete_stream(&stream).map(done)?,
        Command::Put(put) => self::put(fake, put)?,
        Command::Fill { stream, records, bytes } => fill(fake, &stream, records, bytes).map(done)?,
        Command::Split { stream, shard } => {
            let (lower, upper) = fake.split(&stream, &shard)?;
            json!({ "children": [lower, upper] })
        }
        Command::Merge { stream, shard, adjacent } => {
            json!({ "children": [fake.merge(&stream, &shard, &adjacent)?] })
        }
        Command::Trim { stream, shard, through } => fake.trim(&stream, &shard, &through).map(done)?,
        Command::Forget { stream, shard } => fake.forget_shard(&stream, &shard).map(done)?,
        Command::SetRetention { stream, ms } => {
            fake.set_retention(&stream, Duration::from_millis(ms)).map(done)?
        }
        Command::Shards { stream } => shards(fake, &stream)?,
        Command::Records { stream } => records(fake, &stream)?,
        Command::Set(settings) => {
            set(fake, &settings);
            done(())
        }
        Command::InjectFault(injection) => injected.inject(&fake.faults(), injection)?,
        Command::Faults {} => injected.list(),
        Command::RemoveFault { id } => injected.remove(id)?,
        Command::RemoveFaults {} => injected.remove_all(&fake.faults()),
        Command::Calls(asked) => injected.calls(&fake.calls(), asked)?,
        Command::ClearCalls {} => {
            fake.clear_calls();
            done(())
        }
    })
}

fn put(fake: &FakeKinesis, put: Put) -> Result<Value, Refused> {
    let Put { stream, key, shard, data, base64, bytes } = put;
    let refused = |text: String| Refused::Unreadable(format!("put: {text}"));
    let data: Bytes = match (data, base64, bytes) {
        (Some(text), None, None) => text.into(),
        (None, Some(text), None) => base64_simd::STANDARD
            .decode_to_vec(text)
            .map_err(|_| refused("base64 is not base64".to_owned()))?
            .into(),
        (None, None, Some(bytes)) => zeros(bytes)?,
        _ => return Err(refused("give exactly one of data, base64, bytes".to_owned())),
    };
    let size = data.len() + key.as_ref().map_or(0, String::len);
    if size > RECORD_BYTES {
        return Err(refused(format!(
            "{size} bytes, with the key, are more than the {RECORD_BYTES} of a record"
        )));
    }
    let placed = match shard {
        Some(shard) => fake.put_to_shard(&stream, &shard, key.as_deref(), data)?,
        None => fake.put(&stream, key.as_deref(), data)?,
    };
    Ok(json!({ "shardId": placed.shard_id, "sequenceNumber": placed.sequence_number }))
}

fn zeros(bytes: usize) -> Result<Bytes, Refused> {
    if bytes > RECORD_BYTES {
        return Err(Refused::Unreadable(format!("bytes {bytes} must be between 0 and {RECORD_BYTES}")));
    }
    Ok(vec![0; bytes].into())
}

/// Puts as many records into every open shard; their data is one piece of memory.
fn fill(fake: &FakeKinesis, stream: &str, records: u32, bytes: usize) -> Result<(), Refused> {
    let data = zeros(bytes)?;
    for shard in fake.shards(stream)?.iter().filter(|shard| shard.open && !shard.forgotten) {
        for n in 0..records {
            let key = format!("key-{:05}", n % 10_000);
            fake.put_to_shard(stream, &shard.id, Some(&key), data.clone())?;
        }
    }
    Ok(())
}

fn set(fake: &FakeKinesis, settings: &Settings) {
    if let Some(ms) = settings.iterator_lifetime_ms {
        fake.set_iterator_lifetime(Duration::from_millis(ms));
    }
    if let Some(ms) = settings.next_token_lifetime_ms {
        fake.set_next_token_lifetime(Duration::from_millis(ms));
    }
    if let Some(shards) = settings.list_page_size {
        fake.set_list_page_size(shards);
    }
    if let Some(on) = settings.read_limits {
        fake.set_read_limits(on);
    }
    if let Some(on) = settings.separate_end_page {
        fake.set_separate_end_page(on);
    }
    if let Some(ms) = settings.clock_offset_ms {
        fake.set_clock_offset(ms);
    }
    if let Some(on) = settings.cbor {
        fake.set_cbor(on);
    }
}

fn shards(fake: &FakeKinesis, stream: &str) -> Result<Value, Refused> {
    let one = |shard: crate::kinesis::StoredShard| {
        let parents: Vec<_> = shard.parent.into_iter().chain(shard.adjacent_parent).collect();
        json!({ "shardId": shard.id, "parents": parents, "open": shard.open, "forgotten": shard.forgotten })
    };
    Ok(json!({ "shards": fake.shards(stream)?.into_iter().map(one).collect::<Vec<_>>() }))
}

fn records(fake: &FakeKinesis, stream: &str) -> Result<Value, Refused> {
    let one = |record: crate::kinesis::StoredRecord| {
        json!({
            "shardId": record.shard_id, "sequenceNumber": record.sequence_number, "key": record.partition_key,
            "base64": base64_simd::STANDARD.encode_to_string(&record.data), "arrivalMs": record.arrival_ms,
        })
    };
    Ok(json!({ "records": fake.records(stream)?.into_iter().map(one).collect::<Vec<_>>() }))
}
