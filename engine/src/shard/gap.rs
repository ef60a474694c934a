//! Records that were lost before they were read (I17).

use std::fmt;

use crate::position::{Position, Seq};
use crate::time::Wall;

/// Records of a shard that the stream no longer holds and that were never read (I17).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Gap {
    /// What is known of the loss.
    pub kind: GapKind,
    /// The last position before the gap.
    pub from: Position,
    /// The first record after it, once one was read.
    pub to: Option<Seq>,
    /// When it was noticed, by the service's clock.
    pub at: Wall,
}

/// How a gap was noticed, and so how certain it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapKind {
    /// The service refused the position because records after it are trimmed: they are lost.
    Trimmed,
    /// The position is older than the stream's retention: what arrived between the two is lost, if anything did.
    BeyondRetention,
    /// The shard itself is gone from the stream: what was left in it is lost, if anything was.
    ShardGone,
    /// A record could not be decoded and was skipped, as the mapping asks for.
    Undecodable,
}

impl GapKind {
    /// The kind as status and logs name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::BeyondRetention => "beyond_retention",
            Self::ShardGone => "shard_gone",
            Self::Undecodable => "undecodable",
        }
    }

    /// Whether records are lost for certain; otherwise they may be.
    #[must_use]
    pub const fn is_certain(self) -> bool {
        matches!(self, Self::Trimmed | Self::Undecodable)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            GapKind::Trimmed => write!(f, "records {} were trimmed before they were read", self.from),
            GapKind::BeyondRetention => write!(
                f,
                "the position {} is older than the stream's retention: records after it may have been trimmed unread",
                self.from
            ),
            GapKind::ShardGone => write!(
                f,
                "the shard is gone from the stream: records {} may have been trimmed unread",
                self.from
            ),
            GapKind::Undecodable => write!(f, "the record {} cannot be decoded and was skipped", self.from),
        }?;
        match &self.to {
            Some(to) => write!(f, "; reading resumed at {to}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i17_a_gap_says_what_is_lost_for_certain_and_what_may_be() {
        let gap = |kind, to: Option<&str>| {
            let from = Position::After(Seq::plain("7"));
            Gap { kind, from, to: to.map(Seq::plain), at: Wall::default() }.to_string()
        };
        let [trimmed, old, gone] = [GapKind::Trimmed, GapKind::BeyondRetention, GapKind::ShardGone];
        assert_eq!(gap(trimmed, None), "records after 7 were trimmed before they were read");
        assert_eq!(
            gap(trimmed, Some("9")),
            "records after 7 were trimmed before they were read; reading resumed at 9"
        );
        assert_eq!(
            gap(old, None),
            "the position after 7 is older than the stream's retention: records after it may have been trimmed unread"
        );
        assert_eq!(
            gap(gone, None),
            "the shard is gone from the stream: records after 7 may have been trimmed unread"
        );
        let skipped = Gap {
            kind: GapKind::Undecodable,
            from: Position::At(Seq::plain("7")),
            to: Some(Seq::plain("9")),
            at: Wall::default(),
        };
        let text = "the record at 7 cannot be decoded and was skipped; reading resumed at 9";
        assert_eq!(skipped.to_string(), text);
        assert!(skipped.kind.is_certain() && skipped.kind.as_str() == "undecodable");
        assert_eq!([trimmed, old, gone].map(GapKind::as_str), ["trimmed", "beyond_retention", "shard_gone"]);
        assert_eq!([trimmed, old, gone].map(GapKind::is_certain), [true, false, false]);
    }
}
