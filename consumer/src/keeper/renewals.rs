//! Renewals: those that fall due while a call is under way share the next one.

use std::collections::BTreeMap;

use super::ticket::EntryId;

/// Renewals that wait, with what each expects of the store; one call at a time.
#[derive(Debug)]
pub(super) struct Renewals {
    /// By lease, with the counter to expect.
    due: BTreeMap<EntryId, u64>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Idle,
    UnderWay,
}

impl Renewals {
    pub(super) const fn new() -> Self {
        Self { due: BTreeMap::new(), state: State::Idle }
    }

    pub(super) fn ask(&mut self, entry: EntryId, counter: u64) {
        self.due.insert(entry, counter);
    }

    /// Takes a renewal back, because its lease is released or lost. Whether one was waiting: it is owed an answer.
    pub(super) fn withdraw(&mut self, entry: EntryId) -> bool {
        self.due.remove(&entry).is_some()
    }

    /// What to renew now; empty while a call is under way.
    pub(super) fn take(&mut self) -> BTreeMap<EntryId, u64> {
        match self.state {
            State::Idle => std::mem::take(&mut self.due),
            State::UnderWay => BTreeMap::new(),
        }
    }

    pub(super) const fn sent(&mut self) {
        self.state = State::UnderWay;
    }

    pub(super) const fn ended(&mut self) {
        self.state = State::Idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_that_fall_due_during_a_call_share_the_next_one() {
        let [a, b, c] = EntryId::examples();
        let mut renewals = Renewals::new();
        renewals.ask(a, 1);
        assert_eq!(renewals.take(), BTreeMap::from([(a, 1)]));
        renewals.sent();
        renewals.ask(b, 2);
        renewals.ask(c, 3);
        assert_eq!(renewals.take(), BTreeMap::new(), "one call at a time");
        renewals.ended();
        assert_eq!(renewals.take(), BTreeMap::from([(b, 2), (c, 3)]));
        assert_eq!(renewals.take(), BTreeMap::new());
    }

    #[test]
    fn a_renewal_can_be_taken_back_only_until_its_call_is_sent() {
        let [a, b, _] = EntryId::examples();
        let mut renewals = Renewals::new();
        renewals.ask(a, 1);
        renewals.ask(b, 1);
        assert!(renewals.withdraw(a));
        assert!(!renewals.withdraw(a), "nothing waits any more");
        assert_eq!(renewals.take(), BTreeMap::from([(b, 1)]));
        assert!(!renewals.withdraw(b));
    }
}
