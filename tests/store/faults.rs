//! The disk is full, may not be written, is not there, or breaks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle::{Batch, FileStore, StoreErrorKind};
use fastrand::Rng;

use crate::device::{Device, Trouble};
use crate::ground::Scratch;
use crate::process::{Process, part};
use crate::table::{Table, batch, commit, load, read};

/// Commits until it fails. Returns what was said to be on disk, what it is with the batch that failed, and why.
fn fill(store: &mut FileStore, seed: u64) -> (Table, Table, coracle::StoreError) {
    let mut rng = Rng::with_seed(seed);
    let mut promised = Table::new();
    for key in 0..100_000 {
        let mut batch = Batch::new();
        batch.put(key, &vec![rng.u8(..); rng.usize(0..4_000)]);
        let mut next = promised.clone();
        batch.apply_to(&mut next);
        match commit(store, batch) {
            Ok(()) => promised = next,
            Err(error) => return (promised, next, error),
        }
    }
    panic!("the disk never was full");
}

#[test]
fn a_full_disk_is_told_and_what_was_promised_stays() {
    for room in [100_000, 150_000, 333_333, 1_000_000] {
        let device = Device::default().in_trouble(Trouble::Full { left: room });
        let mut store = FileStore::on_device(device.clone()).expect("a new store");
        let (promised, next, error) = fill(&mut store, room as u64);
        assert_eq!(error.kind(), StoreErrorKind::Full, "{error}");
        assert!(
            error.to_string().contains("No space left on device"),
            "{error}"
        );
        // It is final.
        let mut batch = Batch::new();
        batch.put(0, b"more");
        let again = commit(&mut store, batch).expect_err("still full");
        assert_eq!(again.to_string(), error.to_string());
        drop(store);
        // Somebody has made room.
        let device = device.in_trouble(Trouble::None);
        let mut store = FileStore::on_device(device).expect("a store");
        let found = load(&mut store).expect("readable");
        assert!(found == promised || found == next, "{room} bytes");
        let mut batch = Batch::new();
        batch.put(0, b"more");
        commit(&mut store, batch).expect("it goes on");
    }
}

#[test]
fn a_disk_that_is_full_before_there_is_a_store_says_so() {
    for room in [0, 100, 5_000, 10_000] {
        let device = Device::default().in_trouble(Trouble::Full { left: room });
        let error = FileStore::on_device(device).expect_err("no room");
        assert_eq!(error.kind(), StoreErrorKind::Full, "{error}");
    }
}

#[test]
fn a_disk_that_breaks_at_any_step_is_told_and_keeps_what_was_promised() {
    let mut left = 0;
    loop {
        let device = Device::default().in_trouble(Trouble::Broken { left });
        left += 1;
        let mut promised = Table::new();
        let mut next = Table::new();
        let mut rng = Rng::with_seed(10);
        let mut broke = None;
        match FileStore::on_device(device.clone()) {
            // A draft that is not whole never becomes a store.
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Other, "{error}");
                continue;
            }
            Ok(mut store) => {
                for _ in 0..12 {
                    let batch = batch(&mut rng);
                    batch.apply_to(&mut next);
                    match commit(&mut store, batch) {
                        Ok(()) => promised.clone_from(&next),
                        Err(error) => {
                            broke = Some(error);
                            break;
                        }
                    }
                }
            }
        }
        let Some(error) = broke else {
            break;
        };
        assert_eq!(error.kind(), StoreErrorKind::Other, "{error}");
        let mut store =
            FileStore::on_device(device.in_trouble(Trouble::None)).expect("whole again");
        let found = load(&mut store).expect("readable");
        assert!(found == promised || found == next, "broken after {left}");
    }
    assert!(left > 60, "{left}");
}

