//! `shardmill demo`: the whole path on this machine in a few seconds, shown step by step and checked at the end.
//!
//! What runs is what `shardmill run` runs: a mapping from a file, the Kinesis source, the SQLite store, a function behind
//! a URL, a file as the destination. Only the stream, the function and the producer belong to the demo. With
//! `--dynamodb` the stream is that of a table in DynamoDB Local.

mod function;
mod story;
mod stream;
mod table;
mod verdict;

use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardmill::checkpoint::LeaseStore as _;
use shardmill::checkpoint::SqliteStore;
use shardmill::{CancellationToken, ConsumerStatus, Position, RunError, RunReport, RunState};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{assembly, config};
use function::{Event, Function, Script};
use story::{DeadLetter, Words};
use stream::Stream;
use verdict::{Accepted, Checkpoints, Difference, Seen};

/// The record that no function can read.
const POISON: u32 = 11;
/// The function is busy when it sees this one first.
const BUSY: u32 = 2;
/// The batch of each shard during which the first run is stopped: with two shards the second, with one the third.
const STOP_AT: [u32; 2] = [17, 18];
/// What the stream holds before the first run, and what comes between the runs.
const FIRST: std::ops::RangeInclusive<u32> = 1..=40;
const SECOND: std::ops::RangeInclusive<u32> = 41..=48;
/// Everything the demo waits for happens within this or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
#[error("the demo could not {what}: {reason}")]
pub struct DemoError {
    what: &'static str,
    reason: String,
}

impl DemoError {
    fn new(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self { what, reason: reason.to_string() }
    }
}

/// Shows the demo on standard output and returns whether everything ended as it must. `dynamodb` is the address of a
/// DynamoDB Local: the stream is then that of a table there, which is deleted at the end.
///
/// # Errors
/// It could not be shown: no room for its folder, no loopback port, no DynamoDB Local, or its output is not read.
pub async fn demo(dynamodb: Option<&str>) -> Result<bool, DemoError> {
    let folder = new_folder()?;
    let words = if dynamodb.is_some() { &story::DYNAMODB } else { &story::KINESIS };
    let mut stream = match dynamodb {
        Some(endpoint) => Stream::dynamodb(endpoint, &file_name(&folder)).await?,
        None => Stream::kinesis().await?,
    };
    let result = show(folder, words, &mut stream).await;
    let removed = stream.remove().await;
    result.and_then(|well| removed.map(|()| well))
}

async fn show(folder: PathBuf, words: &'static Words, stream: &mut Stream) -> Result<bool, DemoError> {
    stream.put(FIRST, POISON).await?;
    let script = Script { busy_at: BUSY, hold_at: STOP_AT.into() };
    let function = Function::start(script, &folder.join("handled.jsonl")).await?;
    std::fs::write(folder.join("shardmill.yaml"), words.mapping)
        .map_err(|e| DemoError::new("write the mapping", e))?;
    let demo = Demo { folder, words, function, deadline: Instant::now() + PATIENCE };
    demo.show(stream).await
}

struct Demo {
    folder: PathBuf,
    words: &'static Words,
    function: Function,
    deadline: Instant,
}

/// What can be seen from outside after a run.
struct Outcome {
    handled: Vec<Seen>,
    dead: Vec<Seen>,
    checkpoints: Checkpoints,
}

/// A consumer at work.
struct Running {
    application: String,
    shutdown: CancellationToken,
    status: ConsumerStatus,
    task: JoinHandle<Result<RunReport, RunError>>,
}

