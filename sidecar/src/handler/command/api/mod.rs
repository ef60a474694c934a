//! The Lambda Runtime API for one process (AWS "Using the Lambda runtime API").

mod body;
mod reply;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use shardmill::InvokeContext;

use super::CommandOptions;
use super::peer::{self, Peer};
use crate::handler::report::Reported;
use crate::launch;
use body::{Read, describe_error, error_in, read};
use reply::{Answered, accepted, forbidden, invalid_request_id, not_found, problem, stranger, too_large};

/// How long a `/next` may overlap with the one before: a client that retries is seen before its old connection is seen
/// to be closed.
const OVERLAP: Duration = Duration::from_secs(1);

/// An invocation on its way to the process.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) request_id: Arc<str>,
    /// Of this attempt, where the request id is the batch's.
    pub(super) invocation_id: Arc<str>,
    pub(super) event: Bytes,
    pub(super) deadline_epoch_millis: u128,
    pub(super) function_arn: Arc<str>,
    /// Set when the process has it.
    pub(super) taken: Arc<AtomicBool>,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Whether it may begin.
    pub(super) cx: InvokeContext,
}

/// What the process said about an invocation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Response(Bytes),
    Error(Reported),
    /// The process did not get it: its time had run out before.
    NotStarted,
}

/// How far a process has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has not asked for an invocation yet.
    Starting,
    /// It has asked for its first invocation.
    Ready,
    /// It reported that it cannot start; it is expected to exit.
    InitFailed(Arc<Reported>),
    /// It is gone.
    Exited(Ended),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Human-readable.
    pub(super) how: Arc<str>,
    /// Whether by a signal with which processes are stopped.
    pub(super) by_signal: bool,
}

/// Whose Runtime API it is.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// The process that was started.
    pub(super) leader: i32,
    /// What it and its descendants have in their environment: see [`MARK`](super::tree::MARK).
    pub(super) mark: String,
}

/// The Runtime API of one process.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    address: SocketAddr,
    /// For the log.
    mapping: Arc<str>,
    /// What the launcher said where it could not become the program.
    cannot_start: OnceLock<String>,
    life: watch::Sender<Life>,
    work: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    /// How many invocations the process may hold at once.
    concurrency: usize,
    /// The right to wait for an invocation.
    waiting: Semaphore,
    current: Mutex<Current>,
    connections: TaskTracker,
    closed: CancellationToken,
    /// Whether a refusal has been logged: a stranger must not fill the log.
    refused: AtomicBool,
}

#[derive(Debug, Default)]
struct Current {
    /// The invocations that the process holds and has not answered.
    unanswered: Vec<Held>,
    /// The invocation that the process got last.
    last: Option<Arc<str>>,
}

#[derive(Debug)]
struct Held {
    request_id: Arc<str>,
    invocation_id: Arc<str>,
    answer: oneshot::Sender<Answer>,
}

const RESPONSE_TOO_LARGE: &str = "Function.ResponseSizeTooLarge: Response payload size exceeded maximum allowed payload size (6291456 bytes).";

impl RuntimeApi {
    /// Takes a free loopback port. Clients that connect wait until [`serve`](Self::serve).
    pub(super) fn bind(
        life: watch::Sender<Life>,
        work: mpsc::Receiver<Invocation>,
        options: &CommandOptions,
    ) -> std::io::Result<(Arc<Self>, TcpListener)> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let api = Self {
            address: listener.local_addr()?,
            life,
            work: tokio::sync::Mutex::new(work),
            mapping: options.mapping.as_str().into(),
            concurrency: options.concurrency(),
            waiting: Semaphore::new(options.concurrency()),
            cannot_start: OnceLock::new(),
            current: Mutex::default(),
            connections: TaskTracker::new(),
            closed: CancellationToken::new(),
            refused: AtomicBool::new(false),
        };
        Ok((Arc::new(api), listener))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The mapping whose function it is, for the log.
    pub(super) fn mapping(&self) -> &str {
        &self.mapping
    }

