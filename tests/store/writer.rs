//! A process that does nothing but write into a store is killed, again and again.
//!
//! 20 times in the test command; `KILLS=200 cargo test --test store killed` is more.

use std::env;
use std::thread;
use std::time::Duration;

use coracle::FileStore;
use fastrand::Rng;

use crate::ground::Scratch;
use crate::process::{Process, part, say};
use crate::table::{Table, batch, commit, load};

/// Holds the number of the last batch.
const NUMBER: u64 = 1_000;

/// How often a process is killed.
pub(crate) fn kills() -> u32 {
    match env::var("KILLS") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => 20,
    }
}

/// Where the random moments come from: SEED, or always the same.
pub(crate) fn seed() -> u64 {
    match env::var("SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => 1,
    }
}

/// What the table is after this many batches.
fn after(count: u64) -> Table {
    let mut table = Table::new();
    for nth in 1..=count {
        batch(&mut Rng::with_seed(nth)).apply_to(&mut table);
    }
    if count > 0 {
        table.insert(NUMBER, count.to_be_bytes().to_vec());
    }
    table
}

/// Goes on where the last one was killed.
fn write(path: &std::path::Path) -> ! {
    let mut store = FileStore::open(path).expect("a store");
    let table = load(&mut store).expect("readable");
    let mut number = table.get(&NUMBER).map_or(0, |bytes| {
        u64::from_be_bytes(bytes.as_slice().try_into().expect("eight bytes"))
    });
    assert!(table == after(number), "not the state after batch {number}");
    say(&format!("found {number}"));
    loop {
        number += 1;
        let mut batch = batch(&mut Rng::with_seed(number));
        batch.put(NUMBER, &number.to_be_bytes());
        commit(&mut store, batch).expect("on disk");
        say(&format!("promised {number}"));
    }
}

/// The numbers in the lines that begin like this.
fn numbers(said: &[String], start: &str) -> Vec<u64> {
    said.iter()
        .filter_map(|line| line.strip_prefix(start))
        .map(|number| number.parse().expect("a number"))
        .collect()
}

#[test]
fn a_store_whose_process_is_killed_has_everything_that_was_promised() {
    if let Some(path) = part() {
        write(&path);
    }
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let mut rng = Rng::with_seed(seed());
    let mut promised = 0;
    let mut lives = 0;
    for kill in 0..kills() {
        let process = Process::start(
            "writer::a_store_whose_process_is_killed_has_everything_that_was_promised",
            &path,
            &[],
        );
        // Mostly while it writes, sometimes while it starts.
        if kill % 4 > 0 {
            process.said("promised", 1);
        }
        thread::sleep(Duration::from_micros(rng.u64(0..50_000)));
        let said = process.kill();
        for found in numbers(&said, "found ") {
            assert!(
                (promised..=promised + 1).contains(&found),
                "kill {kill}: {promised} was promised, {found} found"
            );
            promised = found;
            lives += 1;
        }
        promised = numbers(&said, "promised ")
            .last()
            .copied()
            .unwrap_or(promised);
    }
    assert!(lives * 2 > kills(), "{lives} of {} came to life", kills());
    let mut store = FileStore::open(&path).expect("a store");
    let table = load(&mut store).expect("readable");
    assert!([promised, promised + 1].map(after).contains(&table));
    println!("{promised} batches in {lives} lives");
}
