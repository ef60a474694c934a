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

#[derive(Debug)]
struct Inner {
    rng: Rng,
    /// How many percent of the calls meet which trouble until when.
    spell: Option<(Trouble, u32, Instant)>,
    /// The process stands still until then: it sends nothing and hears nothing.
    paused: Instant,
    /// The process is dead.
    gone: bool,
}

impl Weather {
    pub(crate) fn new(rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(Inner { rng, spell: None, paused: Instant::now(), gone: false })))
    }

    pub(crate) fn set(&self, trouble: Trouble, percent: u32, lasts: Duration) {
        self.inner().spell = Some((trouble, percent, Instant::now() + lasts));
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

    /// What becomes of the call that is made now.
    pub(crate) fn fate(&self) -> Fate {
        let mut inner = self.inner();
        let spell = inner.spell.filter(|(_, _, until)| Instant::now() < *until);
        let met = spell.filter(|(_, percent, _)| inner.rng.u32(0..100) < *percent);
        let mut fate = Fate {
            there: millis(&mut inner.rng, 12),
            back: millis(&mut inner.rng, 12),
            trouble: met.map(|met| met.0),
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
