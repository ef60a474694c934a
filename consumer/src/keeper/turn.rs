//! One call at a time, and when the next one is due.

use shardmill_engine::Mono;

/// Whose turn it is: the clock's, or that of the call under way.
#[derive(Debug)]
pub(super) enum Turn {
    /// Not begun, or ended for good.
    Off,
    Due(Mono),
    UnderWay,
    /// Something changed while a call was under way: its answer may be older than the change.
    Outdated,
}

impl Turn {
    /// The next call is due then, the first one too.
    pub(super) const fn begin(&mut self, then: Mono) {
        if let Self::Off = self {
            *self = Self::Due(then);
        }
        self.soon(then);
    }

    /// Another call is due then, or when the one under way has ended; none before the first.
    pub(super) const fn soon(&mut self, then: Mono) {
        *self = match self {
            Self::Off => Self::Off,
            Self::Due(_) => Self::Due(then),
            Self::UnderWay | Self::Outdated => Self::Outdated,
        };
    }

    /// Whether to call now; marks the call as under way.
    pub(super) fn take(&mut self, now: Mono) -> bool {
        let due = self.wakes_at().is_some_and(|at| at <= now);
        if due {
            *self = Self::UnderWay;
        }
        due
    }

    /// The call under way has ended: `soon` is when to call again if something has changed meanwhile, `next` if not.
    pub(super) const fn ended(&mut self, soon: Mono, next: Mono) {
        *self = match self {
            Self::Off => Self::Off,
            Self::Outdated => Self::Due(soon),
            Self::Due(_) | Self::UnderWay => Self::Due(next),
        };
    }

    /// When [`take`](Self::take) may return more than now.
    pub(super) const fn wakes_at(&self) -> Option<Mono> {
        match self {
            Self::Due(at) => Some(*at),
            Self::Off | Self::UnderWay | Self::Outdated => None,
        }
    }
}
