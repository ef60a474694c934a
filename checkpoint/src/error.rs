//! Why a store call failed.

/// Why a lease store could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store did not answer, was busy, or is out of space: the same call may succeed later. The write may have
    /// happened.
    #[error("the checkpoint store {store} is unavailable: {reason}")]
    Unavailable {
        /// The store, as [`LeaseStore::describe`](crate::LeaseStore::describe) names it.
        store: String,
        /// What happened and what to do.
        reason: String,
        /// The underlying error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The store cannot be used as it is: a newer schema, a corrupt file, a path that cannot be opened.
    #[error("the checkpoint store {store} cannot be used: {reason}")]
    Unusable {
        /// The store, as [`LeaseStore::describe`](crate::LeaseStore::describe) names it.
        store: String,
        /// What is wrong and what to do.
        reason: String,
        /// The underlying error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The call itself asks for what no store holds, so nothing was written: a checkpoint at `LATEST`, a sequence
    /// number with other characters than digits, an empty worker name.
    #[error("the checkpoint store {store} refuses the call: {reason}")]
    Invalid {
        /// The store, as [`LeaseStore::describe`](crate::LeaseStore::describe) names it.
        store: String,
        /// What is wrong with the call.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without intervention.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
