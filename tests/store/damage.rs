//! What is in the file is not what was written: it is refused in words, or it is what was last committed.

use std::fs;

use coracle::{FileStore, StoreErrorKind};
use fastrand::Rng;

use crate::device::Device;
use crate::ground::Scratch;
use crate::table::{Table, batch, commit, load, read};

/// A store that was closed or killed.
struct Left {
    how: &'static str,
    content: Vec<u8>,
    /// What may be found in it, however it was damaged.
    states: Vec<Table>,
}

/// A store as it was closed, and as it was killed before that.
///
/// What damages the pages of the last transaction of one that was killed cannot be told from a transaction that
/// never got to its end, whose pages are missing for the same reason; it then begins at the one before. To be
/// able to tell would cost a second sync for every transaction.
fn stores() -> [Left; 2] {
    let device = Device::default();
    let mut store = FileStore::on_device(device.clone()).expect("a new store");
    let mut rng = Rng::with_seed(6);
    let mut table = Table::new();
    let mut before = Table::new();
    for _ in 0..30 {
        before.clone_from(&table);
        let batch = batch(&mut rng);
        batch.apply_to(&mut table);
        commit(&mut store, batch).expect("on disk");
    }
    let killed = Left {
        how: "killed",
        content: device.content(),
        states: vec![table.clone(), before],
    };
    drop(store);
    let closed = Left {
        how: "closed",
        content: device.content(),
        states: vec![table],
    };
    [killed, closed]
}

/// Opens what it has become, twice: the database may try to mend it. Returns whether that was refused.
fn refused(left: &Left, what: &str, content: Vec<u8>) -> bool {
    let device = Device::with(content);
    let once = is_refused(left, what, &device);
    let twice = is_refused(left, what, &device);
    once && twice
}

fn is_refused(left: &Left, what: &str, device: &Device) -> bool {
    let opened = FileStore::on_device(device.clone()).and_then(|mut store| load(&mut store));
    match opened {
        Ok(found) => {
            assert!(left.states.contains(&found), "{}, {what}", left.how);
            false
        }
        Err(error) => {
            let text = error.to_string();
            // One byte says which version of redb wrote it.
            let version = text.contains("a version of redb wrote it");
            let expected = [StoreErrorKind::Damaged, StoreErrorKind::Other][usize::from(version)];
            assert_eq!(error.kind(), expected, "{}, {what}: {text}", left.how);
            true
        }
    }
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_refused_or_whole() {
    for left in stores() {
        let mut rng = Rng::with_seed(7);
        let length = left.content.len();
        let lengths: Vec<usize> = (1..1024)
            .step_by(7)
            .chain((1024..length).step_by(4096))
            .chain((0..200).map(|_| rng.usize(1..length)))
            .collect();
        let count = lengths
            .iter()
            .filter(|cut| {
                let what = format!("cut to {cut} of {length}");
                refused(&left, &what, left.content[..**cut].to_vec())
            })
            .count();
        assert!(count * 2 > lengths.len(), "{count} of {}", lengths.len());
    }
}

#[test]
fn a_file_with_a_flipped_bit_is_refused_or_whole() {
    for left in stores() {
        let mut rng = Rng::with_seed(8);
        // What stands at the front, one bit of each byte of the rest of the header, then here and there.
        let front = 0..80 * 8;
        let header: Vec<usize> = (80..512).map(|byte| byte * 8 + rng.usize(0..8)).collect();
        let random = (0..500).map(|_| rng.usize(0..left.content.len() * 8));
        let count = front
            .chain(header)
            .chain(random)
            .filter(|bit| {
                let (byte, bit) = (bit / 8, bit % 8);
                let mut content = left.content.clone();
                content[byte] ^= 1 << bit;
                refused(&left, &format!("bit {bit} of byte {byte}"), content)
            })
            .count();
        assert!(count > 100, "{count}");
    }
}

#[test]
fn a_file_with_a_page_of_something_else_is_refused_or_whole() {
    const PAGE: usize = 4096;
    for left in stores() {
        let mut rng = Rng::with_seed(9);
        let pages = left.content.len() / PAGE;
        let mut count = 0;
        for page in 0..pages {
            for fill in [0, 0xff, rng.u8(..)] {
                let mut content = left.content.clone();
                content[page * PAGE..][..PAGE].fill(fill);
                count += u32::from(refused(&left, &format!("page {page} of {fill}"), content));
            }
            let from = rng.usize(0..pages);
            let mut content = left.content.clone();
            content.copy_within(from * PAGE..(from + 1) * PAGE, page * PAGE);
            let what = format!("page {page} as page {from}");
            count += u32::from(refused(&left, &what, content));
        }
        assert!(count > 4, "{count}");
    }
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let text = b"client_id = thermometer-7\n".as_slice();
    for (content, says) in [
        (b"".as_slice(), "it is empty, as no store ever is"),
        (b"x", "it is not a store"),
        (text, "it is not a store"),
        (&[0; 100_000], "it is not a store"),
    ] {
        fs::write(&path, content).expect("a file");
        let error = FileStore::open(&path).expect_err("not a store");
        assert_eq!(error.kind(), StoreErrorKind::Damaged);
        let expected = format!("opening {}: {says}", path.display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(fs::read(&path).expect("still a file"), content);
    }
}

#[test]
fn a_database_of_something_else_is_refused() {
    const OTHER: redb::TableDefinition<'static, &str, &str> = redb::TableDefinition::new("other");
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let database = redb::Database::create(&path).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    transaction
        .open_table(OTHER)
        .expect("a table")
        .insert("key", "value")
        .expect("inserted");
    transaction.commit().expect("committed");
    drop(database);
    let error = FileStore::open(&path).expect_err("not a store");
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(
        error
            .to_string()
            .ends_with("it is a database of something else"),
        "{error}"
    );
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_not_called_damaged() {
    const FORMAT: redb::TableDefinition<'static, &str, u64> = redb::TableDefinition::new("coracle");
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    drop(FileStore::open(&path).expect("a new file"));
    let database = redb::Database::open(&path).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    transaction
        .open_table(FORMAT)
        .expect("a table")
        .insert("format", 2)
        .expect("inserted");
    transaction.commit().expect("committed");
    drop(database);
    let error = FileStore::open(&path).expect_err("too new");
    // Whoever removes what is damaged would lose what the newer version can read.
    assert_eq!(error.kind(), StoreErrorKind::Other);
    let says = "a newer version of this program wrote it (format 2, this one knows 1)";
    assert!(error.to_string().ends_with(says), "{error}");
}

#[test]
fn a_draft_that_a_killed_process_left_is_begun_anew() {
    let scratch = Scratch::new();
    let path = scratch.path().join("session");
    let draft = scratch.path().join("session.new");
    fs::write(&draft, [7; 5000]).expect("a file");
    drop(FileStore::open(&path).expect("a new file"));
    assert!(!draft.exists());
    assert_eq!(read(&path).expect("a store"), Table::new());
}
