//! The two clocks that the engine is handed: the host's monotonic one and the services' wall clock.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use shardmill_engine::{Mono, Now, Wall};
use tokio::time::Instant;

/// A `Date` header names a whole second: the service's time lies up to this many milliseconds after it.
const DATE_WIDTH_MS: i64 = 1000;

/// A correction beyond this many milliseconds is worth a warning.
const WARN_BEYOND_MS: u64 = 5000;

/// The monotonic clock starts here and not at zero, so that an instant shortly before its origin is still in range.
const MONO_START_MS: u64 = 3_600_000;

/// The time by the services' own clocks, estimated from the `Date` headers of their answers.
///
/// A host whose clock is minutes off judges record ages and pins starts as the service would. Until the first answer
/// the host's clock counts. Time runs on tokio's clock, so a test with paused time controls it. Clones share one estimate.
#[derive(Clone, Debug)]
pub struct ServiceClock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The host's wall clock when the monotonic clock read zero, in milliseconds since the epoch.
    base: i64,
    /// Milliseconds to add to the host's wall clock.
    offset: AtomicI64,
    warned: AtomicBool,
}

impl ServiceClock {
    /// A clock that starts with the host's wall clock.
    #[must_use]
    pub fn new() -> Self {
        let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Wall::from_millis(i64::try_from(host.as_millis()).unwrap_or(i64::MAX)))
    }

    /// A clock of a host that believes it is `host` now; for tests and simulations.
    #[must_use]
    pub fn starting_at(host: Wall) -> Self {
        let base = host.as_millis().saturating_sub(signed(mono_now()));
        Self { inner: Arc::new(Inner { base, offset: AtomicI64::new(0), warned: AtomicBool::new(false) }) }
    }

    /// The monotonic time since an origin that all clocks of the process share, and the service's wall clock.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = mono_now();
        Now { mono, wall: Wall::from_millis(self.host(mono).saturating_add(self.offset())) }
    }

    /// Milliseconds that the service's clock is ahead of the host's; negative if it is behind.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.inner.offset.load(Ordering::Relaxed)
    }

    /// Takes the `Date` header of an answer that arrived just now, in milliseconds since the epoch.
    pub fn observe(&self, date_header_ms: i64) {
        self.observe_answer(date_header_ms, mono_now());
    }

    /// Takes the `Date` header of an answer that arrived just now to a request sent at `sent`.
    ///
    /// The service wrote the header after the request left and before the answer came, and cut it to the second. So
    /// the estimate is wrong only if it is past that second when the request left, or before it when the answer came;
    /// only then it moves, to the nearest time that fits. A slow answer or the cut alone never moves it.
    pub fn observe_answer(&self, date_header_ms: i64, sent: Mono) {
        let received = mono_now();
        let at_least = date_header_ms.saturating_sub(self.host(received));
        let at_most =
            date_header_ms.saturating_add(DATE_WIDTH_MS).saturating_sub(self.host(sent.min(received)));
        let fit = |offset: i64| Some(offset.clamp(at_least, at_most)).filter(|fitting| *fitting != offset);
        if self.inner.offset.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fit).is_ok()
            && self.warning_is_due()
        {
            let offset_ms = self.offset();
            tracing::warn!(
                offset_ms,
                "this host's clock is {} s {} the service's; record ages and start positions follow the service's clock",
                offset_ms.unsigned_abs() / 1000,
                if offset_ms > 0 { "behind" } else { "ahead of" },
            );
        }
    }

    /// Whether the correction has become large since it was last small.
    fn warning_is_due(&self) -> bool {
        let large = self.offset().unsigned_abs() > WARN_BEYOND_MS;
        let warned = self.inner.warned.swap(large, Ordering::Relaxed);
        large && !warned
    }

    /// The host's wall clock at `mono`, in milliseconds since the epoch.
    fn host(&self, mono: Mono) -> i64 {
        self.inner.base.saturating_add(signed(mono))
    }
}

impl Default for ServiceClock {
    fn default() -> Self {
        Self::new()
    }
}

fn signed(mono: Mono) -> i64 {
    i64::try_from(mono.as_millis()).unwrap_or(i64::MAX)
}

