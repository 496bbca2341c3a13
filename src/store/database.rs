//! The file of a store: a redb database with two tables.
//!
//! `coracle` holds the version of what is in the other one, `session` the records. A file is created under
//! another name and gets its own when it is whole, so that one which is not whole was damaged.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError};

use super::at::At;
use super::{Batch, Change, Record, StoreError};

/// What the file is and which version wrote it; under its only key.
const FORMAT: TableDefinition<'static, &str, u64> = TableDefinition::new("coracle");
const FORMAT_KEY: &str = "format";

/// The records.
const SESSION: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("session");

/// The version of the two tables. What is in the values has a version of its own.
const VERSION: u64 = 1;

/// The default is 1 GiB. The file is read once and then only written, so a cache serves the pages of the
/// trees alone: sixteen of them are more than the way from the root to a leaf has for any session that fits
/// into the memory of a client.
const CACHE: usize = 64 * 1024;

/// A file up to this size is not worth shrinking: an idle one has a tenth of it.
const SMALL: u64 = 1024 * 1024;

/// What is in use has to be copied in order to shrink the file. More would keep a program waiting at its start.
const MUCH: u64 = 16 * 1024 * 1024;

/// An open file.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    /// `None` once it was closed.
    database: Option<redb::Database>,
}

impl Database {
    /// Opens the file, or creates it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let at = At {
            doing: "opening",
            path,
        };
        at.guard(|| {
            let file = OpenOptions::new().read(true).write(true).open(path);
            match file {
                Ok(file) => Self::on_file(file, at),
                Err(error) if error.kind() == ErrorKind::NotFound => Self::create(path),
                Err(error) => Err(at.io(error)),
            }
        })
    }

    /// Opens what a device holds, or makes a store in it if it is empty.
    pub(super) fn on(device: impl StorageBackend, path: &Path) -> Result<Self, StoreError> {
        let at = At {
            doing: "opening",
            path,
        };
        at.guard(|| {
            let fresh = device.len().map_err(|error| at.io(error))? == 0;
            let database = Self::over(device, at)?;
            if fresh {
                database.begin(at)?;
            } else {
                database.check(at)?;
            }
            Ok(database)
        })
    }

    fn on_file(file: File, at: At<'_>) -> Result<Self, StoreError> {
        let length = file.metadata().map_err(|error| at.io(error))?.len();
        if length == 0 {
            // The database would begin anew here, and nobody would learn that everything was lost.
            return Err(at.damaged("it is empty, as no store ever is"));
        }
        let backend = FileBackend::new(file).map_err(|error| at.error(error))?;
        let mut database = Self::over(backend, at)?;
        database.check(at)?;
        database.shrink(at)?;
        Ok(database)
    }

    /// Creates the file under another name, and gives it its own when it is whole. Both happen under a lock,
    /// so that of two who do this one gets in.
    fn create(path: &Path) -> Result<Self, StoreError> {
        let at = At {
            doing: "creating",
            path,
        };
        let mut name = OsString::from(path);
        name.push(".new");
        let draft = PathBuf::from(name);
        let mut options = OpenOptions::new();
        // Not cut off before it is known that nobody else is at it.
        options.read(true).write(true).create(true).truncate(false);
        // Messages are nobody else's business.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&draft).map_err(|error| match error.kind() {
            ErrorKind::NotFound => at.other(format_args!("its directory is not there")),
            // A foreign enum that grows.
            _ => at.io(error),
        })?;
        lock(&file, at)?;
        if path.exists() {
            // Somebody else has just finished: what is locked here may be that file, or a new draft.
            let _ = fs::remove_file(&draft);
            drop(file);
            return Self::open(path);
        }
        let made = Self::make(file, at).and_then(|database| {
            fs::rename(&draft, path)
                .and_then(|()| sync_directory(path))
                .map_err(|error| at.io(error))?;
            Ok(database)
        });
        if made.is_err() {
            let _ = fs::remove_file(&draft);
        }
        made
    }

    fn make(file: File, at: At<'_>) -> Result<Self, StoreError> {
        file.set_len(0).map_err(|error| at.io(error))?;
        let backend = FileBackend::new(file).map_err(|error| at.error(error))?;
        let database = Self::over(backend, at)?;
        database.begin(at)?;
        Ok(database)
    }

    fn over(backend: impl StorageBackend, at: At<'_>) -> Result<Self, StoreError> {
        let database = Builder::new()
            .set_cache_size(CACHE)
            // Else a file that was closed in order is believed, whatever became of it since.
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|error| at.error(error))?;
        Ok(Self {
            path: at.path.to_owned(),
            database: Some(database),
        })
    }

    /// Writes what makes it a store.
    fn begin(&self, at: At<'_>) -> Result<(), StoreError> {
        let transaction = self
            .redb(at)?
            .begin_write()
            .map_err(|error| at.error(error))?;
        transaction
            .open_table(FORMAT)
            .map_err(|error| at.error(error))?
            .insert(FORMAT_KEY, VERSION)
            .map_err(|error| at.error(error))?;
        transaction
            .open_table(SESSION)
            .map_err(|error| at.error(error))?;
        transaction.commit().map_err(|error| at.error(error))
    }

    /// Whether it is a store, and one that this version knows.
    fn check(&self, at: At<'_>) -> Result<(), StoreError> {
        let transaction = self
            .redb(at)?
            .begin_read()
            .map_err(|error| at.error(error))?;
        let table = transaction
            .open_table(FORMAT)
            .map_err(|error| match error {
                TableError::Storage(error) => at.error(error),
                // A foreign enum that grows.
                _ => at.damaged("it is a database of something else"),
            })?;
        let version = table
            .get(FORMAT_KEY)
            .map_err(|error| at.error(error))?
            .map(|version| version.value());
        match version {
            Some(VERSION) => Ok(()),
            Some(newer) if newer > VERSION => Err(at.other(format_args!(
                "a newer version of this program wrote it (format {newer}, this one knows {VERSION})"
            ))),
            Some(_) | None => Err(at.damaged("it does not say which version wrote it")),
        }
    }

    /// Everything that is in it, in ascending order of the keys.
    pub(super) fn read(&self) -> Result<Vec<Record>, StoreError> {
        let at = self.at("reading");
        at.guard(|| {
            let transaction = self
                .redb(at)?
                .begin_read()
                .map_err(|error| at.error(error))?;
            let table = transaction
                .open_table(SESSION)
                .map_err(|error| at.error(error))?;
            let mut records = Vec::new();
            for entry in table.iter().map_err(|error| at.error(error))? {
                let (key, value) = entry.map_err(|error| at.error(error))?;
                records.push(Record::new(key.value(), value.value()));
            }
            Ok(records)
        })
    }

    /// Puts a batch on disk, whole or not at all. Nothing can be committed after an error.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let at = self.at("writing");
        let result = at.guard(|| {
            // Durable at once by default: written, then `fdatasync`.
            let transaction = self
                .redb(at)?
                .begin_write()
                .map_err(|error| at.error(error))?;
            let mut table = transaction
                .open_table(SESSION)
                .map_err(|error| at.error(error))?;
            for change in batch.iter() {
                match change {
                    Change::Put(key, value) => table.insert(key, value).map(drop),
                    Change::Remove(key) => table.remove(key).map(drop),
                }
                .map_err(|error| at.error(error))?;
            }
            drop(table);
            transaction.commit().map_err(|error| at.error(error))
        });
        if result.is_err() {
            // What reached the disk is known when it is opened again and checked.
            self.abandon();
        }
        result
    }

    /// Shrinks and closes the file. Everything is on disk already, so nothing is lost when that fails.
    pub(super) fn close(&mut self) {
        let at = At {
            doing: "closing",
            path: &self.path.clone(),
        };
        let _ = at.guard(|| self.shrink(at));
        self.abandon();
    }

    /// Closes the file as it is.
    fn abandon(&mut self) {
        if let Some(database) = self.database.take() {
            // Its end may write, and find out there that the file was changed.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(database)));
        }
    }

    /// Gives room back to the disk that a burst once needed.
    fn shrink(&mut self, at: At<'_>) -> Result<(), StoreError> {
        let Ok(length) = fs::metadata(&self.path).map(|file| file.len()) else {
            return Ok(());
        };
        if length <= SMALL {
            return Ok(());
        }
        let transaction = self
            .redb(at)?
            .begin_write()
            .map_err(|error| at.error(error))?;
        let statistics = transaction.stats().map_err(|error| at.error(error))?;
        transaction.abort().map_err(|error| at.error(error))?;
        let used = statistics.stored_bytes() + statistics.metadata_bytes();
        if used > MUCH || used * 4 > length {
            return Ok(());
        }
        let database = self.database.as_mut().ok_or_else(|| at.closed())?;
        database
            .compact()
            .map(drop)
            .map_err(|error| at.error(error))
    }

    fn redb(&self, at: At<'_>) -> Result<&redb::Database, StoreError> {
        self.database.as_ref().ok_or_else(|| at.closed())
    }

    fn at(&self, doing: &'static str) -> At<'_> {
        At {
            doing,
            path: &self.path,
        }
    }
}

/// Keeps everybody else out, also the databases of others.
#[expect(
    clippy::incompatible_msrv,
    reason = "whoever has this feature has Rust 1.90, because redb needs it"
)]
fn lock(file: &File, at: At<'_>) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(fs::TryLockError::WouldBlock) => Err(at.in_use()),
        Err(fs::TryLockError::Error(error)) => Err(at.io(error)),
    }
}

/// Makes a name durable: a file that is on disk can still be in no directory there.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Only Unix lets a directory be opened like that.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
