//! A store in a file.

use std::fmt;
use std::path::PathBuf;
use std::task::{Context, Poll};

use super::database::Database;
use super::thread::Committer;
use super::{Batch, Record, Store, StoreError, StoreErrorKind};

/// A [`Store`] in one file, with the feature `store`, which needs Rust 1.90.
///
/// The file is a database of [redb](https://www.redb.org), which only its owner may read, because messages are
/// in it. Every batch is one transaction, which is on disk (`fdatasync`) when [`Store::poll_committed`] is
/// ready, and what is read later is checked against its checksums: a file that was cut off or changed by anyone
/// else is refused, never believed. One thing cannot be told apart: after a crash, damage to the pages of the
/// last transaction looks like a transaction that the crash interrupted, and the one before counts.
///
/// **Threads.** Transactions are committed on one thread of the store, named `coracle-store`, which starts with
/// the first batch and ends with the store; it closes the file, so without a batch it starts for that alone.
/// [`FileStore::open`] and [`Store::load`] block the thread that calls them, for as long as a small file takes
/// to check and to read. Dropping the store blocks until the last batch is on disk and the file closed, but not
/// longer than 5 s; a client that has waited for the batch in vain at its end does not wait again. Where the
/// disk does not answer, the thread goes on alone, and the file stays locked until the disk answers or the
/// process ends.
///
/// **Size.** The file begins with less than 100 KiB and grows with what is waiting in it. What was taken out
/// leaves room that is used again. Opening it and dropping the store shrink it when it is larger than 1 MiB and
/// at least three quarters of it are empty. While it is created, it has `.new` behind its name.
///
/// **Memory.** The database caches 64 KiB; with it and the thread a process grows by less than 512 KiB.
///
/// One file serves one client: while it is open, nobody else can open it.
///
/// A file on a network may lack the locks and the promises of `fsync` that this needs; use a local one.
pub struct FileStore {
    path: PathBuf,
    committer: Committer,
}

impl FileStore {
    /// Opens the file, or creates it if there is none; its directory has to be there.
    ///
    /// After a crash this brings the file to the state of the last transaction that was on disk.
    ///
    /// # Errors
    /// - [`Full`](StoreErrorKind::Full): the disk, a quota or a limit of the process.
    /// - [`ReadOnly`](StoreErrorKind::ReadOnly): the file or its directory may not be written.
    /// - [`Damaged`](StoreErrorKind::Damaged): something else than a store, or one that was cut off or
    ///   changed since. It stays where it is: whoever wants to go on without what was in it removes it.
    /// - [`InUse`](StoreErrorKind::InUse): another process or another client has it open.
    /// - [`Other`](StoreErrorKind::Other): what else the system says, for example that there is no
    ///   such directory; or the file was written by a newer version of this crate.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let database = Database::open(&path)?;
        Ok(Self {
            committer: Committer::new(database),
            path,
        })
    }

    /// The same on a device that a test brings along, which may fail at will.
    #[doc(hidden)]
    pub fn on_device(device: impl redb::StorageBackend) -> Result<Self, StoreError> {
        let path = PathBuf::from("a device of a test");
        let database = Database::on(device, &path)?;
        Ok(Self {
            committer: Committer::new(database),
            path,
        })
    }
}

impl Store for FileStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        match self.committer.database() {
            Some(database) => database.read(),
            // Nobody who keeps to the trait comes here.
            None => {
                let text = format!("reading {}: it is being written", self.path.display());
                Err(StoreError::new(StoreErrorKind::Other, text))
            }
        }
    }

    fn submit(&mut self, batch: Batch) {
        self.committer.submit(batch);
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.committer.poll_committed(cx.waker())
    }

    fn give_up(&mut self) {
        self.committer.give_up();
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
