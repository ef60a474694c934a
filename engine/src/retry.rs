//! Backoff as a pure function: the caller keeps the count, the clock and the generator.

use std::time::Duration;

use crate::mapping::Retry;

impl Retry {
    /// How long to wait after `failures` failures in a row, at least 1: the initial backoff doubled for each further
    /// one, up to half of it added by chance, never above the maximum (R22).
    #[must_use]
    pub fn delay(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let base = self.initial_backoff.saturating_mul(1 << doublings).min(self.maximum_backoff);
        // A Duration of at most an hour in milliseconds is far below 2^64.
        let half = u64::try_from(base.as_millis() / 2).unwrap_or(u64::MAX);
        (base + Duration::from_millis(rng.u64(0..=half))).min(self.maximum_backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r22_backoff_starts_at_200_ms_doubles_and_stays_below_its_maximum() {
        let retry =
            Retry { initial_backoff: Duration::from_millis(200), maximum_backoff: Duration::from_secs(60) };
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..1000 {
            let mut delay = |n| retry.delay(n, &mut rng).as_millis();
            assert!((200..=300).contains(&delay(1)));
            assert!((400..=600).contains(&delay(2)));
            assert!((51_200..=60_000).contains(&delay(9)));
            assert_eq!(delay(10), 60_000);
            assert_eq!(delay(u32::MAX), 60_000);
        }
        let firsts: Vec<_> = (0..1000).map(|_| retry.delay(1, &mut rng).as_millis()).collect();
        assert!(firsts.iter().any(|ms| *ms < 210) && firsts.iter().any(|ms| *ms > 290), "spread by chance");
    }
}
