//! Names a lease: account, region, stream and shard.

use std::fmt;
use std::sync::Arc;

use crate::record::ShardId;

/// What a lease is about. Opaque to a store: two keys are the same lease exactly if they are equal.
///
/// Account, region and creation epoch are part of it, so that two accounts, two regions or a stream that was deleted
/// and created again under its old name never share a checkpoint. Cheap to clone: every checkpoint carries one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// The AWS account that owns the stream, 12 digits.
    pub account: Arc<str>,
    /// The stream's region.
    pub region: Arc<str>,
    /// The stream's name, or the table's for a DynamoDB stream.
    pub stream: Arc<str>,
    /// What distinguishes this stream from an earlier one of the same name: the creation time in epoch seconds
    /// (Kinesis) or the stream label (DynamoDB).
    pub epoch: Arc<str>,
    /// The shard.
    pub shard: ShardId,
}

impl LeaseKey {
    /// The key of another shard of the same stream.
    #[must_use]
    pub fn sibling(&self, shard: ShardId) -> Self {
        Self { shard, ..self.clone() }
    }

    /// Whether both are about shards of the same stream.
    #[must_use]
    pub fn is_sibling_of(&self, other: &Self) -> bool {
        (&self.account, &self.region, &self.stream, &self.epoch)
            == (&other.account, &other.region, &other.stream, &other.epoch)
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}:{}", self.account, self.region, self.stream, self.epoch, self.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sibling_is_another_shard_of_the_same_stream() {
        let key = LeaseKey {
            account: "1".into(),
            region: "r".into(),
            stream: "s".into(),
            epoch: "e".into(),
            shard: "a".into(),
        };
        let sibling = key.sibling("b".into());
        assert_eq!((key.to_string(), sibling.to_string()), ("1:r:s:e:a".into(), "1:r:s:e:b".into()));
        assert!(key.is_sibling_of(&sibling) && key.is_sibling_of(&key));
        let others = [
            LeaseKey { account: "2".into(), ..key.clone() },
            LeaseKey { region: "q".into(), ..key.clone() },
            LeaseKey { stream: "t".into(), ..key.clone() },
            LeaseKey { epoch: "f".into(), ..key.clone() },
        ];
        assert!(others.iter().all(|other| !key.is_sibling_of(other)));
    }
}
