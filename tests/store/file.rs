//! A store on a disk that works.

use std::fs;
use std::future::poll_fn;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use coracle::{Batch, FileStore, Store, StoreErrorKind, block_on};
use fastrand::Rng;
use smol::{Timer, future};

use crate::device::Device;
use crate::ground::Scratch;
use crate::table::{Table, batch, commit, load, read};

#[test]
fn what_was_put_is_there_again() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let mut store = FileStore::open(&path).expect("a new file");
    assert_eq!(load(&mut store).expect("readable"), Table::new());
    let mut first = Batch::new();
    first.put(7, b"seven");
    first.put(u64::MAX, b"last");
    first.put(0, b"");
    first.put(7, b"replaced");
    commit(&mut store, first).expect("on disk");
    let mut second = Batch::new();
    second.remove(u64::MAX);
    second.remove(12_345);
    second.put(8, b"eight");
    second.remove(8);
    second.put(9, b"nine");
    commit(&mut store, second).expect("on disk");
    drop(store);
    let table = read(&path).expect("a store");
    let expected = [
        (0, b"".to_vec()),
        (7, b"replaced".to_vec()),
        (9, b"nine".to_vec()),
    ];
    assert_eq!(table, Table::from(expected));
    let names: Vec<_> = fs::read_dir(scratch.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["session"], "nothing else is left");
}

#[test]
fn ten_thousand_batches_are_there_again() {
    let mut rng = Rng::with_seed(1);
    let mut table = Table::new();
    // In memory, because ten thousand syncs of a disk take a minute.
    let device = Device::default();
    let mut store = FileStore::on_device(device.clone()).expect("a new store");
    for nth in 0..10_000 {
        let batch = batch(&mut rng);
        batch.apply_to(&mut table);
        commit(&mut store, batch).expect("on disk");
        if nth % 2_500 == 0 {
            drop(store);
            device.forget_the_tape();
            store = FileStore::on_device(device.clone()).expect("a store");
            assert_eq!(load(&mut store).expect("readable"), table, "after {nth}");
        }
    }
    drop(store);
    // At most 64 records of up to 20,000 bytes: room that was given back is used again.
    let length = device.content().len();
    assert!(length < 4 * 1024 * 1024, "grew to {length} bytes");
    let mut store = FileStore::on_device(device).expect("a store");
    assert_eq!(load(&mut store).expect("readable"), table);
}

#[test]
fn a_thousand_batches_in_a_file_are_there_again() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let mut rng = Rng::with_seed(5);
    let mut table = Table::new();
    for round in 0..10 {
        let mut store = FileStore::open(&path).expect("a store");
        assert_eq!(load(&mut store).expect("readable"), table, "round {round}");
        for _ in 0..100 {
            let batch = batch(&mut rng);
            batch.apply_to(&mut table);
            commit(&mut store, batch).expect("on disk");
        }
    }
    assert_eq!(read(&path).expect("a store"), table);
}

#[test]
fn a_batch_is_on_disk_when_the_store_says_so() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let copy = scratch.path().join("copy");
    let mut rng = Rng::with_seed(2);
    let mut table = Table::new();
    let mut store = FileStore::open(&path).expect("a new file");
    for nth in 0..200 {
        let batch = batch(&mut rng);
        batch.apply_to(&mut table);
        commit(&mut store, batch).expect("on disk");
        // Nothing is on its way now, so this is what a process that was killed here leaves.
        fs::copy(&path, &copy).expect("a copy");
        assert_eq!(read(&copy).expect("a store"), table, "after {nth}");
    }
}

#[test]
fn a_store_that_is_dropped_completes_the_batch_on_its_way() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    for nth in 0..50 {
        let mut store = FileStore::open(&path).expect("a store");
        let mut batch = Batch::new();
        batch.put(nth, &[1; 1000]);
        store.submit(batch);
        drop(store);
        let table = read(&path).expect("nobody has it open any more");
        assert!(table.contains_key(&nth), "{nth}");
    }
}

