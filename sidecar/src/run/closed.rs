//! A function that can never be handed anything again ends the run.

use shardmill::CancellationToken;

use crate::handler::FunctionHandler;

/// Cancels `run` once nothing can be handed to `function` any more.
pub(super) fn ends(function: &FunctionHandler, run: &CancellationToken) {
    let Some(closed) = function.closed().cloned() else { return };
    let run = run.clone();
    tokio::spawn(async move {
        closed.cancelled().await;
        if !run.is_cancelled() {
            // The end of the run reports why, in the one line that is needed.
            tracing::debug!("stdout is closed: stopping");
            run.cancel();
        }
    });
}
