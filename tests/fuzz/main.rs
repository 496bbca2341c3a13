//! The fuzz targets in `fuzz/`, for a short while: their seeds, and random inputs that are the same each time.

#[expect(dead_code, reason = "seeds are no tests")]
#[path = "../catalogue/mod.rs"]
mod catalogue;
mod steps;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use catalogue::table;
use steps::Step;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

/// The seeds there are, as target and name.
fn seeds_there_are() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (target, _) in steps::TARGETS {
        let folder = fs::read_dir(seeds().join(target)).expect("each target has seeds");
        for entry in folder {
            let name = entry.expect("it can be listed").file_name();
            let name = name.into_string().expect("names are plain");
            found.insert((target.to_owned(), name));
        }
    }
    found
}

/// Runs one input. A failure tells it.
fn run(name: &str, step: Step, input: &[u8]) {
    if let Err(panic) = catch_unwind(|| step(input)) {
        let bytes: Vec<String> = input.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{name} fails with {}", bytes.concat());
        resume_unwind(panic);
    }
}

fn step_of(name: &str) -> Step {
    let mut targets = steps::TARGETS.into_iter();
    let found = targets.find(|(other, _)| *other == name);
    found.expect("it is in the list").1
}

/// Random inputs, and seeds of which a few bytes are changed, the same ones each time.
fn at_random(name: &str, runs: usize) {
    let step = step_of(name);
    let mut random = Rng::with_seed(7);
    let seeds: Vec<Vec<u8>> = seeds_there_are()
        .into_iter()
        .filter(|(target, _)| target == name)
        .map(|(target, name)| fs::read(seeds().join(target).join(name)).expect("it can be read"))
        .collect();
    let mut input = Vec::new();
    for _ in 0..runs {
        input.clear();
        if random.bool() {
            input.extend_from_slice(&seeds[random.usize(..seeds.len())]);
            for _ in 0..random.usize(1..4) {
                let place = random.usize(..input.len());
                input[place] = random.u8(..);
            }
        }
        let more = random.usize(..60);
        input.extend(std::iter::repeat_with(|| random.u8(..)).take(more));
        run(name, step, &input);
    }
}

#[test]
fn every_seed_has_a_note_and_every_note_a_seed() {
    let mut noted = BTreeSet::new();
    for line in table("fuzz/seeds/NOTES.csv", "target,seed,note") {
        let [target, seed, note] = &line[..] else {
            panic!("{line:?} has three fields");
        };
        assert!(!note.is_empty(), "{line:?}");
        let seed = (target.clone(), seed.clone());
        assert!(noted.insert(seed), "twice: {line:?}");
    }
    assert_eq!(noted, seeds_there_are());
}

#[test]
fn every_seed_passes() {
    for (target, name) in seeds_there_are() {
        let input = fs::read(seeds().join(&target).join(&name)).expect("it can be read");
        run(&format!("{target}/{name}"), step_of(&target), &input);
    }
}

#[test]
fn random_bytes_are_refused_or_read_the_same_twice() {
    at_random("decoder", 30_000);
}

#[test]
fn a_client_keeps_the_rules_whatever_bytes_come() {
    at_random("connected", 4_000);
}

#[test]
fn a_client_keeps_the_rules_whatever_packets_come() {
    at_random("packets", 4_000);
}

#[test]
fn what_a_proxy_or_a_web_server_says_is_read_the_same_in_pieces() {
    at_random("handshake", 4_000);
}

#[test]
fn a_whole_client_ends_whatever_bytes_come() {
    at_random("client", 500);
}

#[test]
fn a_damaged_store_is_refused_or_a_session() {
    at_random("records", 10_000);
}
