//! The reference state machine of lambda-esm.md, 2.13, as a recursion: what must be invoked and discarded, in order.

use crate::mapping::EventSourceMapping;
use crate::outcome::{ItemFailure, Outcome};

/// What the reference expects of one batch and its parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// The records of each invocation, and a number that is the same exactly for invocations of one request id.
    pub(super) invocations: Vec<(Vec<u64>, usize)>,
    /// The records and the invoke count of each discard.
    pub(super) discards: Vec<(Vec<u64>, u32)>,
    ids: usize,
}

impl Expected {
    /// Takes a batch through; `function` is told what it is invoked with.
    pub(super) fn process(
        &mut self,
        mapping: &EventSourceMapping,
        batch: &[u64],
        function: &mut impl FnMut(&[u64]) -> Outcome,
    ) {
        let mut batch = batch.to_vec();
        'batch: loop {
            self.ids += 1;
            let mut invokes = 0;
            loop {
                self.invocations.push((batch.clone(), self.ids));
                let outcome = function(&batch);
                if matches!(outcome, Outcome::NotReached { .. }) {
                    continue;
                }
                invokes += 1;
                let bisects = mapping.bisect_batch_on_function_error || outcome == Outcome::TooLarge;
                match first_failure(mapping, &batch, &outcome) {
                    None => return,
                    Some(0) => {}
                    Some(at) => {
                        batch.drain(..at);
                        continue 'batch;
                    }
                }
                if bisects && batch.len() > 1 {
                    let (left, right) = batch.split_at(batch.len() / 2);
                    self.process(mapping, left, function);
                    self.process(mapping, right, function);
                    return;
                }
                if mapping.maximum_retry_attempts.is_some_and(|maximum| invokes > maximum) {
                    self.discards.push((batch, invokes));
                    return;
                }
            }
        }
    }
}

/// The index of the first record that comes again.
fn first_failure(mapping: &EventSourceMapping, batch: &[u64], outcome: &Outcome) -> Option<usize> {
    let Outcome::Answered(answer) = outcome else { return Some(0) };
    if !mapping.report_batch_item_failures {
        return None;
    }
    let index = |failure: &ItemFailure| match failure {
        ItemFailure::Identifier(id) => batch.iter().position(|n| n.to_string() == *id).unwrap_or(0),
        ItemFailure::Unreadable => 0,
    };
    answer.failures().iter().map(index).min()
}
