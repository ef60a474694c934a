//! The right of a lane to invoke the function, where it must ask for it (docs/adr/0020).

use super::{Lane, LaneState, Reason, Rules, Step};

/// Whether a lane needs a place before it may invoke the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PlaceRule {
    /// No: it invokes at once.
    #[default]
    Unlimited,
    /// Yes: so many invocations at once and no more. Waiting for a place spends no attempt and has no backoff; the
    /// records' age and the event's size are judged, and the function's time begins, when the place is granted.
    Limited,
    /// Yes, and the function cannot be reached at present: the caller decides when it is tried again by granting
    /// places, so that no lane has a backoff of its own.
    Away,
}

/// The state of a lane's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// It has none and asked for none.
    #[default]
    None,
    /// It waits for one.
    Asked,
    /// It has one for its next invocation.
    Granted,
    /// It has one, and has taken the batch that was due: what comes after that is due in its own time.
    Taken,
}

impl Lane {
    pub(super) fn needs_place(&self, rules: &Rules<'_>) -> bool {
        match self.place {
            Place::None => rules.places != PlaceRule::Unlimited,
            Place::Asked => true,
            Place::Granted | Place::Taken => false,
        }
    }

    /// Asks for a place, once.
    pub(super) fn ask(&mut self) -> Option<Step> {
        let asks = self.place == Place::None;
        self.place = Place::Asked;
        asks.then_some(Step::Reserve)
    }

    /// The place that was asked for is there.
    pub(in crate::shard) fn granted(&mut self) {
        if self.place == Place::Asked {
            self.place = Place::Granted;
        }
    }

    /// The batch that the place was asked for is taken out of the queue.
    pub(super) fn takes(&mut self) {
        if self.place == Place::Granted {
            self.place = Place::Taken;
        }
    }

    /// Whether a place that was granted is not used and must be given back.
    pub(in crate::shard) fn gives_back(&mut self) -> bool {
        let has = matches!(self.place, Place::Granted | Place::Taken);
        if has {
            self.place = Place::None;
        }
        has
    }

    /// The function cannot be reached: the caller decides when it is tried again by granting places.
    pub(in crate::shard) fn leave_wait(&mut self) {
        if matches!(self.state, LaneState::Waiting { reason: Reason::Function, .. }) {
            self.state = LaneState::Ready;
            self.misses = 0;
        }
    }
}
