//! Writes what the ledger decides, and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use shardmill_engine::{RequestId, Seq, ShardId};

use super::{Holder, Lasts, Ledger, Over, Say, TroubleKind, TroubleReport};
use crate::clock::ServiceClock;
use crate::metrics;

/// The longest part of an error's text in a line, in characters.
const SHOWN: usize = 200;

/// What a line shows of the batch that failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) request_id: Option<RequestId>,
    pub(crate) from: Option<Seq>,
    pub(crate) to: Option<Seq>,
    pub(crate) records: Option<usize>,
    pub(crate) error: String,
}

/// The trouble of one mapping, shared by its shards.
#[derive(Debug)]
pub(crate) struct Troubles {
    mapping: Arc<str>,
    clock: ServiceClock,
    ledger: Mutex<Ledger>,
    /// Invocations that did not reach the function.
    not_reached: AtomicU64,
    /// So that an invocation that reached the function need not lock.
    is_unreached: AtomicBool,
}

impl Troubles {
    pub(crate) fn new(mapping: Arc<str>, clock: ServiceClock) -> Self {
        Self {
            mapping,
            clock,
            ledger: Mutex::default(),
            not_reached: AtomicU64::new(0),
            is_unreached: AtomicBool::new(false),
        }
    }

    pub(crate) const fn clock(&self) -> &ServiceClock {
        &self.clock
    }

    /// Something failed; whether it was logged with this shard's name.
    pub(crate) fn fails(&self, kind: TroubleKind, holder: &Holder, facts: &Facts) -> bool {
        let now = self.clock.now();
        if kind.is_functions_absence() && *holder != Holder::Probe {
            self.not_reached.fetch_add(1, Ordering::Relaxed);
        }
        let error = brief(&facts.error);
        let say = {
            let mut ledger = self.lock();
            let say = ledger.fails(now.mono, now.wall, kind, holder, &error);
            self.note(&ledger, kind);
            say
        };
        let text = match say {
            Say::Nothing => return false,
            Say::Begins => begins(kind).to_owned(),
            Say::ComesAndGoes => format!(
                "{}; this comes and goes, and is reported again after five calm minutes, or when it lasts for one",
                begins(kind)
            ),
        };
        self.warn(kind, holder.shard(), facts, &error, &text);
        true
    }

    fn warn(&self, kind: TroubleKind, shard: Option<&ShardId>, facts: &Facts, error: &str, text: &str) {
        tracing::warn!(
            mapping = %self.mapping, kind = kind.as_str(), shard = shard.map(tracing::field::display),
            request_id = facts.request_id.map(tracing::field::display), from = facts.from.as_ref().map(tracing::field::display),
            to = facts.to.as_ref().map(tracing::field::display), records = facts.records, error,
            "{text}"
        );
    }

    /// A lane has tried its batch for long without success.
    pub(crate) fn blocks(&self, holder: &Holder, is_named: bool, facts: &Facts) {
        let now = self.clock.now().mono;
        let names = {
            let mut ledger = self.lock();
            let names = ledger.blocks(now, holder, is_named);
            metrics::troubled(&self.mapping, TroubleKind::Blocked, ledger.blocked());
            names
        };
        if names {
            let text = "the shard is blocked: a batch has been tried for a minute without success";
            self.warn(TroubleKind::Blocked, holder.shard(), facts, &brief(&facts.error), text);
        }
    }

    /// A lane makes progress.
    pub(crate) fn unblocks(&self, holder: &Holder) {
        let (now, since) = {
            let mut ledger = self.lock();
            let since = ledger.unblocks(holder);
            metrics::troubled(&self.mapping, TroubleKind::Blocked, ledger.blocked());
            (self.clock.now().mono, since)
        };
        if let Some(since) = since {
            let shard = holder.shard().map(tracing::field::display);
            let lasted = (now.since(since) + super::BLOCKED_AFTER).as_secs();
            let text = ends(TroubleKind::Blocked);
            tracing::info!(mapping = %self.mapping, kind = "blocked", shard, lasted_seconds = lasted, "{text}");
        }
    }

    /// This holder is out of this kind of trouble.
    pub(crate) fn clears(&self, kind: TroubleKind, holder: &Holder) {
        self.change(kind, |ledger, now| ledger.clears(now, kind, holder));
    }

    /// An invocation has reached the function: the others that wait for it will.
    pub(crate) fn reaches(&self) {
        if self.is_unreached.load(Ordering::Relaxed) {
            let kind = TroubleKind::NotReached;
            self.change(kind, |ledger, now| ledger.clears_all(now, kind));
        }
    }

    fn change(
        &self,
        kind: TroubleKind,
        change: impl FnOnce(&mut Ledger, shardmill_engine::Mono) -> Option<Over>,
    ) {
        let now = self.clock.now().mono;
        let over = {
            let mut ledger = self.lock();
            let over = change(&mut ledger, now);
            self.note(&ledger, kind);
            over
        };
        self.tell(over, ends);
    }

