//! Which connection of HTTP/2 a call is made on.

use std::sync::{Arc, OnceLock};

use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::origins::Origins;

#[derive(Debug)]
pub(super) struct Shared {
    /// Calls under way on each lane.
    pub(super) in_flight: Mutex<Vec<usize>>,
    pub(super) origins: Arc<Origins>,
    pub(super) runtime: Arc<OnceLock<Handle>>,
}

/// A call's place on the lane that had the fewest. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) lane: usize,
    shared: Arc<Shared>,
}

impl Place {
    pub(super) fn take(shared: &Arc<Shared>) -> Self {
        let mut in_flight = shared.in_flight.lock();
        // The first of those that are equal: few calls need few connections.
        let fewest = in_flight.iter_mut().enumerate().min_by_key(|(_, calls)| **calls);
        let lane = fewest.map_or(0, |(lane, calls)| {
            *calls += 1;
            lane
        });
        Self { lane, shared: Arc::clone(shared) }
    }

    /// A body takes its time, too.
    pub(super) fn until_the_end_of(self, body: SdkBody) -> SdkBody {
        SdkBody::from_body_1_x(body.map_frame(move |frame| {
            let _until_the_body_is_dropped = &self;
            frame
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.in_flight.lock()[self.lane] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_the_lane_with_the_fewest_until_its_body_is_dropped() {
        let shared = Arc::new(Shared {
            in_flight: Mutex::new(vec![0; 3]),
            origins: Arc::default(),
            runtime: Arc::default(),
        });
        let mut places: Vec<Place> = (0..7).map(|_| Place::take(&shared)).collect();
        let lanes: Vec<usize> = places.iter().map(|place| place.lane).collect();
        assert_eq!(lanes, [0, 1, 2, 0, 1, 2, 0]);
        // The call on lane 1 has ended, but for its body.
        let body = places.remove(1).until_the_end_of(SdkBody::from("page"));
        assert_eq!(*shared.in_flight.lock(), [3, 2, 2]);
        drop(body);
        assert_eq!(*shared.in_flight.lock(), [3, 1, 2]);
        assert_eq!(Place::take(&shared).lane, 1);
    }
}
