//! The fuzz targets in `fuzz/`, for a short while: their seeds, and random inputs that are the same each time.

mod steps;

use std::panic::catch_unwind;

use fastrand::Rng;

/// Runs one input. A failure tells it.
fn run(name: &str, step: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(|| step(input)) {
        let bytes: Vec<String> = input.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{name} fails: echo {} | xxd -r -p > input", bytes.concat());
        std::panic::resume_unwind(panic);
    }
}

fn at_random(name: &str, runs: usize) {
    let (_, step) = steps::TARGETS
        .into_iter()
        .find(|(other, _)| *other == name)
        .expect("it is in the list");
    let mut random = Rng::with_seed(7);
    let mut input = Vec::new();
    for _ in 0..runs {
        input.clear();
        let length = random.usize(..120);
        input.extend(std::iter::repeat_with(|| random.u8(..)).take(length));
        run(name, step, &input);
    }
}

#[test]
fn random_bytes_are_refused_or_read_the_same_twice() {
    at_random("decoder", 40_000);
}

#[test]
fn a_client_keeps_the_rules_whatever_bytes_come() {
    at_random("connected", 10_000);
}

#[test]
fn a_client_keeps_the_rules_whatever_packets_come() {
    at_random("packets", 10_000);
}
