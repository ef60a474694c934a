//! A handler that reports failures to a mapping that does not read them: in Lambda and here the records are lost (R33).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shardmill_engine::{Batch, BatchResponse};

use crate::handler::{DynHandler, Handler, HandlerError, InvokeContext};

/// Warns at the first answer that names failures. Around the handler of a mapping without `ReportBatchItemFailures`.
pub(crate) struct Unread {
    handler: Arc<dyn DynHandler>,
    mapping: Arc<str>,
    said: AtomicBool,
}

impl Unread {
    pub(crate) fn around(handler: Arc<dyn DynHandler>, mapping: &Arc<str>) -> Self {
        Self { handler, mapping: Arc::clone(mapping), said: AtomicBool::new(false) }
    }
}

impl Handler for Unread {
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        let answer = self.handler.call(batch, cx).await?;
        if answer.names_failures() && !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                mapping = %self.mapping,
                "the handler names records that failed, which the mapping does not read: the batch counts as handled, as in \
                 Lambda; set FunctionResponseTypes to ReportBatchItemFailures, in a program report_batch_item_failures(true)"
            );
        }
        Ok(answer)
    }
}
