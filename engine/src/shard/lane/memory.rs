//! What a lane holds in memory, and what it lets go of when it has to wait (I13).

use std::sync::Arc;

use super::{Lane, LaneState};
use crate::record::{Slab, footprint};

/// A page is kept for records that make up at least this part of it; fewer are copied out of it.
const KEPT_PART: usize = 2;

impl Lane {
    /// Bytes that are freed only once records of this lane are resolved: their pages as a whole, encoded events, and the
    /// state of the open window.
    pub(in crate::shard) fn held(&self) -> usize {
        let mut last = self.queue.front_page().map(Arc::as_ptr);
        let mut bytes = self.queue.held() + self.tumbling.held();
        // Parts of one batch lie next to each other, and all of them in one page until they are copied out of it.
        for attempt in &self.stack {
            let page = attempt.batch.page();
            if last.replace(Arc::as_ptr(page)) != Some(Arc::as_ptr(page)) {
                bytes += page.bytes();
            }
        }
        let current = self.current().filter(|_| self.state() == LaneState::Invoking);
        bytes + current.map_or(0, |attempt| attempt.batch.event_bytes())
    }

    /// Lets go of what a wait does not need: encoded events, and pages of which little is left.
    pub(in crate::shard) fn shed(&mut self) {
        if self.state() == LaneState::Invoking {
            // Its handler holds all of it.
            return;
        }
        for attempt in &mut self.stack {
            attempt.batch.forget_event();
        }
        let of_stack = self.stack.iter().map(|attempt| Arc::as_ptr(attempt.batch.page()));
        let mut pages: Vec<_> = of_stack.chain(self.queue.front_page().map(Arc::as_ptr)).collect();
        pages.dedup();
        for page in pages {
            self.leave(page);
        }
    }

    /// Copies what is left of a page, if that is little.
    fn leave(&mut self, page: *const Slab) {
        let is_front = self.queue.front_page().is_some_and(|front| Arc::as_ptr(front) == page);
        let mut left = if is_front { self.queue.front_bytes() } else { 0 };
        let mut bytes = self.queue.front_page().filter(|_| is_front).map_or(0, |front| front.bytes());
        let mut of_page: Vec<_> =
            self.stack.iter_mut().filter(|attempt| Arc::as_ptr(attempt.batch.page()) == page).collect();
        for attempt in &of_page {
            left += footprint(attempt.batch.records());
            bytes = attempt.batch.page().bytes();
        }
        if left * KEPT_PART >= bytes {
            return;
        }
        for attempt in &mut of_page {
            attempt.batch = attempt.batch.detached();
        }
        if is_front {
            self.queue.detach_front();
        }
    }
}
