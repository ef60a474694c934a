//! A function behind HTTP whose every answer can be chosen.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

/// What the function does with one invocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How long it works before it stores anything.
    pub before: Duration,
    /// How many of the batch's first records it stores; `usize::MAX` for all.
    pub store: usize,
    /// How long it works after it has stored them.
    pub after: Duration,
    /// How it ends.
    pub answer: Answer,
}

/// How an invocation ends.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// This status, these headers and this body.
    Status(u16, Vec<(String, String)>, String),
    /// Never.
    Hang,
    /// The connection is reset.
    Reset,
}

impl Plan {
    /// Stores all and succeeds at once.
    #[must_use]
    pub fn success() -> Self {
        let answer = Answer::Status(200, Vec::new(), "{}".to_owned());
        Self { before: Duration::ZERO, store: usize::MAX, after: Duration::ZERO, answer }
    }

    /// Works for so long, then stores all and succeeds.
    #[must_use]
    pub fn success_after(work: Duration) -> Self {
        Self { before: work, ..Self::success() }
    }

    /// Stores nothing and answers with this status and body.
    #[must_use]
    pub fn status(status: u16, body: &str) -> Self {
        Self { store: 0, answer: Answer::Status(status, Vec::new(), body.to_owned()), ..Self::success() }
    }

    /// Stores nothing and fails.
    #[must_use]
    pub fn failure() -> Self {
        Self::status(500, r#"{"errorType":"Error","errorMessage":"as planned"}"#)
    }

    /// Stores all and answers with this state of the tumbling window.
    #[must_use]
    pub fn state(state: &Value) -> Self {
        let body = json!({ "state": state }).to_string();
        Self { answer: Answer::Status(200, Vec::new(), body), ..Self::success() }
    }

    /// Stores the records before the first of `failed` and reports `failed` as a partial batch response does.
    #[must_use]
    pub fn partial(invocation: &Invocation, failed: &[&str]) -> Self {
        let is_good = |record: &&Record| !failed.contains(&record.sequence.as_str());
        let good = invocation.records.iter().take_while(is_good).count();
        let items: Vec<_> = failed.iter().map(|number| json!({"itemIdentifier": number})).collect();
        let body = json!({ "batchItemFailures": items }).to_string();
        Self { store: good, answer: Answer::Status(200, Vec::new(), body), ..Self::success() }
    }

    /// Stores nothing and never answers.
    #[must_use]
    pub fn hang() -> Self {
        Self { store: 0, answer: Answer::Hang, ..Self::success() }
    }

    /// Stores nothing and resets the connection.
    #[must_use]
    pub fn reset() -> Self {
        Self { store: 0, answer: Answer::Reset, ..Self::success() }
    }
}

/// A record of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its sequence number.
    pub sequence: String,
    /// Its partition key; of a DynamoDB stream, the text of the item's key.
    pub key: String,
    /// Its data, of a DynamoDB stream the whole record; kept only while the function decides.
    pub data: Bytes,
}

/// One call of the function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Counts all calls, from 1.
    pub number: u64,
    /// The path of the URL that was called, without the slash: distinguishes sidecars.
    pub caller: String,
    /// Lambda-Runtime-Aws-Request-Id.
    pub request_id: String,
    /// The shard; `-` where the event does not say, as that of a DynamoDB stream.
    pub shard: String,
    /// The event as it came; empty once the function has been called, as are the records' data.
    pub event: Bytes,
    /// The records; empty in the final call of a tumbling window.
    pub records: Vec<Record>,
    /// The tumbling window, if the mapping has them.
    pub window: Option<Window>,
    /// Bytes of the event.
    pub event_bytes: usize,
    /// When it began.
    pub began: Instant,
    /// How and when it ended; `None` while it is open.
    pub ended: Option<(Instant, End)>,
}

/// What an event holds of its tumbling window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// `window.start`, as it is written.
    pub start: String,
    /// `window.end`, as it is written.
    pub end: String,
    /// `state`
    pub state: Value,
    /// `isFinalInvokeForWindow`
    pub is_final: bool,
    /// `isWindowTerminatedEarly`
    pub is_terminated_early: bool,
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its answer.
    Answered,
    /// The caller closed the connection.
    Abandoned,
}

