//! When the leases are listed.

use std::time::Duration;

use shardmill_engine::Mono;

/// What each lease adds to the interval: a listing costs time for each of them.
const FOR_A_LEASE: Duration = Duration::from_micros(250);

/// One listing at a time: at every interval, and sooner after what changed leases.
#[derive(Debug)]
pub(super) struct Listing {
    /// From the end of a listing to the next, where there are few leases.
    interval: Duration,
    /// The same with any number of leases.
    longest: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No stream is served yet.
    Off,
    Due(Mono),
    UnderWay,
    /// The leases changed while they were being listed: the answer may be older than the change.
    Outdated,
}

impl Listing {
    /// At `interval`, with many leases less often: four times in a `lease`'s time.
    pub(super) fn new(interval: Duration, lease: Duration) -> Self {
        Self { interval, longest: interval.max(lease / 4), state: State::Off }
    }

    /// Lists from now on.
    pub(super) const fn begin(&mut self, now: Mono) {
        if let State::Off = self.state {
            self.state = State::Due(now);
        }
        self.soon(now);
    }

    /// Leases have changed: another listing is due at once, or when the one under way has ended.
    pub(super) const fn soon(&mut self, now: Mono) {
        self.state = match self.state {
            State::Off => State::Off,
            State::Due(_) => State::Due(now),
            State::UnderWay | State::Outdated => State::Outdated,
        };
    }

    /// Whether to list now; marks the listing as under way.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        let due = self.wakes_at().is_some_and(|at| at <= now);
        if due {
            self.state = State::UnderWay;
        }
        due
    }

    /// The listing under way, of so many leases, has ended.
    pub(super) fn ended(&mut self, now: Mono, leases: usize) {
        let leases = u32::try_from(leases).unwrap_or(u32::MAX);
        let interval = (self.interval + FOR_A_LEASE.saturating_mul(leases)).min(self.longest);
        self.state = match self.state {
            State::Outdated => State::Due(now),
            State::Off | State::Due(_) | State::UnderWay => State::Due(now + interval),
        };
    }

    /// When [`take`](Self::take) may return more than now.
    pub(super) const fn wakes_at(&self) -> Option<Mono> {
        match self.state {
            State::Due(at) => Some(at),
            State::Off | State::UnderWay | State::Outdated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    fn listing() -> Listing {
        Listing::new(Duration::from_millis(500), Duration::from_secs(10))
    }

    #[test]
    fn nothing_is_listed_before_a_stream_is_served_whatever_changes() {
        let mut listing = listing();
        listing.soon(at(1));
        assert!(!listing.take(at(1000)));
        assert_eq!(listing.wakes_at(), None);
        listing.begin(at(1000));
        assert!(listing.take(at(1000)));
    }

    #[test]
    fn the_next_listing_is_due_an_interval_after_the_last_one_ended() {
        let mut listing = listing();
        listing.begin(at(0));
        assert!(listing.take(at(0)));
        assert!(!listing.take(at(10_000)), "one at a time");
        assert_eq!(listing.wakes_at(), None);
        listing.ended(at(20_000), 0);
        assert_eq!(listing.wakes_at(), Some(at(20_500)));
        assert!(!listing.take(at(20_499)));
        assert!(listing.take(at(20_500)));
    }

    #[test]
    fn a_change_makes_a_listing_due_at_once() {
        let mut listing = listing();
        listing.begin(at(0));
        assert!(listing.take(at(0)));
        listing.ended(at(1), 0);
        listing.soon(at(2));
        assert!(listing.take(at(2)));
    }

    #[test]
    fn changes_during_a_listing_bring_one_more_after_it_and_only_one() {
        let mut listing = listing();
        listing.begin(at(0));
        assert!(listing.take(at(0)));
        listing.soon(at(1));
        listing.begin(at(2));
        assert!(!listing.take(at(2)));
        listing.ended(at(3), 0);
        assert!(listing.take(at(3)));
        listing.ended(at(4), 0);
        assert_eq!(listing.wakes_at(), Some(at(504)));
    }

    #[test]
    fn thousands_of_leases_are_listed_less_often() {
        let next = |leases| {
            let mut listing = listing();
            listing.begin(at(0));
            assert!(listing.take(at(0)));
            listing.ended(at(0), leases);
            listing.wakes_at()
        };
        assert_eq!([4, 4_000, 20_000].map(next), [Some(at(501)), Some(at(1500)), Some(at(2500))]);
    }
}
