//! What outlives the process: the trait of a store, and what goes through it.
//!
//! A session is a small table from numbers to bytes. It is read once, when the driver starts, and from
//! then on changed in batches, each of which is on disk as a whole or not at all:
//!
//! ```text
//!     changes of the session ──► gathered ── none on its way ──► submit(batch) ──► poll_committed
//!                                   ▲                                                    │
//!                                   └─────────── meanwhile the next batch gathers ◄──────┘
//! ```
//!
//! Nothing here knows MQTT: which number holds what is the protocol's business.

#[cfg(feature = "store")]
mod at;
#[cfg(feature = "store")]
mod database;
#[cfg(feature = "store")]
mod file;
#[cfg(feature = "store")]
mod thread;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "store")]
pub use file::FileStore;

/// Keeps a session across the end of the process: see [`Options::store`](crate::Options::store).
///
/// A store is a table from numbers to bytes: flash, a file, a database. Three methods, because the client
/// asks for no more; a fourth is for a store whose drop waits. It holds the state of one client, and only one
/// client may use it at a time.
///
/// What a batch says counts together: after a crash either the whole batch is there or nothing of it, and
/// never a later one without the earlier ones. A store that cannot do that keeps nothing exactly once.
///
/// The driver drops the store at its end, also when it does not wait for a batch any longer. So a drop that waits
/// for what does not answer holds up every task of the thread.
pub trait Store {
    /// Opens the store and reads everything that is in it, in ascending order of the keys.
    ///
    /// Called once, in the driver's first turn, before anything is sent. It may block for as long as a
    /// small file takes to read.
    ///
    /// # Errors
    /// It cannot be opened or read. Then [`Store::submit`] is never called.
    fn load(&mut self) -> Result<Vec<Record>, StoreError>;

    /// Takes over a batch and returns at once; what takes time is done elsewhere, for example on a thread
    /// of the store's own.
    ///
    /// Called only when no batch is on its way.
    fn submit(&mut self, batch: Batch);

    /// Ready once the batch handed over last is on disk, so that it survives the loss of power, or has
    /// failed. Called only while a batch is on its way; else it keeps the waker of `cx` and wakes it.
    ///
    /// An error is final: the client hands over nothing more after it.
    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>>;

    /// The batch on its way was waited for long enough, and the store is dropped next: that drop must not wait
    /// for the disk again, because it would stop the application's thread. Does nothing by default, which
    /// is right for a store whose drop never waits.
    fn give_up(&mut self) {}
}

/// One entry of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    key: u64,
    value: Vec<u8>,
}

impl Record {
    /// An entry with this key.
    pub fn new(key: u64, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key,
            value: value.into(),
        }
    }

    /// The key, unique in its store.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// What is kept under it.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

/// Changes that count together, in their order: a later change of a key replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Entry>,
    /// The values of `changes`, back to back: gathering a message allocates nothing once it has grown.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: u64,
    /// Where the value ends in `bytes`; none if the key is removed.
    end: Option<usize>,
}

/// A change of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a store that does not know every kind of change loses state"
)]
pub enum Change<'a> {
    /// The key has this value from now on, whether it was there or not.
    Put(u64, &'a [u8]),
    /// The key is gone, whether it was there or not.
    Remove(u64),
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds: the key has this value from now on.
    pub fn put(&mut self, key: u64, value: &[u8]) {
        self.put_with(key, |bytes| bytes.extend_from_slice(value));
    }

    /// The same; `write` appends the value.
    pub(crate) fn put_with(&mut self, key: u64, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.changes.push(Entry {
            key,
            end: Some(self.bytes.len()),
        });
    }

    /// Adds: the key is gone from now on.
    pub fn remove(&mut self, key: u64) {
        self.changes.push(Entry { key, end: None });
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The length of all values together, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The changes in their order.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let mut start = 0;
        self.changes.iter().map(move |entry| match entry.end {
            Some(end) => {
                let value = &self.bytes[start..end];
                start = end;
                Change::Put(entry.key, value)
            }
            None => Change::Remove(entry.key),
        })
    }

    /// Makes the changes in a table: for a store that has its records in memory.
    pub fn apply_to(&self, table: &mut BTreeMap<u64, Vec<u8>>) {
        for change in self.iter() {
            match change {
                Change::Put(key, value) => {
                    table.insert(key, value.to_vec());
                }
                Change::Remove(key) => {
                    table.remove(&key);
                }
            }
        }
    }
}

/// Why a store does not work. `Display` is one sentence that says what was being done and where.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    text: Arc<str>,
    source: Option<Arc<io::Error>>,
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is no space left, or a quota is used up.
    Full,
    /// It may not be written.
    ReadOnly,
    /// What is stored is not what was written, or no store of this kind.
    Damaged,
    /// Another process, or another client, has it open.
    InUse,
    /// Anything else that the system said; or a newer version of this crate wrote what is stored.
    Other,
}

impl StoreError {
    /// An error with a sentence of one's own; it should name the file or the device.
    pub fn new(kind: StoreErrorKind, text: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    /// What the system said about a file, while this was being done: `"writing"`, `"opening"`.
    pub fn io(doing: &str, path: &Path, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => StoreErrorKind::Full,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                StoreErrorKind::ReadOnly
            }
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StoreErrorKind::Damaged,
            io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => StoreErrorKind::InUse,
            // A foreign enum that grows.
            _ => StoreErrorKind::Other,
        };
        Self {
            kind,
            text: format!("{doing} {}: {error}", path.display()).into(),
            source: Some(Arc::new(error)),
        }
    }

    /// What happened.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StoreError {
    /// The same sentence as `Display`, because this is what a failing `main` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
