//! A tumbling window as its function sees it (R65).

use bytes::Bytes;

use crate::time::Wall;

/// The window of an invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WindowCall {
    /// Where the window begins: a multiple of its length since the epoch, inclusive (R64).
    pub start: Wall,
    /// Where it ends, exclusive.
    pub end: Wall,
    /// What the last invocation of this window answered as `state`, as the text of a JSON object; `{}` at first (R66).
    pub state: Bytes,
    /// Whether this is the window's last invocation, without records (R67).
    pub is_final: bool,
    /// Whether it is the last one because the state grew too large (R68).
    pub is_terminated_early: bool,
}
