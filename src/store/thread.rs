//! The one thread of a store: what waits for a disk happens there, never in the driver's turn.
//!
//! Two threads meet at one desk, which holds one batch:
//!
//! ```text
//!           submit              the thread takes it
//!   Free ───────────► Waiting ────────────────────► Committing ──────► Committed
//!     ▲                                                  │                 │
//!     │                                                  └──► Failed       │
//!     └────────────────────── told by poll ────────────────────────────────┘
//! ```
//!
//! `Failed` is final. A lock and a condition variable do no harm here: they are taken a few times per batch,
//! never for a message, and nobody waits under the lock. The thread starts with the first batch, so that a
//! client that has nothing to keep has no thread, and ends with the store, after the batch that is still on
//! its way. Without a batch it starts to close the file, which waits for the disk, too. Whoever drops the store
//! waits for the thread, but not for ever: a disk that does not answer would hold up every task of the client's
//! thread. Then the thread is left alone with it.

use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::database::Database;
use super::{Batch, StoreError, StoreErrorKind};

/// Shown by `top` and debuggers; Linux cuts a name after 15 bytes.
const THREAD_NAME: &str = "coracle-store";

/// How long a drop waits for the disk: as long as the end of a client does.
const PATIENCE: Duration = Duration::from_secs(5);

/// Commits one batch after the other.
#[derive(Debug)]
pub(super) struct Committer {
    desk: Arc<Desk>,
    thread: Thread,
    /// How long the drop waits for the thread.
    patience: Duration,
}

/// Whether the thread runs, and where the database is.
#[derive(Debug)]
enum Thread {
    Absent(Database),
    Present(JoinHandle<()>),
    /// It could not be started; the desk says why.
    Impossible,
}

#[derive(Debug)]
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    work: Work,
    owner: Owner,
    /// Who waits for the batch.
    waker: Waker,
    course: Course,
}

#[derive(Debug)]
enum Work {
    Free,
    Waiting(Batch),
    Committing,
    Committed,
    Failed(StoreError),
}

/// Whether the thread is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Runs,
    /// The file is closed.
    Over,
}

/// Whether more batches can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Here,
    Gone,
}

impl Committer {
    pub(super) fn new(database: Database) -> Self {
        let state = State {
            work: Work::Free,
            owner: Owner::Here,
            waker: Waker::noop().clone(),
            course: Course::Runs,
        };
        Self {
            desk: Arc::new(Desk {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            thread: Thread::Absent(database),
            patience: PATIENCE,
        }
    }

    /// The database, as long as no batch was handed over.
    pub(super) fn database(&self) -> Option<&Database> {
        match &self.thread {
            Thread::Absent(database) => Some(database),
            Thread::Present(_) | Thread::Impossible => None,
        }
    }

    /// Hands over a batch. After a failure nothing is committed any more.
    pub(super) fn submit(&mut self, batch: Batch) {
        self.desk.put(batch);
        self.thread = self.started();
    }

    /// Takes the thread out. Starts it if it does not run yet.
    fn started(&mut self) -> Thread {
        let mut database = match mem::replace(&mut self.thread, Thread::Impossible) {
            Thread::Absent(database) => database,
            thread @ (Thread::Present(_) | Thread::Impossible) => return thread,
        };
        let leaving = Leaving(Arc::clone(&self.desk));
        let work = move || {
            leaving.0.work(&mut database);
            database.close();
        };
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
        match thread.spawn(work) {
            Ok(handle) => Thread::Present(handle),
            Err(error) => {
                let text = format!("no thread for the store: {error}");
                let error = StoreError::new(StoreErrorKind::Other, text);
                self.desk.end(Err(error));
                Thread::Impossible
            }
        }
    }

    /// The disk was waited for long enough.
    pub(super) fn give_up(&mut self) {
        self.patience = Duration::ZERO;
    }

    /// How the batch ended, or not yet; then this waker is woken when it has.
    pub(super) fn poll_committed(&self, waker: &Waker) -> Poll<Result<(), StoreError>> {
        self.desk.poll(waker)
    }
}

/// Tells the desk that the thread is over, however it ends.
struct Leaving(Arc<Desk>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.lock().course = Course::Over;
        self.0.changed.notify_one();
    }
}

impl Drop for Committer {
    /// Waits until the batch on its way is on disk and the file is closed: whoever opens it next finds
    /// everything in it, and no lock. Where the disk does not answer it stays open until that does. A database
    /// that had no batch is closed by the thread as well: closing writes and syncs.
    fn drop(&mut self) {
        match self.started() {
            Thread::Present(handle) => {
                match self.desk.leave(self.patience) {
                    // It catches panics; one that got through was told by the panic hook.
                    Course::Over => drop(handle.join()),
                    Course::Runs => {}
                }
            }
            Thread::Absent(_) | Thread::Impossible => {}
        }
    }
}

impl Desk {
    /// The life of the thread.
    fn work(&self, database: &mut Database) {
        while let Some(batch) = self.next() {
            let result = database.commit(&batch);
            let failed = result.is_err();
            self.end(result);
            if failed {
                return;
            }
        }
    }

    /// The next batch. `None` ends the thread.
    fn next(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            match mem::replace(&mut state.work, Work::Committing) {
                Work::Waiting(batch) => return Some(batch),
                work @ (Work::Free | Work::Committing | Work::Committed | Work::Failed(_)) => {
                    state.work = work;
                }
            }
            if state.owner == Owner::Gone {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says how the batch ended; its waiter is woken outside of the lock.
    fn end(&self, result: Result<(), StoreError>) {
        let mut state = self.lock();
        state.work = match result {
            Ok(()) => Work::Committed,
            Err(error) => Work::Failed(error),
        };
        let waker = mem::replace(&mut state.waker, Waker::noop().clone());
        drop(state);
        // A panic of a waker would end the thread with a database that nobody closes. The panic itself
        // has been told by the panic hook.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }

    fn put(&self, batch: Batch) {
        let mut state = self.lock();
        if let Work::Failed(_) = state.work {
            return;
        }
        state.work = Work::Waiting(batch);
        drop(state);
        self.changed.notify_one();
    }

    /// No batch will come any more. Waits for the end of the thread, but not longer than this, and says how far it
    /// has got.
    fn leave(&self, patience: Duration) -> Course {
        let mut state = self.lock();
        state.owner = Owner::Gone;
        self.changed.notify_one();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, patience, |state| state.course == Course::Runs)
            .unwrap_or_else(PoisonError::into_inner);
        state.course
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<(), StoreError>> {
        // Cloning and dropping a waker runs code of the executor: both happen outside of the lock.
        let mut waker = waker.clone();
        let mut state = self.lock();
        let poll = match &state.work {
            Work::Committed => Poll::Ready(Ok(())),
            Work::Failed(error) => Poll::Ready(Err(error.clone())),
            Work::Free | Work::Waiting(_) | Work::Committing => Poll::Pending,
        };
        match &poll {
            Poll::Ready(Ok(())) => state.work = Work::Free,
            Poll::Ready(Err(_)) => {}
            Poll::Pending => mem::swap(&mut state.waker, &mut waker),
        }
        drop(state);
        drop(waker);
        poll
    }

    /// No foreign code runs under this lock, so a poisoned state is still a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
