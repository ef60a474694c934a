//! `Function.Url`: one POST per invocation.

mod answer;
mod connection;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use shardmill::{Batch, BatchResponse, Handler, HandlerError, InvokeContext, Places, ShownUrl};
use tokio::time::{Instant, timeout_at};

use super::gate::Schedule;
use super::unread::Unread;
use super::{MAXIMUM_RESPONSE_BYTES, ProbeError, chain};
use answer::Rules;
use connection::{Connection, Pool};

/// Name resolution, TCP and TLS together; a server that cannot be reached in this time is not reached (R23).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a `Function.Url` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no URL.
    #[error("Function.Url: \"{}\" is not a URL ({reason}); write http://HOST:PORT/PATH", ShownUrl(.url))]
    Invalid {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It names a scheme that is not spoken.
    #[error("Function.Url: the scheme of \"{}\" is not http or https; write http://HOST:PORT/PATH", ShownUrl(.url))]
    Scheme {
        /// As configured.
        url: String,
    },
    /// It has a user name or a password in it.
    #[error("Function.Url: a user name or password in the URL is not supported; remove what is before the @")]
    Credentials,
    /// The host's certificates cannot be read.
    #[error("Function.Url: https needs the host's root certificates, which cannot be read: {0}")]
    Certificates(#[from] std::io::Error),
}

/// Invokes a function by HTTP/1.1, with one POST per invocation and connections that are kept.
#[derive(Clone, Debug)]
pub struct UrlHandler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The URL without what must stay secret.
    shown: String,
    host: HeaderValue,
    path: Uri,
    pool: Pool,
    rules: Rules,
    unread: Unread,
    places: Places,
}

/// Settings of a [`UrlHandler`].
#[derive(Clone, Debug)]
pub struct UrlOptions {
    /// `Function.Url`, http or https.
    pub url: String,
    /// `Function.MaximumConcurrency`, at least 1. `None`: 1 on a path that ends in `/invocations`, else no limit.
    pub maximum_concurrency: Option<usize>,
    /// `Function.NotReachedStatus`: statuses from 100 to 599; others are ignored.
    pub not_reached_status: Vec<u16>,
    /// Whether an answer is read: with `ReportBatchItemFailures` (R33) and with tumbling windows (R66).
    pub reads_response: bool,
}

impl UrlOptions {
    /// The defaults for this URL: `NotReachedStatus` 408, 429 and 503.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            maximum_concurrency: None,
            not_reached_status: vec![408, 429, 503],
            reads_response: false,
        }
    }
}

/// How one request on one connection ended without an answer.
enum Failed {
    /// The connection broke before an answer began.
    Broken { wholly_written: bool, reason: String },
    /// Everything else, judged.
    Judged(HandlerError),
}

impl UrlHandler {
    /// Checks the URL; nothing is sent yet.
    ///
    /// # Errors
    /// [`UrlError`] if the URL cannot be used.
    pub fn new(options: UrlOptions) -> Result<Self, UrlError> {
        let invalid = |reason: String| UrlError::Invalid { url: options.url.clone(), reason };
        if options.url.split(['/', '?', '#']).nth(2).is_some_and(|authority| authority.contains('@')) {
            return Err(UrlError::Credentials);
        }
        let url: Uri = options.url.parse().map_err(|e: http::uri::InvalidUri| invalid(e.to_string()))?;
        if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme()) {
            return Err(UrlError::Scheme { url: options.url });
        }
        let authority = url.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| invalid("it has no host".into()))?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|e| invalid(e.to_string()))?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|e: http::uri::InvalidUri| invalid(e.to_string()))?;
        let emulator = url.path().ends_with("/invocations");
        let not_reached_status =
            options.not_reached_status.iter().filter_map(|&status| StatusCode::from_u16(status).ok());
        let rules = Rules {
            not_reached_status: not_reached_status.collect(),
            emulator,
            reads_response: options.reads_response,
        };
        let maximum = options.maximum_concurrency.or(emulator.then_some(1));
        let places = maximum.map_or_else(Places::unlimited, Places::new);
        let pool = Pool::new(url)?;
        let shown = ShownUrl(&options.url).to_string();
        Ok(Self {
            shared: Arc::new(Shared { shown, host, path, pool, rules, unread: Unread::default(), places }),
        })
    }

    /// Asks whether a connection to the function's server can be opened, for `check --online` and `/readyz`. Sends
    /// no request.
    ///
    /// # Errors
    /// [`ProbeError`] says what does not answer.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let url = &self.shared.shown;
        match tokio::time::timeout(CONNECT_TIMEOUT, self.shared.pool.open()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(reason)) => Err(ProbeError(format!("cannot connect to {url}: {reason}"))),
            Err(_) => {
                Err(ProbeError(format!("{url} takes no connection within {} s", CONNECT_TIMEOUT.as_secs())))
            }
        }
    }
}

impl Handler for UrlHandler {
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        self.shared.invoke(cx.event(&batch), &cx).await
    }

    fn places(&self) -> Places {
        self.shared.places.clone()
    }
}

