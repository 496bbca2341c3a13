//! The whole client in simulated worlds: a clock, a network and a broker that are made of a seed.
//!
//! Runs 20,000 seeds, a quarter of them with a store. `SEEDS=1000000 cargo test --release --test simulation promises` runs more of them,
//! `SEED=42 cargo test --test simulation promises` a single one; that is also what a failure prints.

mod broker;
mod cuts;
mod drops;
mod ledger;
mod observer;
mod run;
mod storm;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::run::Run;

/// As many as a test command can take: about a minute on two cores.
const SEEDS: u64 = 20_000;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// Runs `play` for each seed of `count`, on all cores, or for the one that SEED names.
fn each(test: &str, count: u64, play: impl Fn(u64) + Sync) {
    if let Some(seed) = setting("SEED") {
        return play(seed);
    }
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count || failed.load(Ordering::Relaxed) < seed {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| play(seed))).is_err() {
                failed.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    assert_eq!(
        failed,
        u64::MAX,
        "replay it with: SEED={failed} cargo test --test simulation {test}"
    );
}

#[test]
fn promises_hold_in_every_simulated_world() {
    let count = setting("SEEDS").unwrap_or(SEEDS);
    each("promises", count, |seed| Run::new(seed).play());
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..20 {
        let digest = || {
            let mut run = Run::new(seed);
            run.play();
            run.digest
        };
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}