fn mono_now() -> Mono {
    // The real clock, even if the first caller's tokio time is paused and far ahead: other runtimes share the origin.
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(|| Instant::from_std(std::time::Instant::now()));
    let now = Instant::now();
    let after = now.saturating_duration_since(origin).as_millis();
    let before = origin.saturating_duration_since(now).as_millis();
    let millis = |part: u128| u64::try_from(part).unwrap_or(u64::MAX);
    Mono::from_millis(MONO_START_MS.saturating_add(millis(after)).saturating_sub(millis(before)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    const TRUTH: i64 = 1_790_000_000_400;

    /// What a service whose clock reads `time` writes into its `Date` header.
    fn header(time: i64) -> i64 {
        time.div_euclid(1000) * 1000
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_ten_minutes_behind_is_corrected_by_the_first_answer() {
        let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH - 600_000));
        clock.observe(header(TRUTH));
        let error = TRUTH - clock.now().wall.as_millis();
        assert!((-1..=1000).contains(&error), "{error} ms behind the service");
        assert!((598_999..=600_001).contains(&clock.offset()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_ten_minutes_ahead_is_corrected_by_the_first_answer() {
        let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH + 600_000));
        clock.observe(header(TRUTH));
        let error = clock.now().wall.as_millis() - TRUTH;
        assert!((-1..=1000).contains(&error), "{error} ms ahead of the service");
    }

    #[tokio::test(start_paused = true)]
    async fn the_cut_to_the_second_and_slow_answers_do_not_make_the_estimate_jitter() {
        let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH - 600_000));
        let mut truth = TRUTH;
        let mut offsets = Vec::new();
        for round in 0..200_u16 {
            let after = if round % 10 == 9 { 7000 } else { u64::from(round * 13 % 60) };
            let before = u64::from(round * 37 % 400);
            let sent = clock.now().mono;
            advance(Duration::from_millis(before)).await;
            let stamped = header(truth + i64::try_from(before).unwrap());
            advance(Duration::from_millis(after)).await;
            clock.observe_answer(stamped, sent);
            truth += i64::try_from(before + after).unwrap();
            offsets.push(clock.offset());
        }
        assert!(offsets.is_sorted(), "each step brings the estimate nearer to the truth, none takes it back");
        assert!(offsets.windows(2).filter(|pair| pair[0] != pair[1]).count() < 10, "{offsets:?}");
        assert!((truth - clock.now().wall.as_millis()).abs() < 100, "many answers narrow the estimate");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_agrees_with_the_service_is_never_shifted() {
        let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
        for step in 0..50 {
            clock.observe(header(TRUTH + step * 130));
            advance(Duration::from_millis(130)).await;
        }
        // The clock counts whole milliseconds, so a reading may be one off.
        assert!(clock.offset().abs() <= 1, "{}", clock.offset());
        assert!((clock.now().wall.as_millis() - (TRUTH + 50 * 130)).abs() <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn clones_share_the_estimate_and_the_monotonic_clock_follows_paused_time() {
        let clock = ServiceClock::new();
        let other = ServiceClock::starting_at(Wall::from_millis(0));
        let shared = clock.clone();
        let before = clock.now();
        clock.observe(before.wall.as_millis() + 60_000);
        advance(Duration::from_secs(7)).await;
        // The clock counts whole milliseconds, so a reading may be one off.
        let passed = shared.now().mono.since(before.mono);
        assert!((6_999..=7_001).contains(&passed.as_millis()), "{passed:?}");
        assert!((shared.now().wall.as_millis() - before.wall.as_millis() - 67_000).abs() <= 1);
        assert_eq!(other.now().mono, clock.now().mono, "one origin for the whole process");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_correction_warns_once_and_again_only_after_it_was_small() {
        let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
        let due = |offset: i64| {
            clock.inner.offset.store(offset, Ordering::Relaxed);
            clock.warning_is_due()
        };
        assert_eq!([4_999, 5_001, 6_000, -9_000].map(due), [false, true, false, false]);
        assert_eq!([100, -5_001, -5_002].map(due), [false, true, false]);
    }
}