/// A record as the function's file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The shard.
    pub shard: String,
    /// The sequence number.
    pub sequence: String,
    /// The request id.
    pub request_id: String,
    /// The number of the invocation.
    pub invocation: u64,
}

type Behaviour = dyn Fn(&Invocation) -> Plan + Send + Sync;

/// A function that listens on a free port. It appends every record that it handles to a file of its own and syncs it
/// before it answers. Work ends when the caller closes the connection.
#[derive(Clone)]
pub struct Function {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    folder: TempDir,
    file: Mutex<File>,
    invocations: Mutex<Vec<Invocation>>,
    behaviour: Mutex<Arc<Behaviour>>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Function {
    /// Starts a function that stores every record and succeeds.
    pub async fn start() -> Self {
        Self::behaving(|_| Plan::success()).await
    }

    /// Starts a function that does for each call what `behaviour` prescribes.
    pub async fn behaving(behaviour: impl Fn(&Invocation) -> Plan + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = OpenOptions::new().create(true).append(true).open(folder.path().join("records")).unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            folder,
            file: Mutex::new(file),
            invocations: Mutex::default(),
            behaviour: Mutex::new(Arc::new(behaviour)),
        });
        let weak = Arc::downgrade(&shared);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Some(shared) = weak.upgrade() else { return };
                tokio::spawn(serve(shared, socket));
            }
        });
        Self { shared }
    }

    /// Does from now on what `behaviour` prescribes; open invocations continue as planned.
    pub fn behave(&self, behaviour: impl Fn(&Invocation) -> Plan + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Its URL for `caller`.
    #[must_use]
    pub fn url(&self, caller: &str) -> String {
        format!("http://{}/{caller}", self.shared.address)
    }

    /// All calls so far, in the order in which they began; without the records' data.
    #[must_use]
    pub fn invocations(&self) -> Vec<Invocation> {
        self.shared.invocations.lock().unwrap().clone()
    }

    /// The calls that are open now.
    #[must_use]
    pub fn open(&self) -> Vec<Invocation> {
        let all = self.shared.invocations.lock().unwrap();
        all.iter().filter(|invocation| invocation.ended.is_none()).cloned().collect()
    }

    /// How many calls there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.invocations.lock().unwrap().len()
    }

    /// What its file holds, in the order in which it was stored.
    #[must_use]
    pub fn stored(&self) -> Vec<Stored> {
        let text = std::fs::read_to_string(self.shared.path()).unwrap();
        // A reader may see the beginning of what is being written.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let parse = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [shard, sequence, request_id, invocation] = fields[..] else { panic!("{line:?}") };
            Stored {
                shard: shard.to_owned(),
                sequence: sequence.to_owned(),
                request_id: request_id.to_owned(),
                invocation: invocation.parse().unwrap(),
            }
        };
        whole.lines().map(parse).collect()
    }

    /// How many records its file holds, including redelivered ones.
    #[must_use]
    pub fn stored_count(&self) -> usize {
        let text = std::fs::read(self.shared.path()).unwrap();
        text.iter().filter(|byte| **byte == b'\n').count()
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<&'a RawValue>,
    /// Only events of tumbling windows have it and what follows.
    #[serde(rename = "shardId")]
    shard: Option<String>,
    window: Option<EventWindow>,
    state: Option<Value>,
    #[serde(default, rename = "isFinalInvokeForWindow")]
    is_final: bool,
    #[serde(default, rename = "isWindowTerminatedEarly")]
    is_terminated_early: bool,
}

#[derive(Deserialize)]
struct EventWindow {
    start: String,
    end: String,
}

#[derive(Deserialize)]
struct EventRecord<'a> {
    #[serde(rename = "eventID")]
    id: &'a str,
    #[serde(borrow)]
    kinesis: Option<EventKinesis<'a>>,
    #[serde(borrow)]
    dynamodb: Option<EventDynamoDb<'a>>,
}

#[derive(Deserialize)]
struct EventKinesis<'a> {
    #[serde(rename = "partitionKey")]
    key: &'a str,
    #[serde(rename = "sequenceNumber")]
    sequence: &'a str,
    data: &'a str,
}

