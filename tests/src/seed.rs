//! Chance that can be had again.

use std::time::{SystemTime, UNIX_EPOCH};

/// A random number generator whose seed is printed: what a failed test shows. `SHARDMILL_TEST_SEED` sets it.
///
/// What the machine does in between is not repeated with it, so a failure may need several runs to recur.
#[must_use]
pub fn seeded() -> fastrand::Rng {
    let given = std::env::var("SHARDMILL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let nanos = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let seed = given.unwrap_or_else(|| u64::from(nanos()));
    println!("SHARDMILL_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
