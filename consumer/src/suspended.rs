//! How long the machine has slept: the monotonic clock stops meanwhile, leases do not.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Less than this is the time between two readings of the clocks, not sleep.
const LEAST_MS: u64 = 50;

/// Milliseconds that the machine was suspended since the process first called this; never less than before. Always 0
/// where the kernel has no clock that keeps running (anywhere but on Linux).
pub(crate) fn millis() -> u64 {
    static BASE: OnceLock<u64> = OnceLock::new();
    static ASLEEP: Sleep = Sleep(AtomicU64::new(0));
    let read = || surplus_nanos().unwrap_or(0);
    // The largest of some readings: one in whose middle the thread had to wait shows too little.
    let base = *BASE.get_or_init(|| (0..3).map(|_| read()).max().unwrap_or(0));
    ASLEEP.at_least(read().saturating_sub(base) / 1_000_000) + pretended()
}

/// What the clocks have shown so far.
#[derive(Debug)]
struct Sleep(AtomicU64);

impl Sleep {
    /// Takes a reading in, and gives back what counts.
    fn at_least(&self, millis: u64) -> u64 {
        let known = self.0.load(Ordering::Relaxed);
        if millis < known.saturating_add(LEAST_MS) {
            return known;
        }
        self.0.fetch_max(millis, Ordering::Relaxed).max(millis)
    }
}

/// By how much the clock that keeps running during suspension is ahead of the one that does not: at most, so that a
/// wait between the readings looks like less sleep, not like more.
#[cfg(target_os = "linux")]
fn surplus_nanos() -> Option<u64> {
    use rustix::time::{ClockId, clock_gettime};
    let nanos = |clock| {
        let time = clock_gettime(clock);
        Some(u64::try_from(time.tv_sec).ok()? * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?)
    };
    let with_sleep = nanos(ClockId::Boottime)?;
    Some(with_sleep.saturating_sub(nanos(ClockId::Monotonic)?))
}

#[cfg(not(target_os = "linux"))]
fn surplus_nanos() -> Option<u64> {
    None
}

#[cfg(not(test))]
const fn pretended() -> u64 {
    0
}

#[cfg(test)]
pub(crate) use pretence::{pretend, pretended};

#[cfg(test)]
mod pretence {
    use std::cell::Cell;

    thread_local! {
        static PRETENDED: Cell<u64> = const { Cell::new(0) };
    }

    /// For this thread the machine has slept so many milliseconds more.
    pub(crate) fn pretend(millis: u64) {
        PRETENDED.set(PRETENDED.get() + millis);
    }

    pub(crate) fn pretended() -> u64 {
        PRETENDED.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_91_sleep_only_grows_and_the_time_between_two_readings_is_none() {
        let sleep = Sleep(AtomicU64::new(0));
        assert_eq!([0, 3, 49].map(|ms| sleep.at_least(ms)), [0, 0, 0]);
        assert_eq!([600_000, 600_020, 599_990].map(|ms| sleep.at_least(ms)), [600_000; 3]);
        assert_eq!(sleep.at_least(600_050), 600_050);
    }

    #[test]
    fn a_machine_that_is_awake_has_not_slept_since_the_first_reading() {
        let first = millis();
        assert!(millis() >= first);
        pretend(1_000);
        assert!(millis() >= first + 1_000);
    }
}
