//! What every destination passes.

use std::sync::Arc;

use async_trait::async_trait;
use shardmill_engine::{Batch, Record};

use crate::destination::{Destination, Discarded};

/// A place to deliver to, for one check.
#[async_trait]
pub trait DestinationCase: Send + Sync {
    /// The destination.
    fn destination(&self) -> Arc<dyn Destination>;

    /// Everything that arrived so far, in order, as the texts that it arrived in.
    async fn arrived(&self) -> Vec<String>;

    /// From now on deliveries fail, if `broken`; otherwise they succeed again.
    async fn set_broken(&self, broken: bool);
}

/// Runs every check, each on a case of its own.
///
/// # Panics
/// If the destination does not pass.
pub async fn run_all<C: DestinationCase>(mut case: impl AsyncFnMut() -> C) {
    a_delivery_that_is_done_has_arrived_with_its_positions(&case().await).await;
    a_delivery_that_fails_says_why_and_is_done_when_it_is_tried_again(&case().await).await;
    a_probe_delivers_nothing(&case().await).await;
    deliveries_at_the_same_time_all_arrive(&case().await).await;
}

fn discarded(number: &str) -> Discarded {
    Discarded::for_test(Batch::new(vec![Record::for_test(number, "an order")]).unwrap())
}

/// # Panics
/// If the destination does not pass.
pub async fn a_delivery_that_is_done_has_arrived_with_its_positions(case: &impl DestinationCase) {
    let destination = case.destination();
    for number in ["4901", "4902"] {
        destination.deliver(&discarded(number)).await.unwrap();
        let arrived = case.arrived().await;
        assert!(arrived.last().unwrap().contains(number), "{number} in {arrived:?}");
    }
    assert_eq!(case.arrived().await.len(), 2);
}

/// # Panics
/// If the destination does not pass.
pub async fn a_delivery_that_fails_says_why_and_is_done_when_it_is_tried_again(case: &impl DestinationCase) {
    let destination = case.destination();
    case.set_broken(true).await;
    let error = destination.deliver(&discarded("4901")).await.unwrap_err();
    assert!(!error.message.is_empty());
    case.set_broken(false).await;
    destination.deliver(&discarded("4901")).await.unwrap();
    assert!(case.arrived().await.iter().any(|text| text.contains("4901")));
}

/// # Panics
/// If the destination does not pass.
pub async fn a_probe_delivers_nothing(case: &impl DestinationCase) {
    let destination = case.destination();
    destination.probe().await.unwrap();
    assert_eq!(case.arrived().await, Vec::<String>::new());
    assert!(!destination.describe().is_empty());
}

/// # Panics
/// If the destination does not pass.
pub async fn deliveries_at_the_same_time_all_arrive(case: &impl DestinationCase) {
    let destination = case.destination();
    let numbers = ["4901", "4902", "4903", "4904"];
    let batches = numbers.map(discarded);
    let deliveries = batches.iter().map(|batch| destination.deliver(batch));
    for done in futures::future::join_all(deliveries).await {
        done.unwrap();
    }
    let arrived = case.arrived().await;
    for number in numbers {
        assert!(arrived.iter().any(|text| text.contains(number)), "{number} in {arrived:?}");
    }
}
