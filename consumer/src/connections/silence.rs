//! Connections that have died without a word.

use std::time::Duration;

use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use tokio::time::Instant;

/// A call that is given up without an answer after so long says that its connection is dead. One that is cancelled for another
/// reason costs a handshake then.
const SILENCE: Duration = Duration::from_secs(1);

/// A call that waits for the head of its answer. With HTTP/1.1 a connection ends with the call that is given up; with HTTP/2
/// only the call does, and the next one would be as silent.
pub(super) struct Unanswered {
    since: Instant,
    connection: Option<CaptureSmithyConnection>,
}

impl Unanswered {
    pub(super) fn watch(request: &mut HttpRequest) -> Self {
        let connection = request.extension::<CaptureSmithyConnection>().cloned().unwrap_or_else(|| {
            let connection = CaptureSmithyConnection::new();
            request.add_extension(connection.clone());
            connection
        });
        Self { since: Instant::now(), connection: Some(connection) }
    }

    pub(super) fn is_on_a_connection(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.get().is_some())
    }

    /// There is an answer, or an error that is no timeout, of which the SDK makes what it means.
    pub(super) fn answered(mut self) {
        self.connection = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let silent = self.connection.take().filter(|_| self.since.elapsed() >= SILENCE);
        if let Some(connection) = silent.and_then(|connection| connection.get()) {
            connection.poison();
        }
    }
}
