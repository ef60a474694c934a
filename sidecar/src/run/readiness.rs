use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shardmill::CancellationToken;

use crate::handler::{FunctionHandler, Readiness};

/// How often a function that has not answered yet is asked again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a function is callable: it has answered a probe once, and can be started now.
#[derive(Clone, Debug)]
pub struct FunctionState {
    handler: FunctionHandler,
    /// Why the last probe failed; none once one succeeded.
    unanswered: Arc<Mutex<Option<String>>>,
}

impl FunctionState {
    /// Asks until the function answers or `shutdown` is cancelled.
    #[must_use]
    pub fn watch(handler: FunctionHandler, mapping: &str, shutdown: CancellationToken) -> Self {
        let unanswered = Arc::new(Mutex::new(Some("not asked yet".to_owned())));
        let state = Self { handler: handler.clone(), unanswered: Arc::clone(&unanswered) };
        let mapping = mapping.to_owned();
        tokio::spawn(shutdown.run_until_cancelled_owned(async move {
            let mut failed = false;
            loop {
                let result = handler.probe().await.err().map(|error| error.to_string());
                match &result {
                    Some(error) if !failed => {
                        tracing::warn!(mapping, error, "the function does not answer; asking until it does");
                    }
                    None if failed => tracing::info!(mapping, "the function answers"),
                    _ => {}
                }
                failed = result.is_some();
                *unanswered.lock().unwrap_or_else(PoisonError::into_inner) = result;
                if !failed {
                    return;
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        }));
        state
    }

    /// Why the function is not callable; none if it is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if let Readiness::NotReady { reason } = self.handler.readiness() {
            return Some(reason.to_string());
        }
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