    /// Takes note of a line on standard error, which is the launcher's until the program runs.
    pub(super) fn note_launch(&self, line: &str) {
        if line.starts_with(launch::CANNOT_START) && *self.life.borrow() == Life::Starting {
            let _ = self.cannot_start.set(line.to_owned());
        }
    }

    /// Why the launcher could not become the program.
    pub(super) fn cannot_start(&self) -> Option<&str> {
        self.cannot_start.get().map(String::as_str)
    }

    /// Answers the owner's processes.
    pub(super) fn serve(self: &Arc<Self>, listener: TcpListener, owner: Owner) {
        tokio::spawn(Arc::clone(self).accept(listener, owner));
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

    /// The invocation that the process got last, if what it prints can only be about that one.
    pub(super) fn last_request_id(&self) -> Option<Arc<str>> {
        self.current().last.clone().filter(|_| self.concurrency == 1)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock()
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, owner: Owner) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closed.cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of file descriptors, say; the process tries again or fails.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (api, owner) = (Arc::clone(&self), owner.clone());
            self.connections.spawn(async move {
                tokio::select! {
                    // A client that goes away in the middle is seen by its exit, or by its invocation's deadline.
                    () = api.connection(stream, peer, owner) => {}
                    () = api.closed.cancelled() => {}
                }
            });
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, owner: Owner) {
        let refusal = self.refusal(peer, owner).await;
        let service = service_fn(|request| {
            let refusal = refusal.clone();
            async move {
                let answer = match refusal.or_else(|| foreign(&request, self.address)) {
                    Some(why) => self.refuse(&why),
                    None => self.answer(request).await,
                };
                Ok::<_, Infallible>(answer)
            }
        });
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    /// Why this peer is not answered. Asked once per connection.
    async fn refusal(&self, peer: SocketAddr, owner: Owner) -> Option<String> {
        let own = self.address;
        let judge = move || peer::judge(peer, own, owner.leader, &owner.mark);
        match tokio::task::spawn_blocking(judge).await {
            Ok(Peer::Own | Peer::Unknown) => None,
            Ok(Peer::Stranger(who)) => Some(format!("only its own function is answered, not {who}")),
            Err(_) => Some("its peer cannot be looked up".into()),
        }
    }

    fn refuse(&self, why: &str) -> Answered {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                mapping = self.mapping(),
                reason = why,
                "a request to a function's runtime API was refused"
            );
        }
        stranger(why)
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
        if self.current().unanswered.len() >= self.concurrency {
            return forbidden("the invocation before has not been answered");
        }
        self.life.send_if_modified(|life| {
            let starting = *life == Life::Starting;
            if starting {
                *life = Life::Ready;
            }
            starting
        });
        let Some(_turn) = self.turn_to_wait().await else {
            let why = "another /next of this process waits already: it would take invocations that this one waits for; \
                       see Function.ConcurrencyPerProcess";
            if !self.refused.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    mapping = self.mapping(),
                    reason = why,
                    "a request to a function's runtime API was refused"
                );
            }
            return forbidden(why);
        };
        let Some(invocation) = self.next_that_may_start().await else {
            return forbidden("the sidecar stops");
        };
        let response = Response::builder()
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", invocation.request_id.as_ref())
            .header("lambda-runtime-invocation-id", invocation.invocation_id.as_ref())
            .header("lambda-runtime-deadline-ms", invocation.deadline_epoch_millis.to_string())
            .header("lambda-runtime-invoked-function-arn", invocation.function_arn.as_ref())
            .body(Full::new(invocation.event));
        let mut current = self.current();
        current.last = Some(Arc::clone(&invocation.request_id));
        invocation.taken.store(true, Ordering::Relaxed);
        match response {
            Ok(response) => {
                current.unanswered.push(Held {
                    request_id: invocation.request_id,
                    invocation_id: invocation.invocation_id,
                    answer: invocation.answer,
                });
                response
            }
            Err(error) => {
                let text = format!("the invocation cannot be written as HTTP: {error}");
                let _ = invocation.answer.send(Answer::Error(Reported::own(text.as_str())));
                problem(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", &text)
            }
        }
    }

    async fn turn_to_wait(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(OVERLAP, self.waiting.acquire()).await.ok()?.ok()
    }

    /// The next invocation, asked right before the process gets it whether it may begin (I10).
    async fn next_that_may_start(&self) -> Option<Invocation> {
        let mut work = self.work.lock().await;
        loop {
            let invocation = work.recv().await?;
            if invocation.cx.may_start() {
                return Some(invocation);
            }
            // The receiver is gone if the invocation was cancelled.
            let _ = invocation.answer.send(Answer::NotStarted);
        }
    }

    fn response(&self, id: &str, headers: &HeaderMap, body: Read) -> Answered {
        let mode = headers.get("lambda-runtime-function-response-mode");
        let (answer, reply) = if mode.is_some_and(|mode| !mode.as_bytes().eq_ignore_ascii_case(b"streaming"))
        {
            let kind = "InvalidFunctionResponseMode";
            let reply = problem(StatusCode::BAD_REQUEST, kind, "Invalid function response mode");
            (Answer::Error(Reported::own("Runtime.InvalidResponseModeHeader")), reply)
        } else {
            match body {
                Read::Whole { body, trailers } => {
                    let late = error_in(&trailers);
                    (late.map_or(Answer::Response(body), Answer::Error), accepted())
                }
                Read::TooLarge => (Answer::Error(Reported::own(RESPONSE_TOO_LARGE)), too_large()),
                Read::Truncated => {
                    let kind = "TruncatedHTTPRequest";
                    let reply = problem(StatusCode::BAD_REQUEST, kind, "HTTP request detected as truncated");
                    let text = "Runtime.TruncatedResponse: the response broke off";
                    (Answer::Error(Reported::own(text)), reply)
                }
            }
        };
        if self.resolve(id, headers, answer) { reply } else { invalid_request_id() }
    }

    fn error(&self, id: &str, headers: &HeaderMap, body: Read) -> Answered {
        let error = Answer::Error(describe_error(headers, body));
        if self.resolve(id, headers, error) { accepted() } else { invalid_request_id() }
    }

    fn init_error(&self, headers: &HeaderMap, body: Read) -> Answered {
        let reported = Arc::new(describe_error(headers, body));
        tracing::debug!(
            mapping = self.mapping(),
            error = reported.summary,
            details = reported.details,
            "the function cannot start"
        );
        let was_starting = self.life.send_if_modified(|life| {
            let starting = *life == Life::Starting;
            if starting {
                *life = Life::InitFailed(reported);
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
    fn resolve(&self, id: &str, headers: &HeaderMap, answer: Answer) -> bool {
        let attempt = headers.get("lambda-runtime-invocation-id");
        let is_it = |held: &Held| {
            *held.request_id == *id && attempt.is_none_or(|attempt| attempt == held.invocation_id.as_ref())
        };
        let held = {
            let mut current = self.current();
            let place = current.unanswered.iter().position(is_it);
            place.map(|place| current.unanswered.swap_remove(place))
        };
        // The receiver is gone if the invocation was cancelled.
        held.map(|held| held.answer.send(answer)).is_some()
    }
}

/// Why a request was not made by a runtime: a browser names the page that sent it, or the host that it was led to believe
/// in.
fn foreign<B>(request: &Request<B>, own: SocketAddr) -> Option<String> {
    if request.headers().contains_key(http::header::ORIGIN) {
        return Some("a request with an Origin comes from a browser".into());
    }
    let host = request.headers().get(http::header::HOST)?.to_str().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_own = name == own.ip().to_string() || name.eq_ignore_ascii_case("localhost");
    (!is_own).then(|| "its Host names another machine".into())
}