impl Demo {
    async fn show(&self, stream: &mut Stream) -> Result<bool, DemoError> {
        let mut differences = Vec::new();
        let endpoint = stream.sdk.endpoint_url().unwrap_or_default();
        let words = self.words;
        let place = story::Place { folder: &self.folder, endpoint, arn: &stream.arn };
        tell(&story::opening(words, &place, &stream.accepted, POISON))?;
        tell(&story::mapping(words))?;

        let first = self.start(stream).await?;
        differences.extend(self.within("the batch to stop at", self.function.holds(words.shards)).await);
        differences.extend(self.within("the dead letter", self.letter()).await);
        let before = self.function.invocations();
        tell(&story::first_batches(words, &before, &stream.accepted))?;
        tell(&story::dead_letter(words, &self.letters()?, POISON))?;

        first.shutdown.cancel();
        differences.extend(self.within("the stop", stopping(&first.status)).await);
        self.function.let_go();
        let outcome = self.outcome(&first.end().await?).await?;
        differences.extend(outcome.compare_checkpoints(&stream.accepted));
        let all = self.function.invocations();
        let finished = all.get(before.len()..).unwrap_or_default();
        let waiting = stream.accepted.len().saturating_sub(outcome.handled.len() + outcome.dead.len());
        tell(&story::stopped(words, finished, &outcome.checkpoints, &stream.accepted, waiting))?;

        stream.put(SECOND, POISON).await?;
        let second = self.start(stream).await?;
        let good = stream.accepted.len() - 1;
        differences.extend(self.within("the last record", self.function.handled(good)).await);
        second.shutdown.cancel();
        let outcome = self.outcome(&second.end().await?).await?;
        let invocations = self.function.invocations();
        tell(&story::resumed(words, invocations.get(all.len()..).unwrap_or_default(), &stream.accepted))?;

        let Outcome { handled, dead, .. } = &outcome;
        differences.extend(verdict::compare(&stream.accepted, handled, dead, POISON));
        differences.extend(outcome.compare_checkpoints(&stream.accepted));
        tell(&story::verdict(words, &differences, stream.accepted.len(), handled.len(), dead.len()))?;
        let well = differences.is_empty();
        tell(&if well { story::ending(words, &self.folder) } else { story::trouble(&self.folder) })?;
        Ok(well)
    }

    /// Does what `shardmill run` does with the file: nothing is shared between two starts but the files.
    async fn start(&self, stream: &Stream) -> Result<Running, DemoError> {
        let failed = |reason: &dyn std::fmt::Display| DemoError::new("start the mapping", reason);
        let folder = self.folder.to_string_lossy();
        let variable = |name: &str| match name {
            "FOLDER" => Some(folder.clone().into_owned()),
            "FUNCTION" => Some(self.function.url.clone()),
            "STREAM" => Some(stream.arn.clone()),
            _ => None,
        };
        let loaded = config::load(&self.folder.join("shardmill.yaml"), &variable).map_err(|e| failed(&e))?;
        let worker = assembly::worker(&loaded.config.worker).map_err(|e| failed(&e))?;
        let mut stores = assembly::Stores::of(&loaded.config);
        let mapping = loaded.config.mappings.into_iter().next().ok_or_else(|| failed(&"there is none"))?;
        let parts = assembly::parts(mapping, &stream.sdk, &mut stores).map_err(|e| failed(&e))?;
        let consumer = assembly::consumer(&parts, worker).map_err(|e| failed(&e))?;
        let application = parts.config.mapping.application_name().to_owned();
        let (shutdown, status) = (CancellationToken::new(), consumer.status());
        let task = tokio::spawn(consumer.run(shutdown.clone()));
        Ok(Running { application, shutdown, status, task })
    }

    /// Waits, and reports a timeout.
    async fn within(&self, what: &'static str, happens: impl Future<Output = ()>) -> Option<Difference> {
        tokio::time::timeout_at(self.deadline, happens).await.err().map(|_| Difference::Overdue(what))
    }

