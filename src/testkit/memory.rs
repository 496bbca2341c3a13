//! A store in memory, which outlives the client that has it and fails when it is told to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::store::{Batch, Record, Store, StoreError};

/// A [`Store`] in memory: a cheap clone, so that a test keeps it when the client ends, and gives it to the
/// next one.
///
/// By default a batch is kept at once. After [`MemoryStore::hold`] it is kept when the test says so:
///
/// ```
/// use coracle::testkit::{BrokerOptions, MemoryStore, World};
/// use coracle::{Client, Options, Qos, Wait};
///
/// let world = World::new(BrokerOptions::new());
/// let store = MemoryStore::new();
/// let options = Options::new("mqtt://broker", "pump-1")?
///     .connector(world.network())
///     .clock(world.clock())
///     .store(store.clone());
/// let (client, driver) = Client::new(options);
/// let driver = world.spawn(driver.run());
/// store.hold();
/// let sent = world.spawn(client.publish("t", "x", Qos::AtLeastOnce, Wait::Sent));
/// world.run_until_idle();
/// assert!(!sent.is_finished());
/// while store.commit() {
///     world.run_until_idle();
/// }
/// assert!(sent.is_finished());
/// # drop(driver);
/// # Ok::<(), coracle::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore(Rc<RefCell<Memory>>);

#[derive(Default)]
struct Memory {
    records: BTreeMap<u64, Vec<u8>>,
    under_way: Option<Batch>,
    pace: Pace,
    fails: Option<StoreError>,
    batches: u64,
    waker: Option<Waker>,
}

/// When a batch is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pace {
    #[default]
    AtOnce,
    WhenTold,
}

impl MemoryStore {
    /// An empty one that keeps every batch at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on a batch is kept only when [`MemoryStore::commit`] says so.
    pub fn hold(&self) {
        self.0.borrow_mut().pace = Pace::WhenTold;
    }

    /// From now on every batch is kept at once, the one that is on its way too.
    pub fn release(&self) {
        self.0.borrow_mut().pace = Pace::AtOnce;
        self.commit();
    }

    /// The batch that is on its way is kept. Returns whether there was one.
    pub fn commit(&self) -> bool {
        let mut memory = self.0.borrow_mut();
        let kept = memory.commit();
        let waker = memory.waker.take();
        drop(memory);
        if let Some(waker) = waker {
            waker.wake();
        }
        kept
    }

    /// The next thing that is asked of it fails with this error: reading, or the batch that is on its way or
    /// comes next.
    pub fn fail(&self, error: StoreError) {
        let mut memory = self.0.borrow_mut();
        memory.fails = Some(error);
        let waker = memory.waker.take();
        drop(memory);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The process has been killed: the batch that was on its way is lost, and a failure is over.
    pub fn crash(&self) {
        let mut memory = self.0.borrow_mut();
        memory.under_way = None;
        memory.fails = None;
        memory.waker = None;
    }

    /// What is kept.
    pub fn records(&self) -> Vec<Record> {
        let memory = self.0.borrow();
        let records = memory.records.iter();
        records
            .map(|(key, value)| Record::new(*key, value.clone()))
            .collect()
    }

    /// How many batches were handed over.
    pub fn batches(&self) -> u64 {
        self.0.borrow().batches
    }
}

impl Memory {
    fn commit(&mut self) -> bool {
        let Some(batch) = self.under_way.take() else {
            return false;
        };
        batch.apply_to(&mut self.records);
        true
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        let failed = self.0.borrow_mut().fails.take();
        match failed {
            Some(error) => Err(error),
            None => Ok(self.records()),
        }
    }

    fn submit(&mut self, batch: Batch) {
        let mut memory = self.0.borrow_mut();
        assert!(memory.under_way.is_none(), "one batch at a time");
        assert!(!batch.is_empty(), "a batch has changes");
        memory.batches += 1;
        memory.under_way = Some(batch);
    }

    fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let mut memory = self.0.borrow_mut();
        if let Some(error) = memory.fails.take() {
            memory.under_way = None;
            return Poll::Ready(Err(error));
        }
        if memory.pace == Pace::AtOnce {
            memory.commit();
        }
        if memory.under_way.is_none() {
            return Poll::Ready(Ok(()));
        }
        memory.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.0.borrow();
        f.debug_struct("MemoryStore")
            .field("records", &memory.records.len())
            .field("batches", &memory.batches)
            .finish_non_exhaustive()
    }
}
