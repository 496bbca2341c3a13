//! Runs a target on inputs that are made at random out of its seeds and of what cargo-fuzz has found, as many
//! as are asked for: without the instruments of a fuzzer it is several times as fast, and blind.
//!
//! ```text
//! cargo run --release --example many -- packets 10000000 1
//! ```
//!
//! The last number is the seed. An input that fails is written to `artifacts/`.

use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use fastrand::Rng;

/// Bytes of an input, at most.
const LONGEST: usize = 256;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (Some(target), Some(runs)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: many TARGET RUNS [SEED]");
        return ExitCode::FAILURE;
    };
    let runs: u64 = runs.parse().expect("the number of runs is a number");
    let seed = arguments
        .next()
        .map_or(1, |seed| seed.parse().expect("the seed is a number"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known: Vec<Vec<u8>> = ["seeds", "corpus"]
        .into_iter()
        .filter_map(|kind| fs::read_dir(folder.join(kind).join(&target)).ok())
        .flatten()
        .filter_map(|entry| fs::read(entry.ok()?.path()).ok())
        .collect();
    assert!(!known.is_empty(), "{target} has no seeds");

    let mut random = Rng::with_seed(seed);
    let begin = Instant::now();
    let mut input = Vec::new();
    for run in 0..runs {
        mutate(&mut random, &known, &mut input);
        if catch_unwind(|| coracle_fuzz::run(&target, &input)).is_err() {
            let name = format!("artifacts/{target}-many-{seed}-{run}");
            fs::create_dir_all(folder.join("artifacts")).expect("the folder can be made");
            fs::write(folder.join(&name), &input).expect("the input can be written");
            eprintln!("run {run} fails: {name}");
            return ExitCode::FAILURE;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{target}: {runs} runs out of {} inputs with seed {seed}, {:.0} per second, {} MiB at most",
        known.len(),
        runs as f64 / seconds,
        peak_memory() / 1024,
    );
    ExitCode::SUCCESS
}

/// One known input or two, cut, joined and changed in some places.
fn mutate(random: &mut Rng, known: &[Vec<u8>], input: &mut Vec<u8>) {
    input.clear();
    input.extend_from_slice(&known[random.usize(..known.len())]);
    for _ in 0..random.usize(..3) {
        let other = &known[random.usize(..known.len())];
        input.truncate(random.usize(..=input.len()));
        input.extend_from_slice(&other[random.usize(..=other.len())..]);
    }
    for _ in 0..random.usize(..6) {
        if input.is_empty() {
            break;
        }
        let place = random.usize(..input.len());
        match random.u8(..6) {
            0 => {
                input.remove(place);
            }
            1 => input.insert(place, random.u8(..)),
            2 => input[place] ^= 1 << random.u8(..8),
            3 => {
                let end = random.usize(place..=input.len()).min(place + 16);
                input.extend_from_within(place..end);
            }
            4 => input[place] = random.choice([0, 1, 2, 5, 0x7F, 0x80, 0xFF]).unwrap_or(0),
            _ => input[place] = random.u8(..),
        }
    }
    input.truncate(LONGEST);
}

/// The most memory that this process ever had, in KiB; 0 where the system does not say it so.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
