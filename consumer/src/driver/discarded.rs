//! A discarded batch: to the destination, or at least into the log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use shardmill_engine::{Condition, DiscardId, FailedBatch, OnDestinationFailure, Record};

use super::Driver;
use super::actions::{Done, panic_text};
use crate::destination::{DestinationError, Discarded};

/// How long a delivery may take regardless of the destination's own timeouts.
const DELIVERY: Duration = Duration::from_secs(30);

impl Driver {
    pub(super) fn discard(&self, id: DiscardId, failed: FailedBatch) -> BoxFuture<'static, Done> {
        let name = Arc::clone(&self.cx.name);
        let Some(destination) = self.cx.destination.clone() else {
            log_dropped(&name, &failed, "no on-failure destination is configured");
            return async move { Done::Dropped(id) }.boxed();
        };
        let drops = self.cx.mapping.on_destination_failure() == OnDestinationFailure::Drop;
        let discarded =
            Discarded { batch: failed, names: Arc::clone(&self.cx.names), event: Arc::clone(&self.event) };
        async move {
            let delivery = AssertUnwindSafe(async { destination.deliver(&discarded).await }).catch_unwind();
            let result = match tokio::time::timeout(DELIVERY, delivery).await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(DestinationError::new("the destination panicked")
                    .with_source(panic_text("destination", &*panic))),
                Err(_) => Err(DestinationError::new(format!(
                    "{} did not answer within {} s",
                    destination.describe(),
                    DELIVERY.as_secs()
                ))),
            };
            if result.is_ok() {
                log_delivered(&name, &discarded.batch, &destination.describe());
            } else if drops {
                log_dropped(&name, &discarded.batch, "the on-failure destination did not take them");
            }
            Done::Delivered { id, result }
        }
        .boxed()
    }
}

/// Discarded records that no destination takes leave at least their positions in the log (I3).
fn log_dropped(mapping: &str, failed: &FailedBatch, why: &str) {
    let seq = |record: Option<&Record>| record.map(|record| tracing::field::display(record.seq.clone()));
    let too_large = failed.response.is_none() && failed.condition == Condition::RetryAttemptsExhausted;
    let why = if too_large {
        format!("{why}; their event is larger than the function takes")
    } else {
        why.to_owned()
    };
    tracing::warn!(
        mapping, shard = %failed.shard, records = failed.batch.len(), request_id = %failed.request_id,
        from = seq(failed.batch.first()), to = seq(failed.batch.last()), condition = failed.condition.as_str(),
        "dropped records that were discarded: {why}"
    );
}

/// One line for each batch that the destination has taken: where its records are from, and where they are.
fn log_delivered(mapping: &str, failed: &FailedBatch, destination: &str) {
    let seq = |record: Option<&Record>| record.map(|record| tracing::field::display(record.seq.clone()));
    tracing::info!(
        mapping, shard = %failed.shard, records = failed.batch.len(), request_id = %failed.request_id,
        from = seq(failed.batch.first()), to = seq(failed.batch.last()), condition = failed.condition.as_str(),
        destination, "discarded records were delivered to the on-failure destination"
    );
}
