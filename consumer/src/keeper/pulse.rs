//! When the worker's own heartbeat is due.

use std::time::Duration;

use shardmill_engine::Mono;

use super::turn::Turn;

/// One heartbeat at a time: four in a lease time, sooner after one that failed.
#[derive(Debug)]
pub(super) struct Pulse {
    lease: Duration,
    turn: Turn,
    /// When the last one was sent that is durable.
    proven: Option<Mono>,
    /// The worker's heartbeat since.
    heartbeat: Option<u64>,
}

impl Pulse {
    pub(super) const fn new(lease: Duration) -> Self {
        Self { lease, turn: Turn::Off, proven: None, heartbeat: None }
    }

    /// Begins, or reports what has changed at once.
    pub(super) const fn soon(&mut self, now: Mono) {
        self.turn.begin(now);
    }

    /// The worker leaves: no more heartbeats. Whether one is under way.
    pub(super) const fn end(&mut self) -> bool {
        matches!(std::mem::replace(&mut self.turn, Turn::Off), Turn::UnderWay | Turn::Outdated)
    }

    /// The last one that is durable.
    pub(super) const fn heartbeat(&self) -> Option<u64> {
        self.heartbeat
    }

    /// When that one was sent.
    pub(super) const fn proven(&self) -> Option<Mono> {
        self.proven
    }

    pub(super) const fn is_on(&self) -> bool {
        !matches!(self.turn, Turn::Off)
    }

    /// Whether to send one now; marks it as under way.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        self.turn.take(now)
    }

    /// The heartbeat under way, which was sent then, has ended, and has this number if it is durable.
    pub(super) fn ended(&mut self, now: Mono, sent: Mono, written: Option<u64>) {
        if written.is_some() {
            self.proven = Some(sent);
            self.heartbeat = written;
        }
        self.turn.ended(now, if written.is_some() { sent + self.lease / 4 } else { now + self.lease / 20 });
    }

    /// Whether others can still see that this worker lives.
    pub(super) fn is_seen(&self, now: Mono) -> bool {
        self.proven.is_some_and(|sent| now < sent + self.lease / 2)
    }

    /// When [`take`](Self::take) may return more than now.
    pub(super) const fn wakes_at(&self) -> Option<Mono> {
        self.turn.wakes_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    #[test]
    fn four_heartbeats_are_sent_in_a_lease_time_and_a_failed_one_is_repeated_soon() {
        let mut pulse = Pulse::new(Duration::from_secs(10));
        assert!(!pulse.take(at(0)) && !pulse.is_on());
        pulse.soon(at(0));
        assert!(pulse.take(at(0)));
        assert!(!pulse.take(at(9_000)), "one at a time");
        pulse.ended(at(100), at(0), Some(1));
        assert_eq!(pulse.wakes_at(), Some(at(2_500)), "from when it was sent");
        assert!(pulse.is_seen(at(4_999)) && !pulse.is_seen(at(5_000)));
        assert!(pulse.take(at(2_500)));
        pulse.ended(at(4_500), at(2_500), None);
        assert_eq!(pulse.heartbeat(), Some(1));
        assert_eq!(pulse.wakes_at(), Some(at(5_000)));
        assert!(pulse.take(at(5_000)));
        pulse.soon(at(5_001));
        pulse.ended(at(5_002), at(5_000), Some(3));
        assert!(pulse.take(at(5_002)), "what has changed meanwhile is reported at once");
        assert!(pulse.end(), "one is under way");
        pulse.ended(at(6_000), at(5_002), Some(4));
        assert_eq!((pulse.wakes_at(), pulse.heartbeat(), pulse.end()), (None, Some(4), false));
    }
}