impl Shared {
    async fn invoke(&self, event: Bytes, cx: &InvokeContext) -> Result<BatchResponse, HandlerError> {
        let schedule = Schedule::new(cx.deadline);
        if let Some(idle) = self.pool.take().await {
            match self.post(idle, event.clone(), cx, schedule).await {
                // The server may have closed the connection while it idled: one free try on a fresh one.
                Err(Failed::Broken { reason, .. }) => {
                    tracing::debug!(request_id = %cx.request_id, reason, "a kept connection broke, connecting again");
                }
                Err(Failed::Judged(error)) => return Err(error),
                Ok(response) => return Ok(response),
            }
        }
        let fresh = self.connect(schedule).await?;
        match self.post(fresh, event, cx, schedule).await {
            Ok(response) => Ok(response),
            Err(Failed::Judged(error)) => Err(error),
            Err(Failed::Broken { wholly_written: true, reason }) => {
                Err(HandlerError::function(format!("the connection broke before the answer: {reason}")))
            }
            Err(Failed::Broken { wholly_written: false, reason }) => Err(not_reached(format!(
                "the connection to {} broke before the request was sent: {reason}",
                self.shown
            ))),
        }
    }

    async fn connect(&self, schedule: Schedule) -> Result<Connection, HandlerError> {
        // Ends before the invocation's deadline, so that an unreachable server never counts as a slow function.
        let now = Instant::now();
        let remaining = schedule.deadline.saturating_duration_since(now);
        let limit = now + CONNECT_TIMEOUT.min(remaining * 9 / 10);
        match timeout_at(limit, self.pool.connect()).await {
            Ok(connected) => {
                connected.map_err(|reason| not_reached(format!("cannot connect to {}: {reason}", self.shown)))
            }
            Err(_) => {
                let waited = now.elapsed().as_secs_f32();
                Err(not_reached(format!("{} took no connection within {waited:.1} s", self.shown)))
            }
        }
    }

    async fn post(
        &self,
        mut connection: Connection,
        event: Bytes,
        cx: &InvokeContext,
        schedule: Schedule,
    ) -> Result<BatchResponse, Failed> {
        let request = self.request(&connection, event, cx, schedule).map_err(Failed::Judged)?;
        // Name resolution, connecting or a connection that broke may have taken the lease's last seconds (I10).
        if !cx.may_start() {
            return Err(Failed::Judged(HandlerError::not_started()));
        }
        let timed_out =
            || Failed::Judged(HandlerError::function("no answer within Function.Timeout (Sandbox.Timedout)"));
        let answer = match timeout_at(schedule.deadline, connection.sender.send_request(request)).await {
            Err(_) => return Err(timed_out()),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_parse() => {
                let reason = format!("its answer is not HTTP/1.1: {}", chain(&error));
                return Err(Failed::Judged(HandlerError::function(reason)));
            }
            Ok(Err(error)) => {
                let wholly_written = connection.wholly_written();
                return Err(Failed::Broken { wholly_written, reason: chain(&error) });
            }
        };
        let (head, body) = answer.into_parts();
        let limit = if head.status.is_success() { schedule.deadline } else { error_body_limit(schedule) };
        let body = match timeout_at(limit, read(body)).await {
            Ok(Ok(body)) => {
                self.pool.put(connection);
                body
            }
            // The status alone shows that the function failed or did not run.
            _ if !head.status.is_success() => Bytes::from_static(b"(its body broke off)"),
            Ok(Err(reason)) => return Err(Failed::Judged(HandlerError::function(reason))),
            Err(_) => return Err(timed_out()),
        };
        let judged = self.rules.judge(head.status, &head.headers, &body).map_err(Failed::Judged)?;
        if !self.rules.reads_response {
            self.unread.look(&body);
        }
        Ok(judged)
    }

    fn request(
        &self,
        connection: &Connection,
        event: Bytes,
        cx: &InvokeContext,
        schedule: Schedule,
    ) -> Result<Request<connection::EventBody>, HandlerError> {
        Request::builder()
            .method(Method::POST)
            .uri(self.path.clone())
            .header(header::HOST, self.host.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("shardmill/", env!("CARGO_PKG_VERSION")))
            .header("lambda-runtime-aws-request-id", cx.request_id.to_string())
            .header("lambda-runtime-deadline-ms", schedule.deadline_epoch_millis().to_string())
            .header("lambda-runtime-invoked-function-arn", cx.function_arn.as_ref())
            .body(connection.body(event))
            .map_err(|e| not_reached(format!("the request cannot be written: {e}")))
    }
}

/// How long to wait for the text of an error. Ends before the deadline: a server that is merely busy must not count as
/// a slow function.
fn error_body_limit(schedule: Schedule) -> Instant {
    let now = Instant::now();
    now + Duration::from_secs(2).min(schedule.deadline.saturating_duration_since(now) / 2)
}

/// Reads an answer to its end, or returns why the function failed.
async fn read(body: Incoming) -> Result<Bytes, String> {
    match Limited::new(body, MAXIMUM_RESPONSE_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(format!("its answer is larger than {MAXIMUM_RESPONSE_BYTES} bytes (6 MiB)"))
        }
        Err(error) => Err(format!("its answer broke off: {}", chain(error.as_ref()))),
    }
}

fn not_reached(reason: String) -> HandlerError {
    HandlerError::NotReached { reason, retry_after: None }
}
