//! A lease table as somebody else sees it who looks again and again.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{dynamodb, sequence_order};

const INTERVAL: Duration = Duration::from_millis(50);

/// Reads all leases of a table, in the layout of `dynamodb:` or of `kcl:`, until it is dropped.
#[derive(Debug)]
pub struct LeaseWatch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    checkpoints: BTreeMap<String, String>,
    looks: usize,
    /// Checkpoints that went back.
    back: Vec<String>,
}

impl LeaseWatch {
    /// Starts to look at a table, which need not exist yet.
    #[must_use]
    pub fn start(endpoint: &str, table: &str) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let task = watch(endpoint.to_owned(), table.to_owned(), Arc::clone(&seen));
        Self { seen, task: tokio::spawn(task) }
    }

    /// A shard's checkpoint when the last look began, or later; it may be further by now.
    #[must_use]
    pub fn checkpoint(&self, shard: &str) -> Option<String> {
        self.seen.lock().unwrap().checkpoints.get(shard).cloned()
    }

    /// Whether a record of the shard is done with by the checkpoint that was seen last.
    #[must_use]
    pub fn is_past(&self, shard: &str, sequence: &str) -> bool {
        Place::Record(sequence.to_owned()).order(&self.checkpoint(shard).as_deref().into()).is_le()
    }

    /// How often it looked.
    #[must_use]
    pub fn looks(&self) -> usize {
        self.seen.lock().unwrap().looks
    }

    /// Checkpoints that went back from one look to the next (I2), as texts.
    #[must_use]
    pub fn went_back(&self) -> Vec<String> {
        self.seen.lock().unwrap().back.clone()
    }
}

impl Drop for LeaseWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a checkpoint is in its shard.
enum Place {
    Start,
    Record(String),
    End,
}

impl From<Option<&str>> for Place {
    fn from(checkpoint: Option<&str>) -> Self {
        match checkpoint {
            None | Some("TRIM_HORIZON" | "LATEST" | "AT_TIMESTAMP") => Self::Start,
            Some("SHARD_END") => Self::End,
            Some(number) => Self::Record(number.to_owned()),
        }
    }
}

impl Place {
    fn order(&self, other: &Self) -> Ordering {
        let rank = |place: &Self| match place {
            Self::Start => 0,
            Self::Record(_) => 1,
            Self::End => 2,
        };
        match (self, other) {
            (Self::Record(a), Self::Record(b)) => sequence_order(a, b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

async fn watch(endpoint: String, table: String, seen: Arc<Mutex<Seen>>) {
    loop {
        let tables = dynamodb(&endpoint, "ListTables", &json!({})).await;
        if tables["TableNames"].as_array().unwrap().contains(&json!(table)) {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    loop {
        let scan = dynamodb(&endpoint, "Scan", &json!({"TableName": table, "ConsistentRead": true})).await;
        assert!(scan.get("LastEvaluatedKey").is_none(), "one page holds the leases of a test");
        seen.lock().unwrap().look(scan["Items"].as_array().unwrap());
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Seen {
    fn look(&mut self, rows: &[Value]) {
        rows.iter().filter_map(lease).for_each(|(shard, checkpoint)| self.note(shard, checkpoint));
        self.looks += 1;
    }

    fn note(&mut self, shard: String, checkpoint: String) {
        let before = self.checkpoints.get(&shard).map(String::as_str);
        if Place::from(Some(checkpoint.as_str())).order(&before.into()).is_lt() {
            self.back.push(format!("{shard}: from {before:?} to {checkpoint}"));
        }
        self.checkpoints.insert(shard, checkpoint);
    }
}

/// Shard and checkpoint of a row, if it is a lease's.
fn lease(row: &Value) -> Option<(String, String)> {
    let text = |attribute: &str| row[attribute]["S"].as_str();
    let checkpoint = text("checkpoint")?.to_owned();
    let of_ours =
        text("item").and_then(|item| Some(item.strip_prefix("lease#")?.rsplit('#').next()?.to_owned()));
    let shard = of_ours.or_else(|| text("leaseKey")?.rsplit(':').next().map(str::to_owned))?;
    Some((shard, checkpoint))
}