    /// Logs trouble that came and went and has been calm for long enough.
    pub(crate) fn tick(&self) {
        let now = self.clock.now().mono;
        let (calm, lasts) = {
            let mut ledger = self.lock();
            let (calm, lasts) = (ledger.calms(now), ledger.lasts_again(now));
            // A recorder may forget what is not touched for long.
            for trouble in ledger.report() {
                self.note(&ledger, trouble.kind);
            }
            if ledger.blocked() > 0 {
                metrics::troubled(&self.mapping, TroubleKind::Blocked, ledger.blocked());
            }
            (calm, lasts)
        };
        self.tell(calm, ends);
        for Lasts { kind, shard, message } in lasts {
            let text = format!("for a minute without a pause: {}", begins(kind));
            self.warn(kind, shard.as_ref(), &Facts::default(), &message, &text);
        }
    }

    /// This worker no longer reads the shard. Only the end of trouble that was logged is logged: why it left is
    /// reported elsewhere.
    pub(crate) fn leaves(&self, shard: &ShardId) {
        let now = self.clock.now().mono;
        let over = {
            let mut ledger = self.lock();
            let before: Vec<TroubleKind> = ledger.kinds().collect();
            let over = ledger.leaves(now, shard);
            for kind in before {
                self.note(&ledger, kind);
            }
            metrics::troubled(&self.mapping, TroubleKind::Blocked, ledger.blocked());
            over
        };
        self.tell(over, |_| "the shards that were in this trouble are no longer read here");
    }

    fn tell(&self, over: impl IntoIterator<Item = Over>, ends: impl Fn(TroubleKind) -> &'static str) {
        for Over { kind, lasted, failures, lanes } in over {
            tracing::info!(
                mapping = %self.mapping, kind = kind.as_str(), lasted_seconds = lasted.as_secs(), failures, lanes,
                "{}", ends(kind)
            );
        }
    }

    fn note(&self, ledger: &Ledger, kind: TroubleKind) {
        metrics::troubled(&self.mapping, kind, ledger.lanes(kind));
        if kind == TroubleKind::NotReached {
            self.is_unreached.store(ledger.lasts(kind), Ordering::Relaxed);
        }
    }

    /// What lasts.
    pub(crate) fn report(&self) -> Vec<TroubleReport> {
        self.lock().report()
    }

    /// Invocations that did not reach the function, since the start.
    pub(crate) fn not_reached(&self) -> u64 {
        self.not_reached.load(Ordering::Relaxed)
    }

    /// Blocked lanes, and what lasts, for the minute's line: `function_error=2 reading=1`.
    pub(crate) fn summary(&self) -> (usize, Option<String>) {
        let ledger = self.lock();
        let lasting = ledger.report();
        let shown = lasting.iter().filter(|trouble| trouble.lanes > 0);
        let parts: Vec<String> =
            shown.map(|trouble| format!("{}={}", trouble.kind.as_str(), trouble.lanes)).collect();
        (ledger.blocked(), (!parts.is_empty()).then(|| parts.join(" ")))
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }
}

/// The beginning of an error's text, on one line.
pub(super) fn brief(text: &str) -> String {
    let mut line: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line
}

const fn begins(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::NotReached => {
            "the function is not reached; trying again until it is, no attempt is spent"
        }
        TroubleKind::Throttled => {
            "the function takes no invocation now; trying again when it may, no attempt is spent"
        }
        TroubleKind::FunctionError => "the function fails; its batch is retried according to the mapping",
        TroubleKind::Timeout => "the function does not answer within its timeout; its batch is retried",
        TroubleKind::Crash => "the function crashed; its batch is retried",
        TroubleKind::TooLarge => "the event of a record is larger than the function takes; it is retried",
        TroubleKind::UnusableAnswer => "the function's answer cannot be used; its whole batch is retried",
        TroubleKind::NoState => "the function's answer has no window state; its batch is retried",
        TroubleKind::PartialFailure => {
            "the function reports the same record as failed again and again; what follows it waits"
        }
        TroubleKind::Blocked => "the shard is blocked",
        TroubleKind::Reading => "reading the shard fails; trying again until it succeeds",
        TroubleKind::Destination => {
            "the on-failure destination did not take a batch; retrying according to OnDestinationFailure"
        }
    }
}

const fn ends(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::NotReached => "the function is reached again",
        TroubleKind::Throttled => "the function takes invocations again",
        TroubleKind::FunctionError => "the function no longer fails",
        TroubleKind::Timeout => "the function answers in time again",
        TroubleKind::Crash => "the function no longer crashes",
        TroubleKind::TooLarge => "no record is too large any more",
        TroubleKind::UnusableAnswer => "the function's answers can be used again",
        TroubleKind::NoState => "the function's answers have their window state again",
        TroubleKind::PartialFailure => "what the function reported as failed has succeeded or was discarded",
        TroubleKind::Blocked => "the shard makes progress again",
        TroubleKind::Reading => "the shards can be read again",
        TroubleKind::Destination => "the on-failure destination takes batches again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errors_text_is_cut_and_stays_on_one_line() {
        let text = brief(&format!("a\nb\u{1b}[31m{}", "ä".repeat(1000)));
        assert!(text.starts_with("a b [31m") && text.ends_with("ä…"), "{text}");
        assert_eq!(text.chars().count(), SHOWN + 1);
        assert_eq!(brief("short"), "short");
    }
}
