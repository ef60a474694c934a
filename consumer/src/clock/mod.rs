//! The two clocks that the engine is handed: the host's monotonic one and the services' wall clock.

mod estimate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use shardmill_engine::{Mono, Now, Wall};
use tokio::time::Instant;

use estimate::{Estimate, Sighting, Verdict};

/// A `Date` header names a whole second: the service's time lies up to this many milliseconds after it.
const DATE_WIDTH_MS: i64 = 1000;

/// A correction beyond this many milliseconds is worth a warning.
const WARN_BEYOND_MS: u64 = 5000;

/// A doubt that lasts this long is worth a warning.
const WARN_DOUBT_MS: u64 = 30_000;

/// The monotonic clock starts here and not at zero, so that an instant shortly before its origin is still in range.
const MONO_START_MS: u64 = 3_600_000;

/// The time by a service's own clock, estimated from the `Date` headers of its answers.
///
/// A host whose clock is minutes off judges record ages and pins starts as the service would. Until the first answer
/// the host's clock counts. An answer that is more than 3 s off the estimate puts the clock [in doubt](Self::doubt): it
/// moves once several answers, over some seconds, say the same, and until then nothing is discarded by age or
/// retention.
///
/// Each endpoint has an estimate of its own: a source takes its [endpoint's](Self::for_endpoint) clock from the one that
/// it is given. Time runs on tokio's clock, so a test with paused time controls it. Clones share one estimate.
#[derive(Clone, Debug)]
pub struct ServiceClock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// What the clock belongs to, for the log; empty for a clock of no endpoint.
    name: String,
    /// The host's wall clock when the monotonic clock read zero, in milliseconds since the epoch.
    base: i64,
    /// Milliseconds to add to the host's wall clock.
    offset: AtomicI64,
    /// How many milliseconds the estimate may be off; 0 while it is not in doubt.
    doubt: AtomicU64,
    /// While it is in doubt: the lowest offset in question.
    lowest: AtomicI64,
    /// Whether answers have confirmed the estimate.
    is_known: AtomicBool,
    estimate: Mutex<Estimate>,
    warned: AtomicBool,
    /// Since when the clock is in doubt, and whether that was logged.
    doubted: Mutex<Option<(Mono, bool)>>,
    endpoints: Mutex<BTreeMap<String, ServiceClock>>,
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
        Self::with_base(host.as_millis().saturating_sub(signed(mono_now())), String::new())
    }

    fn with_base(base: i64, name: String) -> Self {
        let inner = Inner {
            name,
            base,
            offset: AtomicI64::new(0),
            doubt: AtomicU64::new(0),
            lowest: AtomicI64::new(0),
            is_known: AtomicBool::new(false),
            estimate: Mutex::default(),
            warned: AtomicBool::new(false),
            doubted: Mutex::default(),
            endpoints: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The clock of one endpoint, such as `kinesis eu-west-1`: the same for the same name, on the same host's clock.
    #[must_use]
    pub fn for_endpoint(&self, name: &str) -> Self {
        let mut endpoints = self.inner.endpoints.lock();
        let clock = || Self::with_base(self.inner.base, name.to_owned());
        endpoints.entry(name.to_owned()).or_insert_with(clock).clone()
    }

    /// A clock of an endpoint that is shared with no other source.
    #[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
    pub(crate) fn for_client(&self, name: &str) -> Self {
        static CLIENTS: AtomicU64 = AtomicU64::new(1);
        self.for_endpoint(&format!("{name} (client {})", CLIENTS.fetch_add(1, Ordering::Relaxed)))
    }

    /// The monotonic time since an origin that all clocks of the process share, and the service's wall clock.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = mono_now();
        Now { mono, wall: self.wall_at(mono) }
    }

    /// The service's wall clock at `mono`, by what is known now.
    fn wall_at(&self, mono: Mono) -> Wall {
        Wall::from_millis(self.host(mono).saturating_add(self.inner.offset.load(Ordering::Acquire)))
    }

    /// The earliest that the service's wall clock may have read at `mono`: its estimate; as long as no answer has confirmed
    /// that, or while it is in doubt, the earliest possible time, by the host's clock as well.
    pub(crate) fn earliest_at(&self, mono: Mono) -> Wall {
        let offset = match (self.doubt(), self.inner.is_known.load(Ordering::Acquire)) {
            (None, true) => self.inner.offset.load(Ordering::Acquire),
            (None, false) => self.inner.offset.load(Ordering::Acquire).min(0),
            (Some(_), _) => self.inner.lowest.load(Ordering::Acquire).min(0),
        };
        Wall::from_millis(self.host(mono).saturating_add(offset))
    }

    /// Whether answers have confirmed the estimate, and none contradicts it now.
    pub(crate) fn is_known(&self) -> bool {
        self.doubt().is_none() && self.inner.is_known.load(Ordering::Acquire)
    }

    /// The host's wall clock at `mono`.
    pub(crate) fn host_at(&self, mono: Mono) -> Wall {
        Wall::from_millis(self.host(mono))
    }

    /// Milliseconds that the service's clock is ahead of the host's; negative if it is behind. For a clock with endpoints,
    /// that of the endpoint that is furthest off.
    #[must_use]
    pub fn offset(&self) -> i64 {
        let own = self.inner.offset.load(Ordering::Acquire);
        let endpoints = self.inner.endpoints.lock();
        let all = endpoints.values().map(Self::offset).chain([own]);
        all.max_by_key(|offset| offset.unsigned_abs()).unwrap_or(own)
    }

    /// How far off the estimate may be while answers contradict it; `None` while it is trusted. For a clock with
    /// endpoints, the largest doubt of them.
    #[must_use]
    pub fn doubt(&self) -> Option<Duration> {
        let own = self.inner.doubt.load(Ordering::Acquire);
        let own = (own > 0).then(|| Duration::from_millis(own));
        self.inner.endpoints.lock().values().filter_map(Self::doubt).chain(own).max()
    }

    /// Takes the `Date` header of a successful answer that arrived just now, in milliseconds since the epoch.
    pub fn observe(&self, date_header_ms: i64) {
        self.observe_answer(date_header_ms, mono_now());
    }

    /// Takes the `Date` header of a successful answer that arrived just now to a request sent at `sent`.
    ///
    /// The service wrote the header after the request left and before the answer came, and cut it to the second. So
    /// the estimate is wrong only if it is past that second when the request left, or before it when the answer came;
    /// only then it moves, to the nearest time that fits. A slow answer or the cut alone never moves it.
    ///
    /// Only answers that the service itself gave may come here: an error page of a proxy has the proxy's time.
    pub fn observe_answer(&self, date_header_ms: i64, sent: Mono) {
        let received = mono_now();
        let at_least = date_header_ms.saturating_sub(self.host(received));
        let at_most =
            date_header_ms.saturating_add(DATE_WIDTH_MS).saturating_sub(self.host(sent.min(received)));
        let mut estimate = self.inner.estimate.lock();
        let present = self.inner.offset.load(Ordering::Acquire);
        match estimate.take(present, Sighting { at: received, at_least, at_most }) {
            Verdict::Agrees(offset) => {
                self.inner.offset.store(offset, Ordering::Release);
                self.inner.is_known.store(true, Ordering::Release);
                self.set_doubt(0, received);
            }
            Verdict::Doubt { off, lowest } => {
                self.inner.lowest.store(lowest, Ordering::Release);
                self.set_doubt(off.max(1), received);
            }
            Verdict::Nothing => {}
        }
        drop(estimate);
        if self.warning_is_due() {
            let offset_ms = self.inner.offset.load(Ordering::Acquire);
            tracing::warn!(
                offset_ms,
                endpoint = self.inner.name,
                "this host's clock is {} s {} the service's; record ages and start positions follow the service's clock",
                offset_ms.unsigned_abs() / 1000,
                if offset_ms > 0 { "behind" } else { "ahead of" },
            );
        }
    }

    /// The offset was stored before: a reader that sees no doubt sees the time that settled it.
    fn set_doubt(&self, off: u64, now: Mono) {
        self.inner.doubt.store(off, Ordering::Release);
        let mut doubted = self.inner.doubted.lock();
        let (since, told) = doubted.unwrap_or((now, false));
        if off == 0 {
            *doubted = None;
            if told {
                tracing::info!(endpoint = self.inner.name, "the service's clock is known again");
            }
            return;
        }
        let is_due = now.since(since).as_millis() >= u128::from(WARN_DOUBT_MS);
        *doubted = Some((since, told || is_due));
        if is_due && !told {
            tracing::warn!(
                endpoint = self.inner.name,
                off_by_ms = off,
                "the answers' Date headers contradict each other or the clock so far: until they agree nothing is \
                 discarded by age or retention; look for a proxy or a server whose clock is wrong"
            );
        }
    }

    /// Whether the correction has become large since it was last small.
    fn warning_is_due(&self) -> bool {
        let large = self.inner.offset.load(Ordering::Acquire).unsigned_abs() > WARN_BEYOND_MS;
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
    let awake = MONO_START_MS.saturating_add(millis(after)).saturating_sub(millis(before));
    Mono::from_millis(awake.saturating_add(crate::suspended::millis()))
}
