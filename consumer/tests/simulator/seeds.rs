//! Seeds: as many as CI has time for, those of the environment, and those that once failed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::world::{Outcome, play};

/// As many as take about two minutes of two cores without optimisation.
const SEEDS: u64 = 2_000;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn complain(seed: u64, outcome: &Outcome) -> String {
    let from = outcome.log.len().saturating_sub(80);
    let log = outcome.log[from..].join("\n");
    format!(
        "seed {seed}: {}\n{:?}\n{log}\nalone: SHARDMILL_SIM_FROM={seed} SHARDMILL_SIM_SEEDS=1 cargo test -p shardmill --test simulator no_seed",
        outcome.violation.as_deref().unwrap_or("no violation"),
        outcome.plan,
    )
}

#[test]
fn i1_i2_i3_i9_i10_i11_i16_no_seed_of_a_fleet_breaks_an_invariant() {
    let from = from_environment("SHARDMILL_SIM_FROM", 0);
    let seeds = from_environment("SHARDMILL_SIM_SEEDS", SEEDS);
    let show = std::env::var_os("SHARDMILL_SIM_LOG").is_some();
    let (next, failed) = (Arc::new(AtomicU64::new(from)), Arc::new(Mutex::new(Vec::new())));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let outcome = play(seed, show);
                    if show {
                        println!("{}\n{:?}", outcome.log.join("\n"), outcome.totals);
                    }
                    if outcome.violation.is_some() {
                        // What it did it does again, now with a log.
                        failed.lock().unwrap().push(complain(seed, &play(seed, true)));
                    }
                }
            });
        }
    });
    let failed = failed.lock().unwrap();
    assert!(failed.is_empty(), "{} of {seeds} seeds failed\n{}", failed.len(), failed.join("\n\n"));
}

/// Of workers that stopped after they had lost leases, which they could not give up any more.
const ONCE_FAILED: [u64; 2] = [15_086, 35_486];

#[test]
fn i11_i16_no_seed_that_once_failed_does_so_again() {
    for seed in ONCE_FAILED {
        assert_eq!(play(seed, false).violation, None, "seed {seed}");
    }
}

#[test]
fn a_seed_that_is_run_again_gives_the_same_log() {
    for seed in 0..8 {
        let [one, other] = [seed, seed].map(|seed| play(seed, true).log);
        let differ = one.iter().zip(&other).find(|(one, other)| one != other);
        assert_eq!((differ, one.len()), (None, other.len()), "seed {seed}");
    }
}
