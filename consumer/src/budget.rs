//! The process's buffer budget, shared by all shards (I13).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that all shards of the process may buffer together.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

/// One shard's part of the budget; what it holds is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    held: Arc<AtomicUsize>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Shared { limit, used: AtomicUsize::new(0), freed: Notify::new() }) }
    }

    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), held: Arc::default() }
    }
}

impl Share {
    /// Notes how much the shard buffers now.
    pub(crate) fn set(&self, bytes: usize) {
        let before = self.held.swap(bytes, Ordering::AcqRel);
        let shared = &self.budget.shared;
        if bytes >= before {
            shared.used.fetch_add(bytes - before, Ordering::AcqRel);
        } else {
            shared.used.fetch_sub(before - bytes, Ordering::AcqRel);
            shared.freed.notify_waiters();
        }
    }

    /// Waits until a page may be read: there is room, or this shard holds nothing, so that each active shard gets at
    /// least one page and a record larger than the budget still passes.
    pub(crate) fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let (shared, held) = (Arc::clone(&self.budget.shared), Arc::clone(&self.held));
        async move {
            loop {
                let freed = shared.freed.notified();
                if shared.used.load(Ordering::Acquire) < shared.limit || held.load(Ordering::Acquire) == 0 {
                    return;
                }
                freed.await;
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn i13_a_full_budget_holds_back_shards_that_already_hold_a_page() {
        let budget = Budget::new(100);
        let (busy, idle) = (budget.share(), budget.share());
        busy.set(120);
        assert!(busy.room().now_or_never().is_none());
        assert!(idle.room().now_or_never().is_some(), "at least one page per active shard");
        busy.set(40);
        assert!(busy.room().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_waiting_shard_goes_on_when_another_one_ends() {
        let budget = Budget::new(100);
        let (ending, waiting) = (budget.share(), budget.share());
        ending.set(99);
        waiting.set(1);
        let mut room = Box::pin(waiting.room());
        assert!((&mut room).now_or_never().is_none());
        drop(ending);
        room.await;
    }
}
