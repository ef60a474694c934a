//! The worker's `MaximumLeases`, which all mappings of the process share.

use shardmill_engine::Mono;
use tokio::sync::Semaphore;

use super::{Actor, Phase};

impl Actor {
    /// The most leases that this worker may have of this application: what it has, and every place that is free now;
    /// `None`: any number. Other mappings say the same of the free places, and the first one to take a lease gets one.
    pub(super) fn places(&self, now: Mono) -> Option<usize> {
        if !self.fleet.may_claim(now) {
            // What it would be given now, nobody would read.
            return Some(self.entries.busy());
        }
        let places = self.entries.busy().saturating_add(self.options.slots.available_permits());
        // Without a limit there are more than could ever be taken, although other mappings have some.
        (places < Semaphore::MAX_PERMITS / 2).then_some(places)
    }

    /// Another mapping has taken places, or left some: the others are told before the next heartbeat is due. Until then they
    /// would leave to this worker, or give it, what it cannot take.
    pub(super) fn tell_places(&mut self, now: Mono) {
        if self.phase == Phase::Taking && self.pulse.is_on() && self.told != self.places(now) {
            self.pulse.soon(now);
        }
    }
}
