//! What a database says, in the words of a store.

use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use super::{StoreError, StoreErrorKind};

/// What was being done, and where: the beginning of every error.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) doing: &'static str,
    pub(super) path: &'a Path,
}

impl At<'_> {
    /// Turns a panic of the database into an error. It should have none, but it reads what others may have
    /// written, and a panic here would end the driver, or leave it waiting. A program that aborts on panics
    /// ends there, as it wants to.
    pub(super) fn guard<T>(
        self,
        work: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        panic::catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(self.damaged("the database did not expect what is in it")))
    }

    pub(super) fn io(self, error: io::Error) -> StoreError {
        StoreError::io(self.doing, self.path, error)
    }

    pub(super) fn damaged(self, what: &str) -> StoreError {
        self.because(StoreErrorKind::Damaged, format_args!("{what}"))
    }

    pub(super) fn other(self, what: fmt::Arguments<'_>) -> StoreError {
        self.because(StoreErrorKind::Other, what)
    }

    pub(super) fn closed(self) -> StoreError {
        self.other(format_args!("it was closed after an error"))
    }

    pub(super) fn in_use(self) -> StoreError {
        self.because(
            StoreErrorKind::InUse,
            format_args!("another process or another client has it open"),
        )
    }

    fn because(self, kind: StoreErrorKind, what: fmt::Arguments<'_>) -> StoreError {
        let text = format!("{} {}: {what}", self.doing, self.path.display());
        StoreError::new(kind, text)
    }

    pub(super) fn error(self, error: impl Into<redb::Error>) -> StoreError {
        match error.into() {
            redb::Error::Corrupted(what) => self.damaged(&format!("it is damaged: {what}")),
            redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                self.damaged("it is not a store")
            }
            redb::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.damaged("it was cut off")
            }
            redb::Error::Io(error) => self.io(error),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => self.in_use(),
            redb::Error::UpgradeRequired(version) => self.other(format_args!(
                "a version of redb wrote it that is not this one (format {version})"
            )),
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TypeDefinitionChanged { .. }) => self.damaged(&error.to_string()),
            // A foreign enum that grows.
            error => self.other(format_args!("{error}")),
        }
    }
}
