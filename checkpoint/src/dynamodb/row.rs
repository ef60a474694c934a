//! A lease as an item, human-readable in the console.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use shardmill_engine::{HashRange, LeaseKey, Position, Seq, ShardId};

use super::names;
use super::order::order;
use crate::table::attributes::{Item, Reader, Update, number, text, texts};
use crate::table::process::{self, ProcessNames};
use crate::{AppState, Lease, NewLease, ProcessIdentity, WorkerId};

/// A lease with what a [`Lease`] does not show. Its heartbeat is not in the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) lease: Lease,
    /// The life of the worker that acquired it; 0 if none did.
    pub(super) owner_epoch: u64,
}

/// Reads a lease's item. The error has what is wrong with it and what to do.
pub(super) fn read(item: &Item) -> Result<Row, String> {
    read_fields(item).map_err(|problem| {
        let name = Reader(item).text("item").ok().flatten().unwrap_or_default().to_owned();
        format!(
            "the item {name:?} {problem}; correct it, or delete the item, so that its shard starts again from \
             StartingPosition"
        )
    })
}

fn read_fields(item: &Item) -> Result<Row, String> {
    let read = Reader(item);
    let key = names::lease_key(read.required_text("item")?)
        .ok_or("is not called lease#ACCOUNT#REGION#STREAM#EPOCH#SHARD")?;
    let worker = |name| Ok::<_, String>(read.text(name)?.filter(|id| !id.is_empty()).map(WorkerId::new));
    let shards = |name| Ok::<_, String>(read.texts(name)?.into_iter().map(ShardId::from).collect());
    let app = read.required_map("app")?;
    let entry = |(name, value): (&String, &AttributeValue)| Some((name.clone(), value.as_s().ok()?.clone()));
    let lease = Lease {
        key,
        counter: read.required_number("counter")?,
        heartbeat: 0,
        owner: worker("owner")?,
        checkpoint_owner: worker("checkpointOwner")?,
        token: read.text("token")?.map(str::to_owned),
        process: process(read)?,
        lease_time: read.number("leaseMillis")?.map(Duration::from_millis),
        checkpoint: position(read)?,
        parents: shards("parents")?,
        children: shards("children")?,
        hash_range: hash_range(read)?,
        owner_switches: read.number("ownerSwitches")?.unwrap_or_default(),
        app: app.iter().filter_map(entry).collect(),
    };
    Ok(Row { lease, owner_epoch: read.number("ownerEpoch")?.unwrap_or_default() })
}

const PROCESS: ProcessNames = ["processHost", "processId", "processStarted"];

pub(super) fn process(read: Reader<'_>) -> Result<Option<ProcessIdentity>, String> {
    process::read(read, &PROCESS)
}

pub(super) fn set_process(update: Update, process: Option<&ProcessIdentity>) -> Update {
    process::set(update, &PROCESS, process)
}

/// One that is not a range of hash keys is unknown: it is only shown.
fn hash_range(read: Reader<'_>) -> Result<Option<HashRange>, String> {
    let (start, end) = (read.text("startingHashKey")?, read.text("endingHashKey")?);
    Ok(start.zip(end).and_then(|(start, end)| HashRange::parse(start, end)))
}

fn position(read: Reader<'_>) -> Result<Position, String> {
    let at = read.required_text("checkpoint")?;
    let position = match at {
        "TRIM_HORIZON" => Position::TrimHorizon,
        "SHARD_END" => Position::ShardEnd,
        "AT_TIMESTAMP" => Position::AtTimestamp(read.required_number("checkpointTime")?),
        digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            let sub = read.number("checkpointSub")?.unwrap_or_default();
            let seq = Seq { number: digits.into(), sub };
            if read.flag("inclusive")? { Position::At(seq) } else { Position::After(seq) }
        }
        other => {
            return Err(format!(
                "has {other:?} in attribute checkpoint, which is no sequence number, TRIM_HORIZON, AT_TIMESTAMP or \
                 SHARD_END"
            ));
        }
    };
    // A position that was set by hand next to another one's order could not be moved as it should.
    match read.text("checkpointOrder")? {
        Some(stored) if stored != order(&position) => Err(format!(
            "has an attribute checkpointOrder that is not its checkpoint's ({at}); remove checkpointOrder"
        )),
        _ => Ok(position),
    }
}

/// Sets the attributes of a position, so that nothing is left of the former one.
pub(super) fn set_position(update: Update, position: &Position) -> Update {
    let (checkpoint, seq) = match position {
        Position::TrimHorizon => ("TRIM_HORIZON", None),
        Position::Latest => ("LATEST", None),
        Position::AtTimestamp(_) => ("AT_TIMESTAMP", None),
        Position::ShardEnd => ("SHARD_END", None),
        Position::At(seq) | Position::After(seq) => (seq.number.as_str(), Some(seq)),
    };
    let time = match position {
        Position::AtTimestamp(millis) => Some(number(millis)),
        _ => None,
    };
    let inclusive = matches!(position, Position::At(_)).then_some(AttributeValue::Bool(true));
    update
        .set("checkpoint", text(checkpoint))
        .set("checkpointOrder", text(order(position)))
        .set_or_remove("checkpointSub", seq.map(|seq| number(seq.sub)))
        .set_or_remove("checkpointTime", time)
        .set_or_remove("inclusive", inclusive)
}

/// Makes a new lease where no item of its name is.
pub(super) fn create(new: &NewLease) -> Update {
    let update = Update::default()
        .set("counter", number(0))
        .set("ownerSwitches", number(0))
        .set("parents", texts(new.parents.iter().map(ShardId::as_str)))
        .set("app", AttributeValue::M(map_of(&new.app)))
        .if_absent("item");
    let update = match new.hash_range {
        None => update,
        Some(range) => update
            .set("startingHashKey", text(range.start.to_string()))
            .set("endingHashKey", text(range.end.to_string())),
    };
    set_position(update, &new.checkpoint)
}

fn map_of(app: &AppState) -> Item {
    app.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// The key of a lease's item as far as it can be read, for a report.
pub(super) fn key_shown(item: &Item) -> LeaseKey {
    let name = Reader(item).text("item").ok().flatten().unwrap_or_default();
    names::lease_key(name).unwrap_or_else(|| LeaseKey {
        account: "".into(),
        region: "".into(),
        stream: "".into(),
        epoch: "".into(),
        shard: ShardId::from(name),
    })
}
