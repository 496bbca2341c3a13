//! The options about what outlives the process.

use std::cell::RefCell;
use std::rc::Rc;

use super::Options;
use crate::error::{Error, Result};
use crate::store::Store;

/// Where the session is kept, if anywhere.
#[derive(Clone, Default)]
pub(crate) struct Storage {
    place: Place,
    pub(crate) go_on: bool,
}

/// Options are cloned, and a store serves one client.
#[derive(Clone, Default)]
enum Place {
    #[default]
    Nowhere,
    /// None once a client has it.
    In(Rc<RefCell<Option<Box<dyn Store>>>>),
}

impl Storage {
    /// The store, for the one client that gets it. None if there is none, or if another client has it.
    pub(crate) fn take(&self) -> Option<Box<dyn Store>> {
        match &self.place {
            Place::Nowhere => None,
            Place::In(store) => store.take(),
        }
    }

    fn is_wanted(&self) -> bool {
        match self.place {
            Place::Nowhere => false,
            Place::In(_) => true,
        }
    }
}

impl Options {
    /// Keeps the session in a store, so that it survives the end of the process: messages of QoS 1 and 2
    /// in both directions, packet identifiers, subscriptions. Defaults to none: then the session ends with
    /// the process.
    ///
    /// The session of the process before is taken over, both with [`Session::Fresh`] and with
    /// [`Session::Resume`]; they differ only while the store is empty: what the broker has from a time
    /// before the store is discarded or taken over. [`Event::Restored`] tells what was found.
    ///
    /// - A message of QoS 1 or 2 is on disk when its `publish` with [`Wait::Sent`] returns, and before
    ///   any byte of it leaves. With [`Wait::None`] it will be soon.
    /// - What is acknowledged on receipt, or because it was not taken in time, is on disk first, and comes
    ///   to the streams of the next process if the one before had not taken it: once for each of their filters,
    ///   however often that is subscribed to again.
    /// - When the client ends, by `disconnect()` too, what its streams hold of QoS 1 and 2 is not yielded any
    ///   more, but comes to the streams of the next process: nothing could record any more that it was taken.
    ///   Read the streams before, if this process is to have it.
    /// - QoS 2 arrives once, with one exception that nothing can mend: a message that was taken by the
    ///   program just before the process was killed, and not yet recorded as taken, is taken again by
    ///   the next process. It is recorded when the last of the streams that got it has taken it; until then it
    ///   comes again to all of them.
    /// - Streams are not kept. Subscribe again, best before the driver runs: a message that matches no
    ///   subscription is acknowledged and dropped. What a subscribe that fails would have got waits for the
    ///   next one, and so does what a stream with [`Overflow::End`] had no room for.
    ///   [`Options::take_timeout`] after the first connection what was not subscribed to again is
    ///   unsubscribed, and what was left for it is forgotten.
    /// - `disconnect()` does not end the session at the broker; it ends when its
    ///   [`Options::session_expiry`] passes. Drop streams after it, not before: that unsubscribes.
    ///
    /// Each message of QoS 1 and 2 then waits for the disk, many of them at a time. Messages of QoS 0 do
    /// not, and are not kept.
    ///
    /// Options can be cloned, a store not: the first client that is made of them gets it, and the driver of
    /// another one ends with a misuse. With [`Session::None`], or an expiry of 0, it is a misuse too.
    ///
    /// If the store fails, the driver ends with [`ErrorKind::Store`], and every wait for a message of QoS 1
    /// or 2: nothing is acknowledged that is not kept. So does a store that has not kept the last changes 5 s
    /// after the client was to end; `disconnect()` then ends with `Closed`. See [`Options::go_on_without_store`].
    ///
    /// [`Overflow::End`]: crate::Overflow::End
    /// [`Session::Fresh`]: crate::Session::Fresh
    /// [`Session::Resume`]: crate::Session::Resume
    /// [`Session::None`]: crate::Session::None
    /// [`Event::Restored`]: crate::Event::Restored
    /// [`ErrorKind::Store`]: crate::ErrorKind::Store
    /// [`Wait::Sent`]: crate::Wait::Sent
    /// [`Wait::None`]: crate::Wait::None
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.storage.place = Place::In(Rc::new(RefCell::new(Some(Box::new(store)))));
        self.config.stored = true;
        self
    }

    /// Sets whether the client goes on as if it had no store when that fails, after an
    /// [`Event::StoreFailed`](crate::Event::StoreFailed). What waited for the disk then leaves without it, and
    /// the session ends with the process, as without a store. What is in the store stays as it was: it is out of
    /// date, so remove it before a next process uses it, or messages of QoS 2 may come twice. Defaults to false:
    /// the driver ends with the error.
    pub fn go_on_without_store(mut self, go_on: bool) -> Self {
        self.storage.go_on = go_on;
        self
    }

    /// Whether there can be a session to keep.
    pub(super) fn check_storage(&self) -> Result<()> {
        if !self.storage.is_wanted() {
            return Ok(());
        }
        if !self.config.keeps_session() {
            return Err(Error::misuse(
                "a store needs a session that outlives its connection",
            ));
        }
        Ok(())
    }

    /// Whether another client has the store of these options.
    pub(crate) fn lacks_store(&self) -> bool {
        match &self.storage.place {
            Place::Nowhere => false,
            Place::In(store) => store.borrow().is_none(),
        }
    }
}
