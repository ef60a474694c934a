//! What is between a worker and the store, and between a worker and the stream.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

/// What may become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is refused: nothing happens, and the caller knows.
    Throttle,
    /// It happens, and the caller is told that it failed.
    LostAnswer,
    /// It never arrives and is never answered.
    Hang,
    /// It happens, and is never answered.
    HangAfter,
    /// It happens up to this much later, also if its caller has given up long before.
    Late(Duration),
    /// Its answer comes up to this much later.
    LateAnswer(Duration),
}

/// What becomes of one call.
pub(crate) struct Fate {
    /// How long until it is carried out.
    pub(crate) there: Duration,
    /// How long from then until it is answered.
    pub(crate) back: Duration,
    pub(crate) trouble: Option<Trouble>,
}

/// One process's way to a service. Cheap to clone; clones are the same way.
#[derive(Clone, Debug)]
pub(crate) struct Weather(Arc<Mutex<Inner>>);

/// So many percent of the calls meet this trouble until then.
#[derive(Clone, Copy, Debug)]
struct Spell {
    trouble: Trouble,
    percent: u32,
    until: Instant,
    /// Only calls of this name.
    only: Option<&'static str>,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    /// How long a call takes at most, each way, in milliseconds.
    latency: u64,
    spell: Option<Spell>,
    /// The process stands still until then: it sends nothing and hears nothing.
    paused: Instant,
    /// The process is dead.
    gone: bool,
}

impl Weather {
    pub(crate) fn new(rng: Rng, latency: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner { rng, latency, spell: None, paused: Instant::now(), gone: false })))
    }

    pub(crate) fn set(&self, trouble: Trouble, percent: u32, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.inner().spell = Some(Spell { trouble, percent, until, only: None });
    }

    /// Every call of one name meets the trouble.
    pub(crate) fn set_only(&self, only: &'static str, trouble: Trouble, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.inner().spell = Some(Spell { trouble, percent: 100, until, only: Some(only) });
    }

    pub(crate) fn pause(&self, lasts: Duration) {
        self.inner().paused = Instant::now() + lasts;
    }

    /// The process is dead: nothing more is sent.
    pub(crate) fn end(&self) {
        self.inner().gone = true;
    }

    pub(crate) fn clear(&self) {
        let mut inner = self.inner();
        inner.spell = None;
        inner.paused = Instant::now();
    }

    /// Waits for as long as the process stands still; for ever if it is dead.
    pub(crate) async fn runs(&self) {
        loop {
            let (gone, until) = {
                let inner = self.inner();
                (inner.gone, inner.paused)
            };
            if gone {
                std::future::pending::<()>().await;
            }
            if until <= Instant::now() {
                return;
            }
            // Faults may end earlier.
            tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(250))).await;
        }
    }

    /// What becomes of the call of this name that is made now.
    pub(crate) fn fate(&self, call: &str) -> Fate {
        let mut inner = self.inner();
        let concerns =
            |spell: &Spell| Instant::now() < spell.until && spell.only.is_none_or(|only| only == call);
        let spell = inner.spell.filter(concerns);
        let met = spell.filter(|spell| inner.rng.u32(0..100) < spell.percent);
        let latency = inner.latency;
        let mut fate = Fate {
            there: millis(&mut inner.rng, latency),
            back: millis(&mut inner.rng, latency),
            trouble: met.map(|met| met.trouble),
        };
        match fate.trouble {
            Some(Trouble::Late(most)) => fate.there += most.mul_f64(inner.rng.f64()),
            Some(Trouble::LateAnswer(most)) => fate.back += most.mul_f64(inner.rng.f64()),
            _ => {}
        }
        fate
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

fn millis(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(1..=most))
}