#[test]
fn a_file_that_reaches_the_limit_of_its_process_is_full() {
    if let Some(path) = part() {
        let mut store = FileStore::open(&path).expect("a new file");
        let (promised, _, error) = fill(&mut store, 11);
        println!("kind: {:?}", error.kind());
        println!("error: {error}");
        println!("promised: {}", promised.len());
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let test = "faults::a_file_that_reaches_the_limit_of_its_process_is_full";
    // In blocks of 512 bytes, some shells say 1024; without the signal the call fails.
    let shell = "trap '' XFSZ && ulimit -f 1000 && exec \"$@\"";
    let said = Process::start_prepared(&["sh", "-c", shell], test, &path).succeeded();
    assert!(said.contains("kind: Full"), "{said}");
    check_promises(&said, &path);
}

/// A store that was filled holds the records from 0 up, at least those that were promised.
fn check_promises(said: &str, path: &Path) {
    let promised: usize = said
        .lines()
        .find_map(|line| line.strip_prefix("promised: "))
        .and_then(|count| count.parse().ok())
        .expect("it says what was promised");
    assert!(promised > 10, "{said}");
    let found = read(path).expect("a store");
    assert!(
        (promised..=promised + 1).contains(&found.len()),
        "{promised} promised, {} found",
        found.len()
    );
    assert!(found.keys().copied().eq(0..found.len() as u64));
}

#[test]
fn a_real_disk_that_is_full_is_told_and_keeps_what_was_promised() {
    if let Some(path) = part() {
        let mut store = FileStore::open(&path).expect("a new file");
        let (promised, _, error) = fill(&mut store, 12);
        println!("kind: {:?}", error.kind());
        println!("promised: {}", promised.len());
        drop(store);
        // The disk is gone with this process.
        let kept = path.parent().and_then(Path::parent).expect("two above");
        fs::copy(&path, kept.join("copy")).expect("a copy");
        return;
    }
    let scratch = Scratch::new();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).expect("a directory");
    let path = disk.join("session");
    let test = "faults::a_real_disk_that_is_full_is_told_and_keeps_what_was_promised";
    // A disk of its own needs a namespace of its own, which root and most others may have.
    let unshare = format!(
        "exec unshare --map-root-user --mount sh -c \
         'mount -t tmpfs -o size=1m tmpfs \"{}\" && exec \"$@\"' sh \"$@\"",
        disk.display()
    );
    let (_, said) = Process::start_prepared(&["sh", "-c", &unshare], test, &path).end();
    let said = said.join("\n");
    if !said.contains("kind: ") {
        // In some containers nobody may; the limit of a process and the disk in memory are tested everywhere.
        eprintln!("no disk of one's own here: {said}");
        return;
    }
    assert!(said.contains("kind: Full"), "{said}");
    check_promises(&said, &scratch.path().join("copy"));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let scratch = Scratch::new();
    let path = scratch.path().join("nowhere").join("session");
    let error = FileStore::open(&path).expect_err("no directory");
    assert_eq!(error.kind(), StoreErrorKind::Other);
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("its directory is not there"), "{text}");
}

#[test]
fn a_directory_in_the_place_of_the_file_is_named() {
    let scratch = Scratch::new();
    let error = FileStore::open(scratch.path()).expect_err("a directory");
    assert_eq!(error.kind(), StoreErrorKind::Other);
    assert!(error.to_string().contains("Is a directory"), "{error}");
}

#[test]
fn what_may_not_be_written_is_told_as_read_only() {
    if let Some(path) = part() {
        for name in ["new", "old"] {
            let error = FileStore::open(path.join(name)).expect_err("not ours");
            println!("{name}: {:?}: {error}", error.kind());
        }
        return;
    }
    let scratch = Scratch::new();
    drop(FileStore::open(scratch.path().join("old")).expect("a new file"));
    let mode = |name: &str, mode| {
        let path = scratch.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    mode("old", 0o444);
    mode("", 0o555);
    let test = "faults::what_may_not_be_written_is_told_as_read_only";
    // Modes do not stop root: what root starts here goes on as nobody.
    let shell = "if [ \"$(id -u)\" -eq 0 ]; then \
                 exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"; fi; exec \"$@\"";
    let mut process = Process::start_prepared(&["sh", "-c", shell], test, scratch.path());
    let (status, said) = process.end();
    mode("", 0o755);
    let said = said.join("\n");
    if let Some(126 | 127) = status.code() {
        // The shell says so when it may not start a program: the directories above may be closed to nobody.
        eprintln!("nobody may run this program here: {said}");
        return;
    }
    assert!(status.success(), "{said}");
    assert!(said.contains("new: ReadOnly: creating"), "{said}");
    assert!(said.contains("old: ReadOnly: opening"), "{said}");
}

#[test]
fn a_file_that_another_process_has_open_is_in_use() {
    if let Some(path) = part() {
        let error = FileStore::open(&path).expect_err("it is open");
        println!("{:?}: {error}", error.kind());
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let store = FileStore::open(&path).expect("a new file");
    let test = "faults::a_file_that_another_process_has_open_is_in_use";
    let said = Process::start(test, &path, &[]).succeeded();
    assert!(said.contains("InUse: opening"), "{said}");
    drop(store);
    drop(FileStore::open(&path).expect("nobody has it"));
}