#[derive(Deserialize)]
struct EventDynamoDb<'a> {
    #[serde(borrow, rename = "Keys")]
    keys: &'a RawValue,
    #[serde(rename = "SequenceNumber")]
    sequence: &'a str,
}

impl Record {
    /// A record and its shard.
    fn read(text: &RawValue) -> (Self, String) {
        let record: EventRecord<'_> = serde_json::from_str(text.get()).unwrap();
        match (record.kinesis, record.dynamodb) {
            (Some(EventKinesis { key, sequence, data }), _) => {
                let data = base64_simd::STANDARD.decode_to_vec(data).unwrap().into();
                let shard = record.id.split_once(':').unwrap().0.to_owned();
                (Self { sequence: sequence.to_owned(), key: key.to_owned(), data }, shard)
            }
            (None, Some(EventDynamoDb { keys, sequence })) => {
                let data = Bytes::copy_from_slice(text.get().as_bytes());
                let key = keys.get().to_owned();
                (Self { sequence: sequence.to_owned(), key, data }, "-".to_owned())
            }
            (None, None) => panic!("neither service's record: {text}"),
        }
    }
}

/// Marks an invocation as ended, whichever way.
struct Open<'a> {
    shared: &'a Shared,
    number: u64,
    end: End,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut all = self.shared.invocations.lock().unwrap();
        let invocation = all.iter_mut().rfind(|invocation| invocation.number == self.number).unwrap();
        invocation.ended = Some((Instant::now(), self.end));
    }
}

impl Shared {
    fn path(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
        let request_id = head.headers.get("lambda-runtime-aws-request-id");
        let request_id = request_id.and_then(|id| id.to_str().ok()).unwrap_or("none").to_owned();
        let caller = head.uri.path().trim_start_matches('/').to_owned();
        let (mut open, invocation) = self.begin(caller, request_id, body.to_bytes());
        let behaviour = Arc::clone(&self.behaviour.lock().unwrap());
        let plan = behaviour(&invocation);
        pause(plan.before).await;
        self.store(&invocation, plan.store);
        pause(plan.after).await;
        match plan.answer {
            Answer::Status(status, headers, body) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                open.end = End::Answered;
                Ok(response.body(Full::from(body)).unwrap())
            }
            Answer::Hang => std::future::pending().await,
            Answer::Reset => {
                open.end = End::Answered;
                Err(std::io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    fn begin(&self, caller: String, request_id: String, body: Bytes) -> (Open<'_>, Invocation) {
        let event: Event<'_> = serde_json::from_slice(&body).unwrap();
        let (records, shards): (Vec<Record>, Vec<String>) =
            event.records.iter().map(|text| Record::read(text)).unzip();
        let shard = event.shard.or_else(|| shards.first().cloned());
        let shard = shard.expect("an event without records names its shard");
        let window = event.window.map(|EventWindow { start, end }| Window {
            start,
            end,
            state: event.state.expect("a window has a state"),
            is_final: event.is_final,
            is_terminated_early: event.is_terminated_early,
        });
        let mut all = self.invocations.lock().unwrap();
        let number = all.len() as u64 + 1;
        let invocation = Invocation {
            number,
            caller,
            request_id,
            shard,
            event_bytes: body.len(),
            event: body,
            records,
            window,
            began: Instant::now(),
            ended: None,
        };
        let mut kept = Invocation { event: Bytes::new(), ..invocation.clone() };
        kept.records.iter_mut().for_each(|record| record.data = Bytes::new());
        all.push(kept);
        (Open { shared: self, number, end: End::Abandoned }, invocation)
    }

    fn store(&self, invocation: &Invocation, count: usize) {
        let line = |record: &Record| {
            let Invocation { shard, request_id, number, .. } = invocation;
            format!("{shard} {} {request_id} {number}\n", record.sequence)
        };
        let lines: String = invocation.records.iter().take(count).map(line).collect();
        if !lines.is_empty() {
            let mut file = self.file.lock().unwrap();
            file.write_all(lines.as_bytes()).unwrap();
            file.sync_data().unwrap();
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

async fn serve(shared: Arc<Shared>, socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { shared.answer(request).await }
    });
    let mut connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    if (&mut connection).await.is_err() {
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}
