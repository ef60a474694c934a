//! Whether the store does what it is asked: trouble begins with the first call that fails, and has ended once reads and
//! writes succeed and nothing has failed for a while.

use std::time::Duration;

use shardmill_checkpoint::{StoreError, Write};
use shardmill_engine::{Mono, Now};

use crate::error_report::ErrorReport;

/// After so long without a failure the store counts as answering again. One that fails now and then is in trouble all
/// the time.
const QUIET: Duration = Duration::from_secs(5);
/// The least time after which trouble is over although nothing of the kind that failed was retried: another worker may
/// have taken all there was to write for.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What a call to the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// What the end of a call shows about the store.
#[derive(Debug)]
pub(super) enum Answer {
    Did(Access),
    Failed(Access, String),
    /// A refusal writes nothing, so it does not show that a full disk has space again.
    Nothing,
}

impl Answer {
    pub(super) fn of_read<T>(result: &Result<T, StoreError>) -> Self {
        result.as_ref().map_or_else(|error| Self::failed(Access::Read, error), |_| Self::Did(Access::Read))
    }

    /// Of a call that wrote something if it `wrote`.
    pub(super) fn of_write<T>(result: &Result<T, StoreError>, wrote: impl FnOnce(&T) -> bool) -> Self {
        match result {
            Ok(answer) if wrote(answer) => Self::Did(Access::Write),
            Ok(_) => Self::Nothing,
            Err(error) => Self::failed(Access::Write, error),
        }
    }

    pub(super) fn of_one(result: &Result<Write, StoreError>) -> Self {
        Self::of_write(result, is_done)
    }

    pub(super) fn of_many(result: &Result<Vec<Write>, StoreError>) -> Self {
        let unknown = |write: &Write| match write {
            Write::Unknown { reason } => Some(reason.clone()),
            Write::Done { .. } | Write::Refused { .. } => None,
        };
        match result.as_ref().ok().and_then(|writes| writes.iter().find_map(unknown)) {
            Some(reason) => Self::Failed(Access::Write, reason),
            None => Self::of_write(result, |writes| writes.iter().any(is_done)),
        }
    }

    fn failed(access: Access, error: &StoreError) -> Self {
        match error {
            // The call was wrong, not the store.
            StoreError::Invalid { .. } => Self::Nothing,
            error => Self::Failed(access, error.to_string()),
        }
    }
}

fn is_done(write: &Write) -> bool {
    matches!(write, Write::Done { .. })
}

/// What the keeper knows of the store's trouble.
#[derive(Debug)]
pub(super) struct StoreTrouble {
    forgotten: Duration,
    now: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Now,
    last: Mono,
    message: String,
    failures: u64,
    reads_fail: bool,
    writes_fail: bool,
}

/// Trouble that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) lasted: Duration,
    pub(super) failures: u64,
}

impl StoreTrouble {
    /// For leases of this length: what fails is retried within a third of it.
    pub(super) fn new(lease: Duration) -> Self {
        Self { forgotten: FORGOTTEN.max(lease / 2), now: None }
    }

    /// Takes a call's end in; whether trouble begins with it.
    pub(super) fn note(&mut self, now: Now, answer: Answer) -> bool {
        match answer {
            Answer::Failed(access, message) => {
                let begins = self.now.is_none();
                let trouble = self.now.get_or_insert_with(|| Trouble {
                    since: now,
                    last: now.mono,
                    message: String::new(),
                    failures: 0,
                    reads_fail: false,
                    writes_fail: false,
                });
                trouble.last = now.mono;
                trouble.message = message;
                trouble.failures += 1;
                *trouble.of(access) = true;
                begins
            }
            Answer::Did(access) => {
                if let Some(trouble) = &mut self.now {
                    *trouble.of(access) = false;
                }
                false
            }
            Answer::Nothing => false,
        }
    }

