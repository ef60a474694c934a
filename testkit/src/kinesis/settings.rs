//! What a test sets for the whole service, or for a stream.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::FakeKinesis;
use crate::service::{FakeError, millis};

impl FakeKinesis {
    /// Sets how far the fake's clock is ahead of the host's (behind it, if negative), in ms.
    pub fn set_clock_offset(&self, ms: i64) {
        self.shared.offset_ms.store(ms, Ordering::Relaxed);
    }

    /// Sets how long an iterator is valid after it was given out; 5 minutes unless set.
    pub fn set_iterator_lifetime(&self, lifetime: Duration) {
        self.world().iterator_lifetime_ms = millis(lifetime);
    }

    /// Sets how long a `NextToken` is valid after it was given out; 5 minutes unless set.
    pub fn set_next_token_lifetime(&self, lifetime: Duration) {
        self.world().token_lifetime_ms = millis(lifetime);
    }

    /// Sets how many shards a listing gives at once at most, at least 1; 1,000 unless set.
    pub fn set_list_page_size(&self, shards: usize) {
        self.world().list_page_size = shards.max(1);
    }

    /// Sets whether shards throttle readers above 5 calls or 2 MiB a second, and after a page above 2 MiB until it is
    /// paid off at 2 MiB a second (docs/semantics.md, section 1.4). Off unless set.
    pub fn set_read_limits(&self, on: bool) {
        self.world().read_limits = on;
    }

    /// Sets whether the end of a closed shard comes as an empty page of its own, after the last records. Unless set,
    /// the page with the last records already has no `NextShardIterator`.
    pub fn set_separate_end_page(&self, on: bool) {
        self.world().separate_end_page = on;
    }

    /// Sets how far listings lag behind: `ListShards` and `DescribeStream` show the shards as they were so long ago, their
    /// children not yet there and themselves still open. Zero unless set.
    pub fn set_listing_lag(&self, lag: Duration) {
        self.world().listing_lag_ms = millis(lag);
    }

    /// Sets whether the end of a closed shard names its `ChildShards`. The service does, some emulators do not; on unless
    /// set.
    pub fn set_children_told(&self, on: bool) {
        self.world().tells_children = on;
    }

    /// Sets whether calls in CBOR are understood. The service does, some emulators answer `UnknownOperationException`; on
    /// unless set.
    pub fn set_cbor(&self, on: bool) {
        self.world().speaks_cbor = on;
    }

    /// Sets the retention of a stream; 24 hours unless set. Older records, and closed shards that have none left, vanish.
    ///
    /// # Errors
    /// The stream does not exist.
    pub fn set_retention(&self, stream: &str, retention: Duration) -> Result<(), FakeError> {
        self.with(stream, |s, _| {
            s.retention_ms = millis(retention);
            Ok(())
        })
    }
}
