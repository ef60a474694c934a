//! What the repository has to start Shardmill with, as far as it can be checked without starting it there.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod compose;
mod ecs;
mod kubernetes;
mod monitoring;
mod page;
mod systemd;
mod yaml;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use shardmill_engine::Wall;
use shardmill_sidecar::config::{self, Loaded};

/// What a process may need after `Worker.StopSeconds` (docs/adr/0013-stop-and-its-grace.md).
const STOP_GRACE: Duration = Duration::from_secs(5);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The items of a list of texts; none if there is no such list.
fn texts<'v>(parent: &'v Value, key: &str) -> Vec<&'v str> {
    parent[key].as_array().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

/// A full version in the tag, never `latest` and never only a major one.
fn is_pinned(image: &str) -> bool {
    let Some((_, tag)) = image.rsplit_once(':') else { return false };
    let dated = tag.split('-').any(|part| part.len() == 8 && part.bytes().all(|b| b.is_ascii_digit()));
    let version = tag.split('-').next().unwrap_or_default();
    let numbers = version.split('.').filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    dated || numbers.count() == 3
}

/// The configuration of a worker in a fleet, which is valid and fits `memory` bytes.
fn worker_of_a_fleet(file: &str, text: &str, memory: usize) -> Loaded {
    let now = Wall::from_millis(1_800_000_000_000);
    let environment = |name: &str| (name == "HOSTNAME").then(|| "pod".to_owned());
    let loaded =
        config::parse(Path::new(file), text, &environment, now).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(text.contains("\nCheckpoints: dynamodb:shardmill\n"), "several hosts share a table: {text}");
    let keys = loaded.warnings.iter().map(|note| note.key.as_str());
    assert_eq!(keys.collect::<Vec<_>>(), ["Admin.Listen"], "Prometheus comes from another host");
    assert_eq!(loaded.ignored, [], "{file}");
    assert!(loaded.config.worker.id.is_none() || text.contains("Id: ${HOSTNAME}"), "ids are unique");
    assert!(
        loaded.config.worker.buffer_bytes * 2 <= memory,
        "{file}: room for what the budget does not count"
    );
    let [mapping] = &loaded.config.mappings[..] else { panic!("one mapping") };
    let config::Target::Url { url, .. } = &mapping.function.target else { panic!("no Url") };
    assert!(url.starts_with("http://127.0.0.1:"), "{url} is next to the sidecar");
    loaded
}
