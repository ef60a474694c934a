//! Which connection of HTTP/2 a call is made on.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::origins::{Origin, Origins};

/// A lane that could not be opened is tried again by one call after so long.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Shared {
    /// Calls under way on each lane.
    pub(super) in_flight: Mutex<Vec<usize>>,
    pub(super) origins: Arc<Origins>,
    pub(super) runtime: Arc<OnceLock<Handle>>,
}

/// The lanes that cannot be opened to a host. A call on them fails at once, so they would have the fewest calls and attract all
/// of them while the others are healthy.
#[derive(Debug, Default)]
pub(super) struct Unopened(Mutex<BTreeMap<usize, Instant>>);

impl Unopened {
    pub(super) fn add(&self, lane: usize) {
        self.0.lock().insert(lane, Instant::now() + AGAIN);
    }

    pub(super) fn remove(&self, lane: usize) {
        self.0.lock().remove(&lane);
    }
}

/// A call's place on the lane that had the fewest. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) lane: usize,
    shared: Arc<Shared>,
}

impl Place {
    pub(super) fn take(shared: &Arc<Shared>, origin: &Origin) -> Self {
        let mut in_flight = shared.in_flight.lock();
        let mut unopened = origin.unopened.0.lock();
        let now = Instant::now();
        let is_shunned = |lane| unopened.get(&lane).is_some_and(|again| *again > now);
        // The first of those that are equal: few calls need few connections.
        let fewest =
            in_flight.iter_mut().enumerate().min_by_key(|(lane, calls)| (is_shunned(*lane), **calls));
        let lane = fewest.map_or(0, |(lane, calls)| {
            *calls += 1;
            lane
        });
        if let Some(again) = unopened.get_mut(&lane) {
            // The others wait for what this one shows.
            *again = now + AGAIN;
        }
        Self { lane, shared: Arc::clone(shared) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.in_flight.lock()[self.lane] -= 1;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_types::body::SdkBody;

    use super::super::silence::{Rest, Silence};
    use super::*;

    pub(in super::super) fn three_lanes() -> (Arc<Shared>, Arc<Origin>) {
        let (in_flight, origins) = (Mutex::new(vec![0; 3]), Arc::<Origins>::default());
        let origin = origins.of("https://host.example/").unwrap();
        (Arc::new(Shared { in_flight, origins, runtime: Arc::default() }), origin)
    }

    #[test]
    fn a_call_takes_the_lane_with_the_fewest_until_its_body_is_dropped() {
        let (shared, origin) = three_lanes();
        let mut places: Vec<Place> = (0..7).map(|_| Place::take(&shared, &origin)).collect();
        let lanes: Vec<usize> = places.iter().map(|place| place.lane).collect();
        assert_eq!(lanes, [0, 1, 2, 0, 1, 2, 0]);
        // The call on lane 1 has ended, but for its body.
        let silence = Silence::watch(&mut HttpRequest::empty());
        let body = SdkBody::from_body_1_x(Rest::new(SdkBody::from("page"), silence, places.remove(1)));
        assert_eq!(*shared.in_flight.lock(), [3, 2, 2]);
        drop(body);
        assert_eq!(*shared.in_flight.lock(), [3, 1, 2]);
        assert_eq!(Place::take(&shared, &origin).lane, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_cannot_be_opened_is_tried_by_one_call_a_second_while_others_are_open() {
        let (shared, origin) = three_lanes();
        let take = || Place::take(&shared, &origin);
        origin.unopened.add(0);
        let places = [take(), take(), take(), take()];
        assert_eq!(places.each_ref().map(|place| place.lane), [1, 2, 1, 2]);
        tokio::time::advance(AGAIN).await;
        assert_eq!([take(), take()].each_ref().map(|place| place.lane), [0, 1]);
        let other = shared.origins.of("https://other.example/").unwrap();
        assert_eq!(Place::take(&shared, &other).lane, 0, "another host may be reached");
        origin.unopened.remove(0);
        assert_eq!(take().lane, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_spread_over_lanes_none_of_which_can_be_opened() {
        let (shared, origin) = three_lanes();
        (0..3).for_each(|lane| origin.unopened.add(lane));
        let places = [(); 4].map(|()| Place::take(&shared, &origin));
        assert_eq!(places.each_ref().map(|place| place.lane), [0, 1, 2, 0]);
    }
}
