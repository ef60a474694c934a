//! What the fakes of both services share: the log of calls, faults, answers and the ways to reach a fake.

mod calls;
mod encoding;
mod faults;
mod operation;
mod signature;
mod tls;
mod transport;

pub use calls::{Call, Calls};
pub use faults::{Fault, FaultGuard, FaultRule, Faults, InjectedFault};
pub use operation::Operation;
pub use tls::TlsOptions;
pub use transport::Server;

use aws_smithy_types::date_time::Format;
use bytes::Bytes;
pub(crate) use calls::CallLog;
pub(crate) use encoding::CBOR;
use faults::Cut;
use serde_json::json;
use signature::Signature;
use std::time::Duration;
pub(crate) use tls::Tls;
pub(crate) use transport::{Service, config, http_client, serve};

/// A request before any service has looked at it.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    /// The header `X-Amz-Target`.
    pub target: &'a str,
    pub body: &'a [u8],
    pub signature: Signature,
}

/// An error as the service reports it: always HTTP 400 with a code and a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct FakeError {
    /// The service's code, such as `ResourceNotFoundException`.
    pub code: &'static str,
    /// The human-readable message.
    pub message: String,
}

impl FakeError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidArgumentException", message)
    }
}

/// How faults bend the answer of an operation that is otherwise carried out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// At most so many records on the page.
    pub max_records: Option<usize>,
    /// No `NextShardIterator` and no `ChildShards`, regardless of the reader's position.
    pub null_iterator: bool,
    /// Shards that a listing leaves out.
    pub omit: Vec<String>,
    /// Parents whose children a listing leaves out.
    pub omit_children_of: Vec<String>,
}

/// An answer of the service, before any transport.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers: `content-type`, `date`, `x-amzn-requestid`.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, or what it stands for in CBOR, or nothing.
    pub body: Bytes,
    /// The error's code, if it is one.
    pub error: Option<String>,
}

/// A response on its way through a transport.
pub(crate) struct Reply {
    pub response: Response,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
    /// How long the body takes.
    pub slow: Duration,
}

impl Reply {
    /// An answer that no fault bends.
    pub(crate) const fn whole(response: Response) -> Self {
        Self { response, cut: None, slow: Duration::ZERO }
    }
}

impl Response {
    pub(crate) fn new(status: u16, body: Bytes, error: Option<String>, now_ms: u64, request: u64) -> Self {
        let date = http_date(i64::try_from(now_ms).unwrap_or(i64::MAX));
        let headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("date", date),
            ("x-amzn-requestid", format!("00000000-0000-4000-8000-{request:012x}")),
        ];
        Self { status, headers, body, error }
    }

    pub(crate) fn error(status: u16, code: &str, message: &str, now_ms: u64, request: u64) -> Self {
        let body = json!({ "__type": code, "message": message }).to_string();
        Self::new(status, body.into(), Some(code.to_owned()), now_ms, request)
    }
}

/// Carries a call out as the faults in force want it, and notes it in the log. `None`: disconnect.
pub(crate) async fn through_faults(
    faults: &Faults,
    calls: &CallLog,
    (operation, shard, signature): (Operation, Option<String>, &Signature),
    now_ms: impl Fn() -> u64,
    perform: impl FnOnce(&Shape) -> Response,
) -> Option<Reply> {
    let plan = faults.plan(operation, shard.as_deref(), signature, now_ms());
    let call = calls.begin(operation, shard);
    if !plan.latency.is_zero() {
        tokio::time::sleep(plan.latency).await;
    }
    if plan.hang {
        std::future::pending::<()>().await;
    }
    if plan.disconnect {
        return None;
    }
    let mut response = match plan.error {
        Some((status, code, message)) => Response::error(status, &code, &message, now_ms(), 0),
        None => perform(&plan.shape),
    };
    if let Some(body) = plan.body {
        response.status = 200;
        response.body = body;
    }
    if plan.date_off != 0 {
        let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
        let date = ("date", http_date(now.saturating_add(plan.date_off)));
        response.headers.retain(|(name, _)| *name != "date");
        response.headers.push(date);
    }
    call.answered(response.status, response.error.as_deref());
    let cut = plan.cut.map(|cut| match cut {
        Cut::Half => response.body.len() / 2,
        Cut::After(bytes) => bytes.min(response.body.len()),
    });
    Some(Reply { response, cut, slow: plan.slow })
}

fn http_date(ms: i64) -> String {
    let date = aws_smithy_types::DateTime::from_secs(ms.div_euclid(1_000));
    date.fmt(Format::HttpDate).unwrap_or_default()
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
