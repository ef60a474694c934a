//! What is known of whether functions answer.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shardmill::{CancellationToken, ConsumerStatus};

use super::{FunctionHandler, Readiness};

/// How often a function that has not answered yet is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a function is callable: it has answered a probe once, and can be started now.
#[derive(Clone, Debug)]
pub struct FunctionState {
    handler: FunctionHandler,
    /// Why the last probe failed; `None` once one succeeded.
    unanswered: Arc<Mutex<Option<String>>>,
}

impl FunctionState {
    /// Asks until the function answers or `shutdown` is cancelled. `status` logs it, as one trouble with
    /// invocations that do not reach the function.
    #[must_use]
    pub fn watch(handler: FunctionHandler, status: ConsumerStatus, shutdown: CancellationToken) -> Self {
        let unanswered = Arc::new(Mutex::new(Some("not asked yet".to_owned())));
        let state = Self { handler: handler.clone(), unanswered: Arc::clone(&unanswered) };
        tokio::spawn(shutdown.run_until_cancelled_owned(async move {
            loop {
                let result = handler.probe().await.err().map(|error| error.to_string());
                status.function_probed(result.as_deref());
                let failed = result.is_some();
                *unanswered.lock() = result;
                if !failed {
                    return;
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        }));
        state
    }

    /// Why the function is not callable; `None` if it is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if let Readiness::NotReady { reason } = self.handler.readiness() {
            return Some(reason.to_string());
        }
        self.unanswered.lock().clone()
    }
}
