//! Many calls at the same time, and what became of each.

use futures::future::join_all;
use tokio::sync::Semaphore;

use super::error::{Failure, Reach};
use crate::Write;

/// Calls of one batch that are under way at the same time.
const CONCURRENT: usize = 32;

/// Makes the calls, so many at a time; the answers are in their order.
pub(crate) async fn in_turn<F: Future>(calls: Vec<F>) -> Vec<F::Output> {
    let turns = Semaphore::new(CONCURRENT);
    let turns = &turns;
    join_all(calls.into_iter().map(|call| async move {
        // The semaphore is never closed.
        let _turn = turns.acquire().await;
        call.await
    }))
    .await
}

/// One answer for each element; an error if one cause has failed them all.
pub(crate) fn each(writes: Vec<Result<Write, Failure>>) -> Result<Vec<Write>, Failure> {
    let is_everywhere = |failure: &Failure| matches!(failure.reach, Reach::Call | Reach::Setup);
    let failed_all = writes.iter().all(|write| write.as_ref().is_err_and(is_everywhere));
    let unknown = |failure: Failure| {
        if failed_all { Err(failure) } else { Ok(Write::Unknown { reason: failure.reason }) }
    };
    writes.into_iter().map(|write| write.or_else(unknown)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reach: Reach) -> Result<Write, Failure> {
        Err(Failure::new(reach, format!("{reach:?}")))
    }

    #[test]
    fn an_element_that_fails_alone_is_unknown_and_the_others_are_answered() {
        let done = || Ok(Write::Done { counter: 2 });
        let writes = each(vec![done(), failed(Reach::Throttled), failed(Reach::Call), done()]).unwrap();
        let unknown = |reason: &str| Write::Unknown { reason: reason.into() };
        assert_eq!(
            writes,
            [Write::Done { counter: 2 }, unknown("Throttled"), unknown("Call"), Write::Done { counter: 2 }]
        );
        assert_eq!(each(vec![failed(Reach::Throttled)]).unwrap(), [unknown("Throttled")]);
    }

    #[test]
    fn one_cause_that_fails_every_element_is_an_error_of_the_call() {
        let failure = each(vec![failed(Reach::Call), failed(Reach::Setup)]).unwrap_err();
        assert_eq!(failure.reach, Reach::Call);
        assert_eq!(each(vec![]).unwrap(), []);
    }
}
