//! The release binary `shardmill` from outside: its memory, and how soon it invokes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::StreamStatus;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::routing::post;
use memchr::memmem;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::library::STREAM_ARN;
use crate::measure::{Fallible, resident_bytes};

/// How long an invocation may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child process that ends with this value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A binary next to this one, made by `cargo build --release --workspace --bins`.
pub(crate) fn sibling(name: &str) -> Fallible<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} is missing: run `cargo build --release --workspace --bins` first", path.display())
            .into())
    }
}

fn start(binary: &Path, folder: &Path, endpoint: &str, function: &str, settings: &str) -> Fallible<Running> {
    let config = format!(
        "EventSourceArn: {STREAM_ARN}\nFunctionName: bench\nStartingPosition: TRIM_HORIZON\n\
         Function: {{{function}}}\nCheckpoints: sqlite:{folder}/shardmill.db\n\
         Aws: {{EndpointUrl: \"{endpoint}\"}}\nAdmin: {{Listen: \"127.0.0.1:0\"}}\n{settings}",
        folder = folder.display(),
    );
    let file = folder.join("shardmill.yaml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(binary);
    command.arg("run").arg("-c").arg(&file).current_dir(folder);
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    command.env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Running(command.spawn()?))
}

/// A sidecar at work, with a function that answers at once.
pub(crate) struct Sidecar {
    running: Running,
    records: Arc<AtomicU64>,
    _folder: TempDir,
}

impl Sidecar {
    /// Starts it on the stream at `endpoint`; `settings` are further lines of its file.
    pub(crate) async fn start(endpoint: &str, settings: &str) -> Fallible<Self> {
        Self::with_function(endpoint, Duration::ZERO, "", settings).await
    }

    /// The same with a function that takes its time, and further keys of it.
    pub(crate) async fn with_function(
        endpoint: &str,
        takes: Duration,
        keys: &str,
        settings: &str,
    ) -> Fallible<Self> {
        Self::of(&sibling("shardmill")?, endpoint, (takes, keys), settings).await
    }

    /// A sidecar of another build, which may know fewer settings.
    pub(crate) async fn of_build(binary: &Path, endpoint: &str) -> Fallible<Self> {
        Self::of(binary, endpoint, (Duration::ZERO, ""), "").await
    }

    async fn of(
        binary: &Path,
        endpoint: &str,
        (takes, keys): (Duration, &str),
        settings: &str,
    ) -> Fallible<Self> {
        let folder = tempfile::tempdir()?;
        let records = Arc::new(AtomicU64::new(0));
        let function = format!("Url: \"{}\", {keys}", function(Arc::clone(&records), None, takes).await?);
        let running = start(binary, folder.path(), endpoint, &function, settings)?;
        Ok(Self { running, records, _folder: folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// How many records the function got.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// Resident bytes of the sidecar after it polled idle shards at `endpoint` for `settle`.
pub(crate) async fn resident(endpoint: &str, settle: Duration) -> Fallible<u64> {
    let sidecar = Sidecar::start(endpoint, "").await?;
    tokio::time::sleep(settle).await;
    resident_bytes(&sidecar.pid().to_string())
}

/// How long a start took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Startup {
    /// From the start of the process to the first invocation.
    pub(crate) total: Duration,
    /// Of that, the time that the emulator needed for its answers.
    pub(crate) api: Duration,
}

/// Starts the sidecar against an emulator in this process whose stream holds records already.
pub(crate) async fn startup(emulator: &Emulator) -> Fallible<Startup> {
    let folder = tempfile::tempdir()?;
    let (called, mut calls) = mpsc::unbounded_channel();
    let function = function(Arc::default(), Some(called), Duration::ZERO).await?;
    let function = format!("Url: \"{function}\"");
    emulator.forget();
    let started = Instant::now();
    let running = start(&sibling("shardmill")?, folder.path(), &emulator.endpoint, &function, "")?;
    let invoked = tokio::time::timeout(PATIENCE, calls.recv()).await?.ok_or("the function ended")?;
    drop(running);
    Ok(Startup { total: invoked.duration_since(started), api: emulator.busy(invoked) })
}

/// A function that answers after a while, counts records and reports when it was called; its address.
pub(crate) async fn function(
    records: Arc<AtomicU64>,
    called: Option<mpsc::UnboundedSender<Instant>>,
    takes: Duration,
) -> Fallible<String> {
    let answer = move |event: Bytes| {
        if let Some(called) = &called {
            // The receiver may be gone.
            let _ = called.send(Instant::now());
        }
        let found = memmem::find_iter(&event, b"\"eventID\"").count();
        records.fetch_add(found as u64, Ordering::Relaxed);
        async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            "{}"
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let app = Router::new().route("/", post(answer)).layer(DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

/// When answers were under way.
type Calls = Arc<Mutex<Vec<(Instant, Instant)>>>;

/// A Kinesis emulator on a loopback port that notes how long it needs for each answer.
pub(crate) struct Emulator {
    endpoint: String,
    calls: Calls,
}

impl Emulator {
    /// Starts it, with a stream of 4 shards and 400 records.
    pub(crate) async fn start() -> Fallible<Self> {
        let options = ferrokinesis::store::StoreOptions {
            create_stream_ms: 0,
            aws_account_id: "000000000000".to_owned(),
            aws_region: "us-east-1".to_owned(),
            ..Default::default()
        };
        let (app, _store) = ferrokinesis::create_app(options);
        let calls = Calls::default();
        let noted = Arc::clone(&calls);
        let note = move |request: Request, next: Next| {
            let noted = Arc::clone(&noted);
            async move {
                let began = Instant::now();
                let response = next.run(request).await;
                noted.lock().push((began, Instant::now()));
                response
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let app = app.layer(middleware::from_fn(note));
        tokio::spawn(async move { axum::serve(listener, app).await });
        fill(&endpoint).await?;
        Ok(Self { endpoint, calls })
    }

    fn forget(&self) {
        self.calls.lock().clear();
    }

    /// The time before `end` in which at least one answer was under way.
    fn busy(&self, end: Instant) -> Duration {
        let mut calls = self.calls.lock().clone();
        calls.sort_unstable();
        let (mut busy, mut covered) = (Duration::ZERO, None::<Instant>);
        for (began, ended) in calls {
            let (from, to) = (covered.map_or(began, |covered| covered.max(began)), ended.min(end));
            busy += to.saturating_duration_since(from);
            covered = covered.max(Some(to));
        }
        busy
    }
}

async fn fill(endpoint: &str) -> Fallible<()> {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
        .endpoint_url(endpoint);
    let client = aws_sdk_kinesis::Client::from_conf(config.build());
    client.create_stream().stream_name("bench").shard_count(4).send().await?;
    loop {
        let summary = client.describe_stream_summary().stream_name("bench").send().await?;
        match summary.stream_description_summary() {
            Some(stream) if *stream.stream_status() == StreamStatus::Active => break,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    for n in 0..400 {
        let put = client.put_record().stream_name("bench").partition_key(n.to_string());
        put.data(Blob::new(vec![0; 1024])).send().await?;
    }
    Ok(())
}
