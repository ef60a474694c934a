//! Which lease, and which acquisition of it, an answer is about.

/// Which lease is meant. Never used again for another, so that a late answer finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId(pub(super) u64);

/// Which acquisition of which lease a write was made for: an answer that comes after the lease was lost and perhaps
/// acquired again says nothing about the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) entry: EntryId,
    pub(super) generation: u64,
}