    /// Whether trouble has ended by now.
    pub(super) fn poll(&mut self, now: Mono) -> Option<Ended> {
        let trouble = self.now.as_ref()?;
        let silence = now.since(trouble.last);
        let works = !trouble.reads_fail && !trouble.writes_fail && silence >= QUIET;
        // Leases are listed all the time, so that a store that is away keeps failing.
        let is_forgotten = !trouble.reads_fail && silence >= self.forgotten;
        if !works && !is_forgotten {
            return None;
        }
        let ended = Ended { lasted: now.since(trouble.since.mono), failures: trouble.failures };
        self.now = None;
        Some(ended)
    }

    /// Human-readable: the latest failure, and since when the store fails.
    pub(super) fn report(&self) -> Option<ErrorReport> {
        self.now.as_ref().map(|trouble| ErrorReport {
            what: "checkpoint store".to_owned(),
            message: trouble.message.clone(),
            at: Some(trouble.since.wall),
        })
    }
}

impl Trouble {
    fn of(&mut self, access: Access) -> &mut bool {
        match access {
            Access::Read => &mut self.reads_fail,
            Access::Write => &mut self.writes_fail,
        }
    }
}

#[cfg(test)]
mod tests {
    use shardmill_engine::Wall;

    use super::*;

    fn at(seconds: u64) -> Now {
        let millis = seconds * 1000;
        Now { mono: Mono::from_millis(millis), wall: Wall::from_millis(i64::try_from(millis).unwrap()) }
    }

    fn failed(access: Access) -> Answer {
        Answer::Failed(access, "the disk is full".to_owned())
    }

    fn trouble() -> StoreTrouble {
        StoreTrouble::new(Duration::from_secs(10))
    }

    #[test]
    fn incident_89_a_store_that_can_be_read_and_not_written_does_not_answer_again() {
        let mut trouble = trouble();
        assert!(trouble.note(at(0), failed(Access::Write)), "trouble begins");
        for second in 0..50 {
            assert!(!trouble.note(at(second), Answer::Did(Access::Read)));
            assert!(!trouble.note(at(second), Answer::Nothing), "a refusal writes nothing");
            assert_eq!(trouble.poll(at(second).mono), None);
        }
        let report = trouble.report().unwrap();
        assert_eq!((report.message.as_str(), report.at), ("the disk is full", Some(at(0).wall)));
        trouble.note(at(50), Answer::Did(Access::Write));
        assert_eq!(trouble.poll(at(50).mono), Some(Ended { lasted: Duration::from_secs(50), failures: 1 }));
        assert_eq!(trouble.report(), None);
    }

    #[test]
    fn incident_89_a_store_that_fails_now_and_then_is_in_trouble_once_until_it_has_been_quiet() {
        let mut trouble = trouble();
        let (mut begun, mut ended) = (0, 0);
        for tenth in 0..300 {
            let now = Now { mono: Mono::from_millis(tenth * 100), ..at(0) };
            let answer = if tenth % 3 == 0 { failed(Access::Write) } else { Answer::Did(Access::Write) };
            begun += u32::from(trouble.note(now, answer));
            ended += u32::from(trouble.poll(now.mono).is_some());
        }
        assert_eq!((begun, ended), (1, 0));
        trouble.note(at(31), Answer::Did(Access::Write));
        assert_eq!(trouble.poll(at(34).mono), None);
        assert_eq!(trouble.poll(at(35).mono).map(|ended| ended.failures), Some(100));
    }

    #[test]
    fn a_worker_that_has_nothing_to_write_any_more_does_not_call_the_store_ill_for_ever() {
        let mut trouble = trouble();
        trouble.note(at(0), failed(Access::Write));
        trouble.note(at(1), Answer::Did(Access::Read));
        assert_eq!(trouble.poll(at(59).mono), None);
        assert!(trouble.poll(at(60).mono).is_some());
        trouble.note(at(70), failed(Access::Read));
        assert_eq!(trouble.poll(at(1000).mono), None, "it is asked all the time");
    }
}
