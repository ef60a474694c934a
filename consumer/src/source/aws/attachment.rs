//! A source before and after it has a context.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use shardmill_engine::EventSource;

use super::Hears;
use crate::clock::ServiceClock;
use crate::source::{ReadLimiter, SourceContext, SourceError, SourceErrorKind};

/// A stream, the settings of its client, and the part of its source that depends on a context. That part belongs to one
/// worker, as long as that exists.
pub(in crate::source) struct Attachment<Settings, Part> {
    pub(in crate::source) stream: EventSource,
    settings: Settings,
    hears: Hears,
    make: fn(&Settings, EventSource, ReadLimiter, ServiceClock) -> Part,
    state: Mutex<State<Part>>,
}

struct State<Part> {
    worker: Weak<()>,
    part: Option<Arc<Part>>,
}

impl<Settings, Part> Attachment<Settings, Part> {
    pub(in crate::source) const fn new(
        stream: EventSource,
        settings: Settings,
        hears: Hears,
        make: fn(&Settings, EventSource, ReadLimiter, ServiceClock) -> Part,
    ) -> Self {
        let state = Mutex::new(State { worker: Weak::new(), part: None });
        Self { stream, settings, hears, make, state }
    }

    /// The part for the worker's context, or for a context of its own as long as no worker has attached the source.
    pub(in crate::source) fn part(&self) -> Arc<Part> {
        let mut state = self.state.lock();
        let part = state.part.get_or_insert_with(|| self.made(&SourceContext::default()));
        Arc::clone(part)
    }

    /// Makes the part for this context. Another consumer of the same worker gets the same part.
    pub(in crate::source) fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        let mut state = self.state.lock();
        match state.worker.upgrade() {
            Some(worker) if Arc::ptr_eq(&worker, &cx.worker) => return Ok(()),
            Some(_) => {
                return Err(SourceError {
                    kind: SourceErrorKind::Rejected,
                    api: "attach",
                    message: format!(
                        "the source of {} belongs to another worker, whose clock and pace it follows; give both \
                         consumers the same worker(), or make a source for each",
                        self.stream
                    ),
                    source: None,
                });
            }
            None => {}
        }
        state.worker = Arc::downgrade(&cx.worker);
        state.part = Some(self.made(cx));
        Ok(())
    }

    fn made(&self, cx: &SourceContext) -> Arc<Part> {
        let clock = self.hears.of(cx.clock());
        Arc::new((self.make)(&self.settings, self.stream.clone(), cx.limiter().clone().for_source(), clock))
    }
}

impl<Settings, Part> fmt::Debug for Attachment<Settings, Part> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("stream", &self.stream).finish_non_exhaustive()
    }
}
