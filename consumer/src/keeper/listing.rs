//! When the leases are listed.

use std::time::Duration;

use shardmill_engine::Mono;

use super::turn::Turn;

/// What each lease adds to the interval: a listing costs time for each of them.
const FOR_A_LEASE: Duration = Duration::from_micros(250);

/// One listing at a time: at every interval, and sooner after what changed leases.
#[derive(Debug)]
pub(super) struct Listing {
    /// From the end of a listing to the next, where there are few leases.
    interval: Duration,
    /// The same with any number of leases.
    longest: Duration,
    /// No listing is due before.
    soonest: Mono,
    turn: Turn,
}

impl Listing {
    /// At `interval`, with many leases less often: four times in a `lease`'s time.
    pub(super) fn new(interval: Duration, lease: Duration) -> Self {
        Self { interval, longest: interval.max(lease / 4), soonest: Mono::from_millis(0), turn: Turn::Off }
    }

    /// Lists from now on.
    pub(super) fn begin(&mut self, now: Mono) {
        self.turn.begin(now.max(self.soonest));
    }

    /// Leases have changed: another listing is due as soon as may be.
    pub(super) fn soon(&mut self, now: Mono) {
        self.turn.soon(now.max(self.soonest));
    }

    /// Whether to list now; marks the listing as under way.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        self.turn.take(now)
    }

    /// The listing under way, of so many leases, has ended.
    pub(super) fn ended(&mut self, now: Mono, leases: usize) {
        let leases = u32::try_from(leases).unwrap_or(u32::MAX);
        let pause = FOR_A_LEASE.saturating_mul(leases);
        let next = (self.interval + pause).min(self.longest);
        // While a fleet shares thousands of leases out, each answer changes some.
        self.soonest = now + (pause * 2).min(next);
        self.turn.ended(self.soonest, now + next);
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
    fn changes_of_thousands_of_leases_do_not_bring_one_listing_after_the_other() {
        let mut listing = listing();
        listing.begin(at(0));
        assert!(listing.take(at(0)));
        listing.soon(at(1));
        listing.ended(at(10), 2_000);
        assert_eq!(listing.wakes_at(), Some(at(1_010)), "what changed during the listing");
        assert!(listing.take(at(1_010)));
        listing.ended(at(1_020), 2_000);
        listing.soon(at(1_030));
        assert_eq!(listing.wakes_at(), Some(at(2_020)), "and after it");
        listing.begin(at(3_000));
        assert!(listing.take(at(3_000)));
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
