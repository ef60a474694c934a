//! When a run lists its stream.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff;

/// How soon the stream is listed again while the service's clock is in doubt, and how often.
const DOUBT_INTERVAL: Duration = Duration::from_secs(2);
const DOUBT_LISTINGS: u32 = 6;

/// When the stream is looked at next, and whether it is to be listed then even if nothing seems to have changed.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    next: Instant,
    asked: bool,
    /// Looks in a row that failed.
    failures: u32,
    /// Listings that were asked for because the service's clock is in doubt.
    doubtful: u32,
}

impl Schedule {
    /// The first look is due now, and lists.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now(), asked: true, failures: 0, doubtful: 0 }
    }

    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// A look begins: whether it is to list. A request for the next one that comes meanwhile is not forgotten.
    pub(super) fn begin(&mut self) -> bool {
        self.next = Instant::now() + self.interval;
        std::mem::take(&mut self.asked)
    }

    pub(super) fn list_now(&mut self) {
        self.asked = true;
        self.next = Instant::now();
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.asked = true;
        self.next = Instant::now() + backoff(self.failures);
    }

    /// The first leases wait for the service's clock: a whole interval may be longer than their start is to wait.
    pub(super) fn soon(&mut self) {
        self.asked = true;
        self.next = self.next.min(Instant::now() + DOUBT_INTERVAL);
    }

    /// A clock in doubt is settled by more answers: the stream is listed for their sake, a few times.
    pub(super) fn settle_clock(&mut self, in_doubt: bool) {
        if !in_doubt {
            self.doubtful = 0;
        } else if self.doubtful < DOUBT_LISTINGS
            && self.failures == 0
            && self.next > Instant::now() + DOUBT_INTERVAL
        {
            self.doubtful += 1;
            self.soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_first_look_lists_at_once_and_the_next_one_looks_after_the_interval() {
        let mut schedule = Schedule::new(INTERVAL);
        assert_eq!((schedule.next(), schedule.begin()), (Instant::now(), true));
        assert_eq!((schedule.next(), schedule.begin()), (Instant::now() + INTERVAL, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_during_a_look_leads_to_another() {
        let mut schedule = Schedule::new(INTERVAL);
        schedule.begin();
        schedule.list_now();
        assert_eq!((schedule.next(), schedule.begin()), (Instant::now(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_look_lists_after_a_pause_that_grows_and_is_bounded() {
        let mut schedule = Schedule::new(INTERVAL);
        schedule.begin();
        for _ in 0..40 {
            schedule.failed();
        }
        let pause = schedule.next() - Instant::now();
        assert!(pause > Duration::from_secs(1) && pause <= Duration::from_secs(15), "{pause:?}");
        assert!(schedule.begin());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_in_doubt_is_settled_by_six_listings_and_then_by_those_that_come_anyway() {
        let mut schedule = Schedule::new(INTERVAL);
        schedule.begin();
        for _ in 0..DOUBT_LISTINGS {
            schedule.settle_clock(true);
            assert_eq!((schedule.next(), schedule.begin()), (Instant::now() + DOUBT_INTERVAL, true));
        }
        schedule.settle_clock(true);
        assert_eq!((schedule.next(), schedule.begin()), (Instant::now() + INTERVAL, false));
        schedule.settle_clock(false);
        schedule.settle_clock(true);
        assert!(schedule.begin(), "a doubt that comes back is settled as well");
    }
}