#[test]
fn large_values_pass_through_the_small_cache() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let mut store = FileStore::open(&path).expect("a new file");
    let mut table = Table::new();
    for key in 0..4 {
        let mut batch = Batch::new();
        batch.put(key, &vec![key as u8; 3 << 20]);
        batch.apply_to(&mut table);
        commit(&mut store, batch).expect("on disk");
    }
    drop(store);
    assert_eq!(read(&path).expect("a store"), table);
}

#[test]
fn a_new_file_is_small_and_a_burst_leaves_no_large_one() {
    const SMALL: u64 = 1024 * 1024;
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let length = || fs::metadata(&path).expect("a file").len();
    let mut store = FileStore::open(&path).expect("a new file");
    assert!(length() < 100 * 1024, "{} bytes", length());
    let mut batch = Batch::new();
    batch.put(1_000_000, b"stays");
    for key in 0..8_000 {
        batch.put(key, &[7; 1000]);
    }
    commit(&mut store, batch).expect("on disk");
    let burst = length();
    assert!(burst > 8_000_000, "{burst} bytes");
    for key in 0..8_000 {
        let mut batch = Batch::new();
        batch.remove(key);
        // Many at a time, else this takes a while.
        if key % 400 == 0 {
            for other in key..key + 400 {
                batch.remove(other);
            }
            commit(&mut store, batch).expect("on disk");
        }
    }
    let copy = scratch.path().join("killed");
    fs::copy(&path, &copy).expect("a copy");
    drop(store);
    assert!(length() < SMALL, "closed: {} bytes", length());
    drop(FileStore::open(&copy).expect("a store"));
    let reopened = fs::metadata(&copy).expect("a file").len();
    assert!(reopened < SMALL, "opened: {reopened} bytes");
    let expected = Table::from([(1_000_000, b"stays".to_vec())]);
    assert_eq!(read(&path).expect("a store"), expected);
    assert_eq!(read(&copy).expect("a store"), expected);
}

#[test]
fn only_its_owner_may_read_what_is_in_the_file() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    drop(FileStore::open(&path).expect("a new file"));
    let mode = fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_store_is_read_before_it_is_written() {
    let scratch = Scratch::new();
    let mut store = FileStore::open(scratch.path().join("session")).expect("a new file");
    commit(&mut store, Batch::new()).expect("on disk");
    let error = store.load().expect_err("too late");
    assert_eq!(error.kind(), StoreErrorKind::Other, "{error}");
}

#[test]
fn one_file_serves_one_client() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let mut store = FileStore::open(&path).expect("a new file");
    for _ in 0..2 {
        let error = FileStore::open(&path).expect_err("it is open");
        assert_eq!(error.kind(), StoreErrorKind::InUse);
        let text = format!(
            "opening {}: another process or another client has it open",
            path.display()
        );
        assert_eq!(error.to_string(), text);
        // The same with the thread.
        let mut batch = Batch::new();
        batch.put(1, b"one");
        commit(&mut store, batch).expect("the other one did no harm");
    }
    drop(store);
    drop(FileStore::open(&path).expect("nobody has it"));
}

#[test]
fn of_many_who_create_a_file_one_gets_it() {
    let scratch = Scratch::new();
    for round in 0..20 {
        let path = scratch.path().join(format!("session{round}"));
        let open = || FileStore::open(&path);
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        let opened = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(opened, 1, "{results:?}");
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.kind(), StoreErrorKind::InUse, "{error}");
        }
    }
}

#[test]
fn the_waiter_is_woken() {
    let scratch = Scratch::new();
    let mut store = FileStore::open(scratch.path().join("session")).expect("a new file");
    for key in 0..100 {
        let mut batch = Batch::new();
        batch.put(key, &[0; 100_000]);
        store.submit(batch);
        // Once the thread is done before anyone asks, once it is not.
        if key % 2 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Nothing but the waker has this polled again before the time is over.
        let stuck = async {
            Timer::after(Duration::from_secs(20)).await;
            panic!("nobody was woken for {key}");
        };
        let waiting = poll_fn(|cx| store.poll_committed(cx));
        block_on(future::or(waiting, stuck)).expect("on disk");
    }
}
