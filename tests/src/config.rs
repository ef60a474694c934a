//! The sidecar's configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Stream;
use crate::stream::REGION;

/// A configuration and the folder in which sidecars with it work. A clone shares the folder, and with it the
/// checkpoints: that is a restart, or a second sidecar.
#[derive(Clone, Debug)]
pub struct Config {
    folder: Arc<TempDir>,
    file: Value,
    environment: Vec<(String, String)>,
}

impl Config {
    /// Reads `stream` from its start and calls no function yet: set `Function`. Checkpoints are in `shardmill.db` of the
    /// folder, the lease time is 2 seconds, empty shards are read again after 200 ms.
    #[must_use]
    pub fn new(stream: &Stream) -> Self {
        Self::at(stream.endpoint(), stream.arn())
    }

    /// The same for a stream that need not be there.
    #[must_use]
    pub fn at(endpoint: &str, arn: &str) -> Self {
        let file = json!({
            "EventSourceArn": arn,
            "FunctionName": "orders-worker",
            "StartingPosition": "TRIM_HORIZON",
            "Polling": {"IdleIntervalMilliseconds": 200},
            "Checkpoints": "sqlite:./shardmill.db",
            "Worker": {"LeaseSeconds": 2},
            "Admin": {"Listen": "127.0.0.1:0"},
            "Aws": {"EndpointUrl": endpoint, "Region": REGION},
        });
        Self { folder: Arc::new(tempfile::tempdir().unwrap()), file, environment: Vec::new() }
    }

    /// Calls this URL.
    #[must_use]
    pub fn url(self, url: impl Into<String>) -> Self {
        self.set("Function.Url", url.into())
    }

    /// Sets the key at a dotted path, for example `Worker.LeaseSeconds`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut place = &mut self.file;
        for key in path.split('.') {
            place = &mut place[key];
        }
        *place = value.into();
        self
    }

    /// Makes several mappings of the one so far, each with these keys of its own. What mappings share stays at the top.
    #[must_use]
    pub fn mappings(mut self, mappings: impl IntoIterator<Item = Value>) -> Self {
        let shared = ["Polling", "Retry", "Checkpoints", "Worker", "Admin", "Aws"];
        let mut one = self.file.clone();
        self.file.as_object_mut().unwrap().retain(|key, _| shared.contains(&key.as_str()));
        one.as_object_mut().unwrap().retain(|key, _| !shared.contains(&key.as_str()));
        let merged = mappings.into_iter().map(|own| {
            let mut mapping = one.clone();
            mapping.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            mapping
        });
        self.file["Mappings"] = merged.collect();
        self
    }

    /// Keeps the leases in a table, of the layout `dynamodb` or `kcl`; stream and table are at these addresses.
    #[must_use]
    pub fn table(self, layout: &str, table: &str, kinesis: &str, dynamodb: &str) -> Self {
        self.set("Checkpoints", format!("{layout}:{table}"))
            .set("Aws", json!({ "Region": REGION }))
            .environment("AWS_ENDPOINT_URL_KINESIS", kinesis)
            .environment("AWS_ENDPOINT_URL_DYNAMODB", dynamodb)
    }

    /// Sets an environment variable of the sidecar.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The working directory of the sidecars.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The checkpoint store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder().join("shardmill.db")
    }

    /// Writes the configuration to a new file of the folder.
    pub(crate) fn write(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let path = self.folder().join(format!("config-{}.json", COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, format!("{:#}", self.file)).unwrap();
        path
    }
}
