//! How the sidecar calls a function: over HTTP, as a Lambda runtime process, or as lines on stdout.
//!
//! Every handler can be cloned cheaply; clones share connections, processes and limits.

mod command;
mod function;
mod gate;
mod readiness;
mod report;
mod stdout;
mod unread;
mod url;

pub use command::{
    CommandError, CommandHandler, CommandOptions, Readiness, adopt_orphans, end_all_processes, records_beside,
};
pub use function::FunctionHandler;
pub use readiness::FunctionState;
pub use stdout::StdoutHandler;
pub use url::{UrlError, UrlHandler, UrlOptions};

/// The largest answer of a function, in bytes (AWS "Lambda quotas": 6 MB, synchronous).
pub const MAXIMUM_RESPONSE_BYTES: usize = 6 * 1024 * 1024;

/// Why a function does not look callable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{0}")]
pub struct ProbeError(pub(crate) String);

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The beginning of a text of unknown origin, on one line, for an error message.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const LIMIT: usize = 300;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LIMIT)]);
    let mut line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if bytes.len() > LIMIT {
        line.push('…');
    }
    line
}
