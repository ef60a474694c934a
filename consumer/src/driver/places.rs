//! The places that a shard's lanes asked for.

use futures::FutureExt;
use futures::future::BoxFuture;
use shardmill_engine::LaneId;

use super::Driver;
use super::actions::Done;
use crate::places::Place;

impl Driver {
    /// What the machine knows of the world outside of its shard.
    pub(super) fn refresh(&mut self) {
        self.machine.set_retention(self.cx.stream.listed.retention());
        self.machine.set_places(self.cx.places.rule());
    }

    pub(super) fn reserve(&self, lane: LaneId) -> BoxFuture<'static, Done> {
        let places = self.cx.places.clone();
        async move { Done::Granted(lane, places.place().await) }.boxed()
    }

    /// The place that was granted to this lane, if it asked for one.
    pub(super) fn take_place(&mut self, lane: LaneId) -> Option<Place> {
        let at = self.granted.iter().position(|(granted, _)| *granted == lane)?;
        Some(self.granted.swap_remove(at).1)
    }

    /// There was nothing left to invoke.
    pub(super) fn give_back(&mut self, lane: LaneId) {
        if self.take_place(lane).is_some() {
            self.cx.places.unused();
        }
    }

    /// Gives back every place that was granted: the run is over.
    pub(super) fn leave_places(&mut self) {
        if !self.granted.is_empty() {
            self.granted.clear();
            self.cx.places.unused();
        }
    }
}
