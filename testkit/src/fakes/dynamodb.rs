//! Control commands of the DynamoDB streams.

use super::Refused;
use super::faults::{CallsAsked, Injected, Injection};
use crate::{FakeDynamoDbStreams, StoredChange, StoredStreamShard};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// A command: its name is the variant's in kebab case, its body has the fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum Command {
    CreateTable { table: String, keys: Vec<String>, shards: u32 },
    PutItem { table: String, item: Value },
    DeleteItem { table: String, key: Value },
    ExpireItem { table: String, key: Value },
    Roll { table: String, shard: String },
    Split { table: String, shard: String },
    Close { table: String, shard: String },
    Trim { table: String, shard: String, through: String },
    Forget { table: String, shard: String },
    Disable { table: String },
    Enable { table: String },
    Shards { table: String },
    Changes { table: String },
    Set(Settings),
    InjectFault(Injection),
    Faults {},
    RemoveFault { id: u64 },
    RemoveFaults {},
    Calls(CallsAsked),
    ClearCalls {},
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settings {
    iterator_lifetime_ms: Option<u64>,
    list_page_size: Option<usize>,
    retention_ms: Option<u64>,
    at_timestamp: Option<bool>,
    ends_shown: Option<bool>,
    clock_offset_ms: Option<i64>,
}

pub(super) fn perform(
    fake: &FakeDynamoDbStreams,
    injected: &Injected,
    command: Command,
) -> Result<Value, Refused> {
    let done = |()| json!({});
    Ok(match command {
        Command::CreateTable { table, keys, shards } => {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            json!({ "streamArn": fake.create_table(&table, &keys, shards)? })
        }
        Command::PutItem { table, item } => written(fake.put_item(&table, &item)?.as_ref()),
        Command::DeleteItem { table, key } => written(fake.delete_item(&table, &key)?.as_ref()),
        Command::ExpireItem { table, key } => written(fake.expire_item(&table, &key)?.as_ref()),
        Command::Roll { table, shard } => json!({ "children": [fake.roll(&table, &shard)?] }),
        Command::Split { table, shard } => json!({ "children": fake.split(&table, &shard)? }),
        Command::Close { table, shard } => fake.close_shard(&table, &shard).map(done)?,
        Command::Trim { table, shard, through } => fake.trim(&table, &shard, &through).map(done)?,
        Command::Forget { table, shard } => fake.forget_shard(&table, &shard).map(done)?,
        Command::Disable { table } => fake.disable_stream(&table).map(done)?,
        Command::Enable { table } => json!({ "streamArn": fake.enable_stream(&table)? }),
        Command::Shards { table } => {
            json!({ "shards": fake.shards(&table)?.iter().map(shard).collect::<Vec<_>>() })
        }
        Command::Changes { table } => {
            json!({ "changes": fake.changes(&table)?.iter().map(change).collect::<Vec<_>>() })
        }
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

/// What a write came to; null if it changed nothing.
fn written(found: Option<&StoredChange>) -> Value {
    json!({ "change": found.map(change) })
}

fn change(change: &StoredChange) -> Value {
    json!({
        "shardId": change.shard_id, "sequenceNumber": change.sequence_number, "eventName": change.event_name,
        "keys": change.keys, "newImage": change.new_image, "oldImage": change.old_image,
    })
}

fn shard(shard: &StoredStreamShard) -> Value {
    json!({ "shardId": shard.id, "parent": shard.parent, "open": shard.open, "forgotten": shard.forgotten })
}

fn set(fake: &FakeDynamoDbStreams, settings: &Settings) {
    if let Some(ms) = settings.iterator_lifetime_ms {
        fake.set_iterator_lifetime(Duration::from_millis(ms));
    }
    if let Some(shards) = settings.list_page_size {
        fake.set_list_page_size(shards);
    }
    if let Some(ms) = settings.retention_ms {
        fake.set_retention(Duration::from_millis(ms));
    }
    if let Some(known) = settings.at_timestamp {
        fake.set_at_timestamp(known);
    }
    if let Some(shown) = settings.ends_shown {
        fake.set_ends_shown(shown);
    }
    if let Some(ms) = settings.clock_offset_ms {
        fake.set_clock_offset(ms);
    }
}