    /// Waits until a dead letter is on the disk.
    async fn letter(&self) {
        while !self.letters().is_ok_and(|letters| !letters.is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn letters(&self) -> Result<Vec<DeadLetter>, DemoError> {
        read_lines(&self.folder.join("dead-letters.jsonl"))
    }

    /// What can be seen from outside: handled records, dead letters, stored checkpoints.
    async fn outcome(&self, application: &str) -> Result<Outcome, DemoError> {
        let failed = |reason: &dyn std::fmt::Display| DemoError::new("check the outcome", reason);
        let handled = read_lines(&self.folder.join("handled.jsonl"))?;
        let mut dead = Vec::new();
        for letter in self.letters()? {
            dead.extend(Event::read(letter.payload.as_bytes()).map_err(|e| failed(&e))?);
        }
        let store =
            SqliteStore::open(self.folder.join("shardmill.db"), application).map_err(|e| failed(&e))?;
        let leases = store.list().await.map_err(|e| failed(&e))?;
        let position = |position| match position {
            Position::After(seq) => Some(seq.number.to_string()),
            _ => None,
        };
        // A function does not see which shard of a table's stream a change comes from: there is one.
        let shard = |shard: String| if self.words.shards == 1 { String::new() } else { shard };
        let checkpoints =
            leases.into_iter().map(|l| (shard(l.key.shard.to_string()), position(l.checkpoint)));
        Ok(Outcome { handled, dead, checkpoints: checkpoints.collect() })
    }
}

impl Outcome {
    fn compare_checkpoints(&self, accepted: &[Accepted]) -> Vec<Difference> {
        verdict::compare_checkpoints(&self.checkpoints, accepted, &self.handled, &self.dead)
    }
}

impl Running {
    /// Waits for the end, and gives back the application's name.
    async fn end(self) -> Result<String, DemoError> {
        match self.task.await {
            Ok(Ok(_)) => Ok(self.application),
            Ok(Err(error)) => Err(DemoError::new("continue", error)),
            Err(error) => Err(DemoError::new("continue", error)),
        }
    }
}

/// Waits until the stop has reached the shards: from then on nothing new is invoked.
async fn stopping(status: &ConsumerStatus) {
    while status.report().state == RunState::Enabled {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The state changes just before the shards hear of it.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A folder of its own for every run, where the system keeps temporary files.
fn new_folder() -> Result<PathBuf, DemoError> {
    let failed = |reason: &dyn std::fmt::Display| DemoError::new("make its folder", reason);
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("shardmill-demo-{}", suffix.get(..8).unwrap_or_default());
    let folder = std::path::absolute(std::env::temp_dir()).map_err(|e| failed(&e))?.join(name);
    if folder.to_str().is_none() {
        return Err(failed(&format!("{} is not UTF-8; set TMPDIR to another folder", folder.display())));
    }
    let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|e| {
        failed(&format!("{}: {e}; set TMPDIR to a folder that you may write", folder.display()))
    })?;
    Ok(folder)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The objects of a file of JSON Lines; empty if there is no such file yet.
fn read_lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, DemoError> {
    let failed = |reason: &dyn std::fmt::Display| DemoError::new("read a file of its own", reason);
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(|e| failed(&format!("{}: {e}", path.display())))?,
    };
    let lines = text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str);
    lines.collect::<Result<_, _>>().map_err(|e| failed(&format!("{}: {e}", path.display())))
}

fn tell(text: &str) -> Result<(), DemoError> {
    let mut out = std::io::stdout().lock();
    let told = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    told.map_err(|e| DemoError::new("write its output", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_87_the_demos_folder_is_for_its_user_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = new_folder().unwrap();
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        std::fs::remove_dir(&folder).unwrap();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_mapping_to_begin_with_is_valid_and_leaves_nothing_to_say() {
        let now = shardmill_engine::Wall::from_millis(0);
        for words in [&story::KINESIS, &story::DYNAMODB] {
            let loaded = config::parse(Path::new("shardmill.yaml"), words.next, &|_| None, now).unwrap();
            assert_eq!((loaded.warnings, loaded.ignored), (Vec::new(), Vec::new()));
        }
    }
}
