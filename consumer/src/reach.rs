//! Whether a function can be reached at present, and which shard tries it while it cannot (docs/adr/0020).

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long the function must not have answered any shard before a miss means that it is away. A single refused
/// connection of a function that answers others is that shard's own affair.
const SILENCE: Duration = Duration::from_secs(1);
/// When the function is tried first after a miss.
const FIRST_PROBE: Duration = Duration::from_millis(250);
/// How often it is tried from then on, by one shard for all.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Up to so much is added by chance.
const JITTER_MILLIS: u64 = 250;

/// What an invocation's end changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The function can no longer be reached.
    Away,
    /// The function answers again.
    Back {
        /// For how long it could not be reached.
        after: Duration,
    },
}

/// One function, as all shards that invoke it see it.
///
/// While it cannot be reached, one invocation after the other is let through to try it, at a constant interval, the one
/// that waits longest first; the first answer lets all others through at once.
#[derive(Debug)]
pub(crate) struct Reach {
    away: watch::Sender<bool>,
    state: Mutex<State>,
    /// Its holder is the next to try; the lock is fair.
    turn: tokio::sync::Mutex<()>,
    /// The next try may be made earlier than it was.
    earlier: Notify,
}

#[derive(Debug)]
struct State {
    /// When the function last gave any answer.
    answered: Option<Instant>,
    /// Since when it cannot be reached.
    since: Instant,
    next_probe: Instant,
}

impl Reach {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let state = State { answered: None, since: now, next_probe: now };
        Self {
            away: watch::Sender::new(false),
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            earlier: Notify::new(),
        }
    }

    /// Watches whether the function cannot be reached.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    pub(crate) fn is_away(&self) -> bool {
        *self.away.borrow()
    }

    /// An invocation that began at `started` got an answer, be it an error.
    pub(crate) fn answered(&self, started: Instant) -> Option<Change> {
        let now = Instant::now();
        let mut state = self.lock();
        state.answered = Some(now);
        // What the function had taken before it went away proves nothing about now.
        if !self.is_away() || started < state.since {
            return None;
        }
        self.away.send_replace(false);
        Some(Change::Back { after: now - state.since })
    }

    /// An invocation did not reach the function, which did not say why either.
    pub(crate) fn missed(&self) -> Option<Change> {
        let now = Instant::now();
        let mut state = self.lock();
        let answers_others = state.answered.is_some_and(|at| now - at < SILENCE);
        if answers_others || self.is_away() {
            return None;
        }
        state.since = now;
        state.next_probe = now + FIRST_PROBE;
        self.away.send_replace(true);
        Some(Change::Away)
    }

    /// Waits until the function may be tried: at once, unless it cannot be reached.
    pub(crate) async fn admitted(&self) {
        let mut away = self.watch();
        tokio::select! {
            biased;
            // The sender lives as long as this does.
            _ = away.wait_for(|away| !away) => {}
            () = self.my_turn() => {}
        }
    }

    /// The admitted invocation had nothing to try: the next one need not wait for the interval.
    pub(crate) fn unused(&self) {
        if self.is_away() {
            self.lock().next_probe = Instant::now();
            self.earlier.notify_one();
        }
    }

    async fn my_turn(&self) {
        let _turn = self.turn.lock().await;
        // Set anew if the function was there meanwhile and has gone again.
        loop {
            let at = self.lock().next_probe;
            if at <= Instant::now() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = self.earlier.notified() => {}
            }
        }
        let jitter = Duration::from_millis(fastrand::u64(0..=JITTER_MILLIS));
        self.lock().next_probe = Instant::now() + PROBE_INTERVAL + jitter;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn incident_101_one_try_an_interval_goes_through_and_an_answer_lets_all_others_through_at_once() {
        let (reach, through) = (Arc::new(Reach::new()), Arc::new(AtomicUsize::new(0)));
        assert_eq!(reach.missed(), Some(Change::Away));
        assert_eq!(reach.missed(), None, "once");
        for _ in 0..100 {
            let (reach, through) = (Arc::clone(&reach), Arc::clone(&through));
            tokio::spawn(async move {
                reach.admitted().await;
                through.fetch_add(1, Ordering::Relaxed);
            });
        }
        for second in 0..20 {
            let count = through.load(Ordering::Relaxed);
            assert!((second * 3 / 4..=second + 1).contains(&count), "{count} after {second} s");
            for _ in 0..10 {
                pass(Duration::from_millis(100)).await;
            }
        }
        assert!(matches!(reach.answered(Instant::now()), Some(Change::Back { .. })));
        pass(Duration::ZERO).await;
        assert_eq!(through.load(Ordering::Relaxed), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_answers_others_is_not_away() {
        let reach = Reach::new();
        assert_eq!(reach.answered(Instant::now()), None);
        assert_eq!(reach.missed(), None);
        assert!(reach.admitted().now_or_never().is_some());
        pass(SILENCE).await;
        assert_eq!(reach.missed(), Some(Change::Away));
        assert!(reach.admitted().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_what_was_invoked_before_the_outage_does_not_end_it() {
        let reach = Reach::new();
        let before = Instant::now();
        pass(Duration::from_secs(5)).await;
        assert_eq!(reach.missed(), Some(Change::Away));
        assert_eq!(reach.answered(before), None);
        assert!(reach.is_away());
        pass(Duration::from_secs(5)).await;
        let back = reach.answered(Instant::now());
        assert_eq!(back, Some(Change::Back { after: Duration::from_secs(5) }));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_have_nothing_left_to_try_hold_up_nobody() {
        let reach = Arc::new(Reach::new());
        reach.missed();
        for _ in 0..200 {
            let reach = Arc::clone(&reach);
            tokio::spawn(async move {
                reach.admitted().await;
                // What is asked for is used or given back a little later.
                tokio::task::yield_now().await;
                reach.unused();
            });
        }
        pass(Duration::ZERO).await;
        let mut real = Box::pin(reach.admitted());
        assert!((&mut real).now_or_never().is_none());
        for _ in 0..20 {
            pass(FIRST_PROBE / 20).await;
        }
        // The expired ones have passed one after the other.
        for _ in 0..20 {
            pass(Duration::ZERO).await;
        }
        assert!((&mut real).now_or_never().is_some());
        assert!(reach.admitted().now_or_never().is_none(), "that one tries it, and the next waits");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_leaves_the_turn_to_the_next() {
        let reach = Reach::new();
        reach.missed();
        let mut first = Box::pin(reach.admitted());
        let mut second = Box::pin(reach.admitted());
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(first);
        pass(FIRST_PROBE).await;
        assert!(second.now_or_never().is_some());
    }
}
