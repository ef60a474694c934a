//! Which other applications have positions of a stream.

/// Another application of the same store that has leases of a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherApplication {
    /// The application's name.
    pub name: String,
    /// The stream's epoch, as in [`LeaseKey`](shardmill_engine::LeaseKey).
    pub epoch: String,
    /// How many leases it has of it.
    pub leases: usize,
}
