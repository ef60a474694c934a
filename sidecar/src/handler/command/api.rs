//! The Lambda Runtime API for one process (AWS "Using the Lambda runtime API").

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handler::{MAXIMUM_RESPONSE_BYTES, excerpt};

/// How much of an answer that is too large is read on, so that the client gets to see the refusal.
const MAXIMUM_DRAIN_BYTES: usize = 256 * 1024 * 1024;

/// An invocation on its way to the process.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) request_id: Arc<str>,
    pub(super) event: Bytes,
    pub(super) deadline_epoch_millis: u128,
    pub(super) function_arn: Arc<str>,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the process said about an invocation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Response(Bytes),
    Error(String),
}

/// How far a process has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has not asked for an invocation yet.
    Starting,
    /// It has asked for its first invocation.
    Ready,
    /// It reported that it cannot start; it is expected to exit.
    InitFailed(Arc<str>),
    /// It is gone.
    Exited(Arc<str>),
}

/// The Runtime API of one process.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    life: watch::Sender<Life>,
    work: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    current: Mutex<Current>,
    connections: TaskTracker,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Current {
    /// The invocation that the process holds and has not answered.
    unanswered: Option<(Arc<str>, oneshot::Sender<Answer>)>,
    /// The invocation that the process got last.
    last: Option<Arc<str>>,
}

const RESPONSE_TOO_LARGE: &str = "Function.ResponseSizeTooLarge: Response payload size exceeded maximum allowed payload size (6291456 bytes).";

type Answered = Response<Full<Bytes>>;

impl RuntimeApi {
    /// Listens on a free loopback port.
    pub(super) fn start(
        life: watch::Sender<Life>,
        work: mpsc::Receiver<Invocation>,
    ) -> std::io::Result<(Arc<Self>, SocketAddr)> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let api = Arc::new(Self {
            life,
            work: tokio::sync::Mutex::new(work),
            current: Mutex::default(),
            connections: TaskTracker::new(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&api).accept(listener));
        Ok((api, address))
    }

