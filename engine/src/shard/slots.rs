//! What became of the records at and above the first unresolved one, in little room: there may be very many.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::position::Seq;
use crate::time::Wall;

/// So many slots are kept for the next records when none is in use; more are freed.
const KEPT_SLOTS: usize = 1 << 12;

/// A record's position and when it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) seq: Seq,
    pub(super) arrival: Option<Wall>,
}

/// A record at or above the first unresolved one. The watermark can stop only where a resolved run ends, so only
/// there a position is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot<'a> {
    Unresolved,
    /// Resolved, and so is the next one.
    Inner,
    /// Resolved; the next one is not, or holds the watermark.
    End(&'a Mark),
}

const UNRESOLVED: u32 = 0;
const INNER: u32 = 1;
/// Codes from here on are places in `marks`.
const FIRST_MARK: u32 = 2;

/// Slots in order; four bytes each, and a position for each run of resolved ones.
#[derive(Clone, Default)]
pub(super) struct Slots {
    codes: VecDeque<u32>,
    marks: Vec<Mark>,
    /// Places in `marks` that are not in use.
    free: Vec<u32>,
    /// Bytes of the positions' texts.
    texts: usize,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> Option<Slot<'_>> {
        self.codes.get(index).map(|code| self.slot(*code))
    }

    fn slot(&self, code: u32) -> Slot<'_> {
        match code {
            UNRESOLVED => Slot::Unresolved,
            INNER => Slot::Inner,
            end => Slot::End(&self.marks[place(end)]),
        }
    }

    /// Adds unresolved slots until there are `len`.
    pub(super) fn grow(&mut self, len: usize) {
        if self.codes.len() < len {
            self.codes.resize(len, UNRESOLVED);
        }
    }

    /// The slot is resolved, and so is the next one.
    #[inline]
    pub(super) fn set_inner(&mut self, index: usize) {
        let code = std::mem::replace(&mut self.codes[index], INNER);
        self.take_mark(code);
    }

    /// The slot is resolved; the next one is not.
    #[inline]
    pub(super) fn set_end(&mut self, index: usize, mark: Mark) {
        self.take_mark(self.codes[index]);
        self.texts += text(&mark);
        self.codes[index] = match self.free.pop() {
            Some(code) => {
                self.marks[place(code)] = mark;
                code
            }
            None => {
                self.marks.push(mark);
                let last = u32::try_from(self.marks.len() - 1).expect("fewer runs than a machine can hold");
                FIRST_MARK + last
            }
        };
    }

    /// Removes the first slot if it is resolved, and returns its position if it ends a run.
    #[inline]
    pub(super) fn pop_resolved(&mut self) -> Option<Option<Mark>> {
        let code = self.codes.pop_front_if(|code| *code != UNRESOLVED)?;
        let mark = self.take_mark(code);
        if self.codes.is_empty() && self.codes.capacity() > KEPT_SLOTS {
            // A lane was stuck for long; the others need not remember it.
            *self = Self::default();
        }
        Some(mark)
    }

    fn take_mark(&mut self, code: u32) -> Option<Mark> {
        (code >= FIRST_MARK).then(|| {
            self.free.push(code);
            let none = Mark { seq: Seq::plain(String::new()), arrival: None };
            let mark = std::mem::replace(&mut self.marks[place(code)], none);
            self.texts -= text(&mark);
            mark
        })
    }

    /// Bytes that are in use.
    pub(super) fn held(&self) -> usize {
        let ends = self.marks.len() - self.free.len();
        self.codes.len() * size_of::<u32>() + ends * size_of::<Mark>() + self.texts
    }

    fn iter(&self) -> impl Iterator<Item = Slot<'_>> {
        self.codes.iter().map(|code| self.slot(*code))
    }
}

const fn place(code: u32) -> usize {
    (code - FIRST_MARK) as usize
}

fn text(mark: &Mark) -> usize {
    mark.seq.number.as_str().len()
}

impl PartialEq for Slots {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Slots {}

impl Hash for Slots {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        self.iter().for_each(|slot| slot.hash(state));
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(n: u64) -> Mark {
        Mark { seq: Seq::plain(format!("{n:056}")), arrival: None }
    }

    #[test]
    fn places_of_positions_are_used_again_and_equal_slots_are_equal_whatever_their_places() {
        let mut slots = Slots::default();
        slots.grow(4);
        slots.set_end(3, mark(3));
        slots.set_end(1, mark(1));
        slots.set_inner(3);
        slots.set_end(0, mark(0));
        slots.set_end(0, mark(7));
        let mut other = Slots::default();
        other.grow(4);
        other.set_end(0, mark(7));
        other.set_end(1, mark(1));
        assert_ne!(slots, other);
        other.set_end(3, mark(3));
        other.set_inner(3);
        let hash = |slots: &Slots| {
            let mut hasher = std::hash::DefaultHasher::new();
            slots.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!((&slots, hash(&slots)), (&other, hash(&other)));
        assert_eq!((slots.marks.len(), slots.get(2), slots.get(4)), (2, Some(Slot::Unresolved), None));
        assert_eq!(slots.held(), 4 * 4 + 2 * (size_of::<Mark>() + 56));
        assert_eq!([slots.pop_resolved(), slots.pop_resolved()], [Some(Some(mark(7))), Some(Some(mark(1)))]);
        assert_eq!((slots.pop_resolved(), slots.len(), slots.held()), (None, 2, 2 * 4), "2 is unresolved");
    }

    #[test]
    fn incident_75_room_for_very_many_is_freed_once_none_is_in_use() {
        let mut slots = Slots::default();
        slots.grow(100_000);
        (0..100_000).rev().for_each(|index| slots.set_end(index, mark(1)));
        while slots.pop_resolved().is_some() {}
        assert_eq!((slots.held(), slots.codes.capacity(), slots.marks.capacity()), (0, 0, 0));
    }
}
