//! What the consumer hands to its source.

use std::sync::Arc;
#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
use std::{fmt, sync::Weak};

#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
use parking_lot::{Mutex, MutexGuard};

use super::ReadLimiter;
#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
use super::{SourceError, SourceErrorKind};
use crate::clock::ServiceClock;

/// What a worker shares with the sources of its consumers: the clock and the pace of reads.
///
/// [`ConsumerBuilder::build`](crate::ConsumerBuilder::build) hands it to [`StreamSource::attach`](crate::StreamSource::attach).
/// [`Default`] is the context of a source that is used without a consumer: the host's clock, and the pace that the
/// service prescribes for each shard.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SourceContext {
    clock: ServiceClock,
    limiter: ReadLimiter,
    /// Tells workers from each other.
    worker: Arc<()>,
}

impl SourceContext {
    /// The context of a worker that is no other's, for tests of sources.
    #[must_use]
    pub fn new(clock: ServiceClock, limiter: ReadLimiter) -> Self {
        Self { clock, limiter, worker: Arc::default() }
    }

    /// The host's clock. A source that learns its service's time uses the [endpoint's](ServiceClock::for_endpoint)
    /// clock of it.
    #[must_use]
    pub const fn clock(&self) -> &ServiceClock {
        &self.clock
    }

    /// The pace of reads, which all sources of the worker share (I12).
    #[must_use]
    pub const fn limiter(&self) -> &ReadLimiter {
        &self.limiter
    }
}

/// The part of a source that depends on its context. It belongs to one worker, as long as that exists.
#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
pub(super) struct Attachment<T> {
    state: Mutex<State<T>>,
}

#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
struct State<T> {
    worker: Weak<()>,
    part: Option<Arc<T>>,
}

#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
impl<T> Attachment<T> {
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State { worker: Weak::new(), part: None }) }
    }

    /// The part for the worker's context, or for a context of its own as long as no worker has attached the source.
    pub(super) fn get(&self, make: impl FnOnce(&SourceContext) -> T) -> Arc<T> {
        let mut state = self.lock();
        let part = state.part.get_or_insert_with(|| Arc::new(make(&SourceContext::default())));
        Arc::clone(part)
    }

    /// Makes the part for this context. Another consumer of the same worker gets the same part.
    pub(super) fn attach(
        &self,
        cx: &SourceContext,
        source: &dyn fmt::Display,
        make: impl FnOnce(&SourceContext) -> T,
    ) -> Result<(), SourceError> {
        let mut state = self.lock();
        match state.worker.upgrade() {
            Some(worker) if Arc::ptr_eq(&worker, &cx.worker) => return Ok(()),
            Some(_) => {
                return Err(SourceError {
                    kind: SourceErrorKind::Rejected,
                    api: "attach",
                    message: format!(
                        "the source of {source} belongs to another worker, whose clock and pace it follows; give both \
                         consumers the same worker(), or make a source for each"
                    ),
                    source: None,
                });
            }
            None => {}
        }
        state.worker = Arc::downgrade(&cx.worker);
        state.part = Some(Arc::new(make(cx)));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }
}

#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
impl<T> fmt::Debug for Attachment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("worker", &self.lock().worker).finish_non_exhaustive()
    }
}