    /// Closes the listener and all connections.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until what the process sent before it exited has been read.
    pub(super) async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// The invocation that the process got last.
    pub(super) fn last_request_id(&self) -> Option<Arc<str>> {
        self.current().last.clone()
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closed.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, say; the process tries again or fails.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let api = Arc::clone(&self);
            self.connections.spawn(async move {
                let service = service_fn(|request| {
                    let api = Arc::clone(&api);
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // A client that goes away in the middle is seen by its exit, or by its invocation's deadline.
                    _ = connection => {}
                    () = api.closed.cancelled() => {}
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answered {
        let (head, body) = request.into_parts();
        // Read also where it is not wanted: a client that still writes would not see the reply.
        let body = read(body).await;
        let path = head.uri.path();
        let Some(resource) = path.strip_prefix("/2018-06-01/runtime/") else { return not_found(path) };
        let segments: Vec<&str> = resource.split('/').collect();
        match (head.method, segments.as_slice()) {
            (Method::GET, ["invocation", "next"]) => self.next().await,
            (Method::POST, ["invocation", id, "response"]) => self.response(id, &head.headers, body),
            (Method::POST, ["invocation", id, "error"]) => self.error(id, &head.headers, body),
            (Method::POST, ["init", "error"]) => self.init_error(&head.headers, body),
            _ => not_found(path),
        }
    }

    async fn next(&self) -> Answered {
        if self.current().unanswered.is_some() {
            return forbidden("the invocation before has not been answered");
        }
        self.life.send_if_modified(|life| {
            let starting = *life == Life::Starting;
            if starting {
                *life = Life::Ready;
            }
            starting
        });
        let invocation = self.work.lock().await.recv().await;
        let Some(invocation) = invocation else { return forbidden("the sidecar stops") };
        let response = Response::builder()
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", invocation.request_id.as_ref())
            .header("lambda-runtime-deadline-ms", invocation.deadline_epoch_millis.to_string())
            .header("lambda-runtime-invoked-function-arn", invocation.function_arn.as_ref())
            .body(Full::new(invocation.event));
        let mut current = self.current();
        current.last = Some(Arc::clone(&invocation.request_id));
        match response {
            Ok(response) => {
                current.unanswered = Some((invocation.request_id, invocation.answer));
                response
            }
            Err(error) => {
                let text = format!("the invocation cannot be written as HTTP: {error}");
                let _ = invocation.answer.send(Answer::Error(text.clone()));
                problem(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", &text)
            }
        }
    }

    fn response(&self, id: &str, headers: &HeaderMap, body: Read) -> Answered {
        let mode = headers.get("lambda-runtime-function-response-mode");
        let (answer, reply) = if mode.is_some_and(|mode| !mode.as_bytes().eq_ignore_ascii_case(b"streaming"))
        {
            let kind = "InvalidFunctionResponseMode";
            let reply = problem(StatusCode::BAD_REQUEST, kind, "Invalid function response mode");
            (Answer::Error("Runtime.InvalidResponseModeHeader".into()), reply)
        } else {
            match body {
                Read::Whole { body, trailers } => {
                    let late = error_in(&trailers);
                    (late.map_or(Answer::Response(body), Answer::Error), accepted())
                }
                Read::TooLarge => (Answer::Error(RESPONSE_TOO_LARGE.into()), too_large()),
                Read::Truncated => {
                    let kind = "TruncatedHTTPRequest";
                    let reply = problem(StatusCode::BAD_REQUEST, kind, "HTTP request detected as truncated");
                    let text = "Runtime.TruncatedResponse: the response broke off";
                    (Answer::Error(text.into()), reply)
                }
            }
        };
        if self.resolve(id, answer) { reply } else { invalid_request_id() }
    }

    fn error(&self, id: &str, headers: &HeaderMap, body: Read) -> Answered {
        let error = Answer::Error(describe_error(headers, body));
        if self.resolve(id, error) { accepted() } else { invalid_request_id() }
    }

    fn init_error(&self, headers: &HeaderMap, body: Read) -> Answered {
        let text: Arc<str> = describe_error(headers, body).into();
        let was_starting = self.life.send_if_modified(|life| {
            let starting = *life == Life::Starting;
            if starting {
                *life = Life::InitFailed(text);
            }
            starting
        });
        if was_starting {
            accepted()
        } else {
            forbidden("an initialization error after the first invocation")
        }
    }

    /// Ends the invocation, unless that happened already.
    fn resolve(&self, id: &str, answer: Answer) -> bool {
        let held = self.current().unanswered.take_if(|(current, _)| **current == *id);
        // Nobody listens any more if the invocation was given up.
        held.map(|(_, sender)| sender.send(answer)).is_some()
    }
}

enum Read {
    Whole { body: Bytes, trailers: HeaderMap },
    TooLarge,
    Truncated,
}

async fn read(body: Incoming) -> Read {
    let mut body = Limited::new(body, MAXIMUM_DRAIN_BYTES);
    let mut bytes = bytes::BytesMut::new();
    let mut too_large = false;
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if error.is::<http_body_util::LengthLimitError>() => return Read::TooLarge,
            Err(_) if too_large => return Read::TooLarge,
            Err(_) => return Read::Truncated,
        };
        match frame.into_data() {
            Ok(data) if too_large || bytes.len() + data.len() > MAXIMUM_RESPONSE_BYTES => {
                too_large = true;
                bytes = bytes::BytesMut::new();
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    if too_large { Read::TooLarge } else { Read::Whole { body: bytes.freeze(), trailers } }
}

/// A streamed response reports an error that came late in its trailers.
fn error_in(trailers: &HeaderMap) -> Option<String> {
    let kind = trailers.get("lambda-runtime-function-error-type")?;
    Some(format!("{} (reported at the end of a streamed response)", excerpt(kind.as_bytes())))
}

/// An error report as `type: message`.
fn describe_error(headers: &HeaderMap, body: Read) -> String {
    let header = headers.get("lambda-runtime-function-error-type").map(|value| excerpt(value.as_bytes()));
    let Read::Whole { body, .. } = body else {
        return header.unwrap_or_else(|| "an error whose report cannot be read".into());
    };
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let field = |key| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = field("errorType").map(str::to_owned).or(header);
    let message = field("errorMessage").map(|text| excerpt(text.as_bytes()));
    match (kind, message) {
        (Some(kind), Some(message)) => format!("{kind}: {message}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => excerpt(&body),
    }
}

fn reply(status: StatusCode, body: &Value) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

fn accepted() -> Answered {
    reply(StatusCode::ACCEPTED, &json!({"status": "OK"}))
}

fn problem(status: StatusCode, kind: &str, message: &str) -> Answered {
    reply(status, &json!({"errorMessage": message, "errorType": kind}))
}

fn invalid_request_id() -> Answered {
    problem(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
}

fn forbidden(why: &str) -> Answered {
    let message = format!("State transition is not allowed: {why}");
    problem(StatusCode::FORBIDDEN, "InvalidStateTransition", &message)
}

fn too_large() -> Answered {
    let message = format!("Exceeded maximum allowed payload size ({MAXIMUM_RESPONSE_BYTES} bytes).");
    problem(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
}

fn not_found(path: &str) -> Answered {
    problem(StatusCode::NOT_FOUND, "NotFound", &format!("{path} is not part of the runtime API 2018-06-01"))
}
