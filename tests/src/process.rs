//! What the machine does to a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Measures for how long the machine kept this process from running. A limit that a requirement names holds for a
/// machine that runs its processes: what it withheld is added.
#[derive(Debug)]
pub struct Stalls {
    total: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Stalls {
    /// Starts to measure, on a thread of its own.
    #[must_use]
    pub fn watch() -> Self {
        let (total, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (sum, stopped) = (Arc::clone(&total), Arc::clone(&stop));
        std::thread::spawn(move || {
            let step = Duration::from_millis(5);
            while !stopped.load(Ordering::Relaxed) {
                let before = Instant::now();
                std::thread::sleep(step);
                let late = before.elapsed().saturating_sub(step);
                sum.fetch_add(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self { total, stop }
    }

    /// All that was withheld so far.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
