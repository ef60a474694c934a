//! What a run is made of. Times are milliseconds since the beginning of the first run; arrivals and windows are on the
//! service's clock, which reads `Rules::wall` at that moment.

use bytes::Bytes;

/// The configuration, as far as it decides what is invoked.
#[derive(Clone, Debug)]
pub(in super::super) struct Rules {
    pub(in super::super) batch_size: usize,
    pub(in super::super) batching_window: u64,
    pub(in super::super) retries: Option<u32>,
    pub(in super::super) bisect: bool,
    pub(in super::super) partial: bool,
    pub(in super::super) age: Option<u64>,
    pub(in super::super) tumbling: Option<i64>,
    pub(in super::super) payload_limit: Option<usize>,
    pub(in super::super) lanes: usize,
    /// The wait before every retry.
    pub(in super::super) backoff: u64,
    /// The encoded event's size without its records and the commas between them.
    pub(in super::super) envelope: usize,
    /// The service's clock at time 0.
    pub(in super::super) wall: i64,
}

impl Default for Rules {
    /// Lambda's defaults.
    fn default() -> Self {
        Self {
            batch_size: 100,
            batching_window: 0,
            retries: None,
            bisect: false,
            partial: false,
            age: None,
            tumbling: None,
            payload_limit: None,
            lanes: 1,
            backoff: 200,
            envelope: 14,
            wall: 0,
        }
    }
}

impl Rules {
    pub(super) fn wall_at(&self, at: u64) -> i64 {
        self.wall + i64::try_from(at).unwrap()
    }

    /// When a record's age first exceeds the maximum; `None` if it never does.
    pub(super) fn expiry(&self, record: &Rec) -> Option<u64> {
        let (age, arrival) = (self.age?, record.arrival?);
        let at = arrival + i64::try_from(age).unwrap() + 1 - self.wall;
        Some(u64::try_from(at).unwrap_or(0))
    }

    pub(super) fn is_expired(&self, record: &Rec, now: u64) -> bool {
        self.expiry(record).is_some_and(|at| at <= now)
    }

    /// Whether the event of these records is larger than it may be.
    pub(super) fn is_too_large(&self, records: &[Rec]) -> bool {
        let sizes: usize = records.iter().map(|record| record.size).sum();
        let event = self.envelope + sizes + records.len().saturating_sub(1);
        self.payload_limit.is_some_and(|limit| event > limit)
    }
}

/// A record of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Rec {
    /// The sequence number.
    pub(in super::super) n: u64,
    pub(in super::super) lane: usize,
    pub(in super::super) arrival: Option<i64>,
    /// Bytes in the encoded event.
    pub(in super::super) size: usize,
    /// The filter removes it.
    pub(in super::super) filtered: bool,
}

impl Rec {
    pub(in super::super) const fn new(n: u64) -> Self {
        Self { n, lane: 0, arrival: Some(0), size: 300, filtered: false }
    }
}

/// What one read brings, and when.
#[derive(Clone, Debug)]
pub(in super::super) struct Page {
    /// When the read began.
    pub(in super::super) asked: u64,
    pub(in super::super) at: u64,
    pub(in super::super) records: Vec<Rec>,
    /// Whether nothing newer is in the shard.
    pub(in super::super) is_tip: bool,
    /// Whether the shard is closed and this was all.
    pub(in super::super) is_end: bool,
}

/// What an invocation says of its tumbling window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct WindowSeen {
    pub(in super::super) start: i64,
    pub(in super::super) end: i64,
    pub(in super::super) state: Bytes,
    pub(in super::super) is_final: bool,
    pub(in super::super) is_early: bool,
}

/// One invocation, as the function sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Call {
    pub(in super::super) at: u64,
    pub(in super::super) lane: usize,
    pub(in super::super) records: Vec<u64>,
    /// The same records of the same window were invoked as often in this run, this time included.
    pub(in super::super) nth: u32,
    pub(in super::super) window: Option<WindowSeen>,
}

/// How an invocation ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Answer {
    /// The function returned, and named these records (R36); a number that is not in the batch fails all of it.
    Returned {
        failures: Vec<u64>,
        state: Option<Bytes>,
    },
    Error,
    TooLarge,
    NotReached {
        retry_after: Option<u64>,
    },
}

/// An answer and the time that it takes.
#[derive(Clone, Debug)]
pub(in super::super) struct Reply {
    pub(in super::super) after: u64,
    pub(in super::super) answer: Answer,
}

impl Answer {
    pub(in super::super) const fn good() -> Self {
        Self::Returned { failures: Vec::new(), state: None }
    }

    pub(in super::super) const fn failed(failures: Vec<u64>) -> Self {
        Self::Returned { failures, state: None }
    }

    pub(in super::super) fn state(text: &str) -> Self {
        Self::Returned { failures: Vec::new(), state: Some(Bytes::copy_from_slice(text.as_bytes())) }
    }
}
