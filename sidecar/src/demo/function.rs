//! The function of the demo: a small HTTP server, as a user would write one, that keeps a book of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::DemoError;
use super::verdict::Seen;

/// How the function is to behave besides handling what it gets.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// A batch with this order is answered with 503 the first time.
    pub(super) busy_at: u32,
    /// Batches with one of these orders are answered once [`Function::let_go`] is called.
    pub(super) hold_at: BTreeSet<u32>,
}

/// One invocation, as the function saw it.
#[derive(Clone, Debug)]
pub(super) struct Invocation {
    pub(super) request_id: String,
    pub(super) shard: String,
    pub(super) sequence_numbers: Vec<String>,
    pub(super) answer: Answer,
}

/// What the function answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200.
    Handled,
    /// 500: a record cannot be read.
    Failed,
    /// 503.
    Busy,
}

/// The function at work.
pub(super) struct Function {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    script: Script,
    book: Mutex<Book>,
    /// Batches that are held.
    held: watch::Sender<usize>,
    open: watch::Sender<bool>,
    handled: watch::Sender<usize>,
}

struct Book {
    file: File,
    was_busy: bool,
    invocations: Vec<Invocation>,
}

/// As much of Lambda's event as this function needs.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Event {
    records: Vec<EventRecord>,
}

#[derive(Deserialize)]
struct EventRecord {
    #[serde(rename = "eventID")]
    event_id: String,
    #[serde(flatten)]
    change: Change,
}

/// What the record is about: its name shows from which service it comes.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Kinesis(EventData),
    DynamoDb(EventImage),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EventImage {
    sequence_number: String,
    new_image: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventData {
    sequence_number: String,
    data: String,
}

/// An order in a Kinesis record, or as an item's image.
#[derive(Deserialize)]
#[serde(untagged)]
enum Order {
    Record { order: u32 },
    Item { order: Number, total: Number },
}

#[derive(Deserialize)]
struct Number {
    #[serde(rename = "N")]
    digits: String,
}

impl Order {
    /// The order's number, if all of it can be read.
    fn read(data: &str) -> Result<u32, String> {
        match serde_json::from_str(data).map_err(|error| error.to_string())? {
            Self::Record { order } => Ok(order),
            Self::Item { order, total } => {
                let number =
                    |number: &Number| number.digits.parse::<u32>().map_err(|error| error.to_string());
                number(&total)?;
                number(&order)
            }
        }
    }
}

impl Event {
    /// The records: shard, sequence number and data.
    pub(super) fn read(json: &[u8]) -> Result<Vec<Seen>, String> {
        let event: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        let record = |record: EventRecord| {
            let EventRecord { event_id, change } = record;
            match change {
                Change::Kinesis(EventData { sequence_number, data }) => {
                    let (shard, _) = event_id.split_once(':').ok_or("an eventID without a shard")?;
                    let data = base64_simd::STANDARD.decode_to_vec(&data).map_err(|e| e.to_string())?;
                    let data = String::from_utf8_lossy(&data).into_owned();
                    Ok(Seen { shard: shard.to_owned(), sequence_number, data })
                }
                // The event does not say from which shard it comes.
                Change::DynamoDb(EventImage { sequence_number, new_image }) => {
                    Ok(Seen { shard: String::new(), sequence_number, data: new_image.to_string() })
                }
            }
        };
        event.records.into_iter().map(record).collect()
    }
}

impl Function {
    /// Starts on a free loopback port. Handled records go to the file at `book`, one JSON object a line.
    pub(super) async fn start(script: Script, book: &Path) -> Result<Self, DemoError> {
        let failed = |error: std::io::Error| DemoError::new("start the function", error);
        let book =
            Book { file: File::create_new(book).map_err(failed)?, was_busy: false, invocations: Vec::new() };
        let shared = Arc::new(Shared {
            script,
            book: Mutex::new(book),
            held: watch::Sender::default(),
            open: watch::Sender::default(),
            handled: watch::Sender::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let url = format!("http://{}/", listener.local_addr().map_err(failed)?);
        let app = Router::new().route("/", post(invoke)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, shared })
    }

    /// Waits until so many batches are held.
    pub(super) async fn holds(&self, batches: usize) {
        // The sender lives as long as this function.
        let _ = self.shared.held.subscribe().wait_for(|held| *held >= batches).await;
    }

    /// Answers what is held, and holds nothing more.
    pub(super) fn let_go(&self) {
        self.shared.open.send_replace(true);
    }

    /// Waits until so many records are handled.
    pub(super) async fn handled(&self, records: usize) {
        let _ = self.shared.handled.subscribe().wait_for(|handled| *handled >= records).await;
    }

    /// Every invocation so far that was answered, in the order of the answers.
    pub(super) fn invocations(&self) -> Vec<Invocation> {
        self.shared.book().invocations.clone()
    }
}

async fn invoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let Ok(records) = Event::read(&body) else {
        return (StatusCode::BAD_REQUEST, r#"{"errorType":"InvalidEvent"}"#.to_owned());
    };
    let request_id = headers.get("lambda-runtime-aws-request-id").and_then(|id| id.to_str().ok());
    let orders: Vec<_> = records.iter().map(|record| Order::read(&record.data)).collect();
    let known: BTreeSet<u32> = orders.iter().filter_map(|o| o.as_ref().ok().copied()).collect();
    shared.wait(&known).await;
    let answer = match orders.into_iter().find_map(Result::err) {
        Some(error) => Err(error),
        None => Ok(()),
    };
    shared.answer(&known, request_id.unwrap_or_default(), records, answer)
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }

    async fn wait(&self, orders: &BTreeSet<u32>) {
        if !*self.open.borrow() && !self.script.hold_at.is_disjoint(orders) {
            self.held.send_modify(|held| *held += 1);
            let _ = self.open.subscribe().wait_for(|open| *open).await;
        }
    }

    fn answer(
        &self,
        orders: &BTreeSet<u32>,
        request_id: &str,
        records: Vec<Seen>,
        read: Result<(), String>,
    ) -> (StatusCode, String) {
        let mut book = self.book();
        let busy = !book.was_busy && orders.contains(&self.script.busy_at);
        let (answer, status, mut body) = match read {
            _ if busy => (Answer::Busy, StatusCode::SERVICE_UNAVAILABLE, String::new()),
            Ok(()) => (Answer::Handled, StatusCode::OK, String::new()),
            Err(reason) => {
                let body = serde_json::json!({"errorType": "InvalidOrder", "errorMessage": reason});
                (Answer::Failed, StatusCode::INTERNAL_SERVER_ERROR, body.to_string())
            }
        };
        book.was_busy |= busy;
        let mut status = status;
        if answer == Answer::Handled
            && let Err(error) = book.write(&records)
        {
            (status, body) = (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        }
        let count = records.len();
        book.invocations.push(Invocation {
            request_id: request_id.to_owned(),
            shard: records.first().map(|r| r.shard.clone()).unwrap_or_default(),
            sequence_numbers: records.into_iter().map(|r| r.sequence_number).collect(),
            answer,
        });
        drop(book);
        if answer == Answer::Handled {
            self.handled.send_modify(|handled| *handled += count);
        }
        (status, body)
    }
}

impl Book {
    fn write(&mut self, records: &[Seen]) -> std::io::Result<()> {
        let mut lines = String::new();
        for record in records {
            lines.push_str(&serde_json::to_string(record)?);
            lines.push('\n');
        }
        self.file.write_all(lines.as_bytes())
    }
}
