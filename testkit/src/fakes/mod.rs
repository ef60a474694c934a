//! [`Fakes`]: all services and their control commands behind one port.

mod dynamodb;
mod faults;
mod kinesis;

use crate::service::{Asked, FakeError, Reply, Response, Server, Service, TlsOptions, serve};
use crate::{FakeDynamoDb, FakeDynamoDbStreams, FakeKinesis};
use faults::Injected;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;

/// How the paths of control commands begin.
const CONTROL: &str = "/control/";

/// A [`FakeKinesis`], a [`FakeDynamoDbStreams`] and a [`FakeDynamoDb`] behind one port, distinguished by the
/// `X-Amz-Target` header, as AWS does; the tables are for leases and have no streams. Control commands come to paths below
/// `/control/`. It is what the program `shardmill-fake` serves. Cheap to clone.
///
/// docs/testing.md has every command.
#[derive(Debug, Clone, Default)]
pub struct Fakes {
    kinesis: FakeKinesis,
    dynamodb: FakeDynamoDbStreams,
    tables: FakeDynamoDb,
    injected: Arc<Both>,
}

#[derive(Debug, Default)]
struct Both {
    kinesis: Injected,
    dynamodb: Injected,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Unreadable(String),
    #[error(transparent)]
    Fake(#[from] FakeError),
}

impl Refused {
    const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "BadCommand",
            Self::Fake(error) => error.code,
        }
    }
}

impl Fakes {
    /// Services without streams and tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The Kinesis.
    #[must_use]
    pub const fn kinesis(&self) -> &FakeKinesis {
        &self.kinesis
    }

    /// The DynamoDB streams.
    #[must_use]
    pub const fn dynamodb(&self) -> &FakeDynamoDbStreams {
        &self.dynamodb
    }

    /// The DynamoDB tables for leases.
    #[must_use]
    pub const fn tables(&self) -> &FakeDynamoDb {
        &self.tables
    }

    /// Serves all and the control commands on this port of 127.0.0.1 (0 takes a free one) until the returned server is
    /// dropped.
    ///
    /// # Errors
    /// The port cannot be opened.
    pub async fn serve(&self, port: u16) -> io::Result<Server> {
        serve(self.clone(), port, None).await
    }

    /// The same over TLS, with HTTP/2 unless the options say otherwise: [`Server::certificate`] is what a client must trust.
    ///
    /// # Errors
    /// The port cannot be opened.
    pub async fn serve_tls(&self, port: u16, options: TlsOptions) -> io::Result<Server> {
        serve(self.clone(), port, Some(options)).await
    }

    /// All services as new; the sequence numbers of later records continue above those of earlier ones.
    fn reset(&self) {
        self.kinesis.reset();
        self.dynamodb.reset();
        self.tables.reset();
        self.injected.kinesis.clear();
        self.injected.dynamodb.clear();
    }

    fn command(&self, path: &str, body: &[u8]) -> Result<Value, Refused> {
        match path.split_once('/') {
            Some(("kinesis", name)) => {
                kinesis::perform(&self.kinesis, &self.injected.kinesis, parse(name, body)?)
            }
            Some(("dynamodb", name)) => {
                dynamodb::perform(&self.dynamodb, &self.injected.dynamodb, parse(name, body)?)
            }
            None if path == "reset" => {
                self.reset();
                Ok(json!({}))
            }
            _ => Err(Refused::Unreadable(format!(
                "{CONTROL}{path} is unknown; there are {CONTROL}kinesis/COMMAND, {CONTROL}dynamodb/COMMAND and {CONTROL}reset"
            ))),
        }
    }
}

/// Reads a command: its name is an enum's variant, the body its fields. No body is an empty object.
fn parse<T: DeserializeOwned>(name: &str, body: &[u8]) -> Result<T, Refused> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let fields: Value = serde_json::from_slice(body)
        .map_err(|error| Refused::Unreadable(format!("the body is no JSON object: {error}")))?;
    let command = json!({ name: fields });
    // Serde's words: a command is a variant to it.
    T::deserialize(command).map_err(|error| {
        Refused::Unreadable(format!("{name}: {error}").replace("unknown variant", "unknown name"))
    })
}

impl Service for Fakes {
    async fn answer(&self, asked: &Asked<'_>) -> Option<Reply> {
        let target = asked.target;
        match target.split('.').next() {
            Some(service) if service.starts_with("Kinesis_") => self.kinesis.answer(asked).await,
            Some(service) if service.starts_with("DynamoDBStreams_") => {
                Service::answer(&self.dynamodb, asked).await
            }
            Some(service) if service.starts_with("DynamoDB_") => self.tables.answer(asked).await,
            _ => {
                let message = format!(
                    "X-Amz-Target {target:?} is of no service that is here: Kinesis, DynamoDB Streams, DynamoDB"
                );
                let now_ms = self.kinesis.now_ms();
                Some(Reply::whole(Response::error(400, "UnknownOperationException", &message, now_ms, 0)))
            }
        }
    }

    fn speaks_cbor(&self) -> bool {
        self.kinesis.speaks_cbor()
    }

    fn control(&self, path: &str, body: &[u8]) -> Option<Response> {
        let command = path.strip_prefix(CONTROL)?;
        let (status, mut text) = match self.command(command, body) {
            Ok(answer) => (200, answer.to_string()),
            Err(error) => (400, json!({"error": error.code(), "message": error.to_string()}).to_string()),
        };
        // Most often a terminal shows it.
        text.push('\n');
        let headers = vec![("content-type", "application/json".to_owned())];
        Some(Response { status, headers, body: text.into(), error: None })
    }
}
