//! Bytes that leave while the connection cannot see it.
//!
//! A layer that frames or encrypts takes up to 64 KiB at once and then gets rid of them as the link allows. Until
//! all are gone it can only say that it is not done: on a slow link for minutes. That is no dead link, so such a
//! layer counts here what goes on below it.

use std::cell::Cell;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that were taken below a layer so far, on this thread. Two looks in a turn say whether any were meanwhile.
pub(crate) fn taken() -> u64 {
    TAKEN.get()
}

/// The transport below a layer has taken bytes.
#[cfg(any(feature = "tls", feature = "websocket"))]
pub(super) fn took(count: usize) {
    TAKEN.set(TAKEN.get().wrapping_add(count as u64));
}
