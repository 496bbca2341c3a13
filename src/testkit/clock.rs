//! A clock that only a test moves.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::clock::{Clock, LocalBoxFuture, SystemClock};

/// What the wall clock says at the start of every [`FakeClock`]: 2026-01-01T00:00:00Z.
const START: Duration = Duration::from_secs(1_767_225_600);

/// A [`Clock`] that stands still until [`FakeClock::advance`] moves it.
///
/// Clones show the same time. Sleeps end during the call that moves the clock past their deadline;
/// their tasks run when the executor is next ticked.
///
/// ```
/// use coracle::Clock;
/// use coracle::testkit::FakeClock;
/// use std::time::Duration;
///
/// let clock = FakeClock::new();
/// let start = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now() - start, Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct FakeClock(Rc<Face>);

struct Face {
    start: Instant,
    now: Cell<Instant>,
    sleepers: RefCell<Slab<Sleeper>>,
}

struct Sleeper {
    deadline: Instant,
    waker: Waker,
}

impl FakeClock {
    /// A clock that shows some instant; only the difference of two instants means anything.
    pub fn new() -> Self {
        // An `Instant` cannot be made from a number, so the first one comes from the system.
        let start = SystemClock.now();
        Self(Rc::new(Face {
            start,
            now: Cell::new(start),
            sleepers: RefCell::new(Slab::new()),
        }))
    }

    /// Moves the clock and wakes whoever slept until then.
    pub fn advance(&self, by: Duration) {
        self.advance_to(self.now() + by);
    }

    /// Moves the clock to `instant`, or leaves it where it is if that has passed.
    pub fn advance_to(&self, instant: Instant) {
        self.0.now.set(self.now().max(instant));
        let now = self.now();
        let mut due = Vec::new();
        self.0.sleepers.borrow_mut().retain(|_, sleeper| {
            if sleeper.deadline > now {
                return true;
            }
            due.push((sleeper.deadline, sleeper.waker.clone()));
            false
        });
        due.sort_by_key(|(deadline, _)| *deadline);
        // Woken after the borrow: a waker may run code that sleeps again.
        for (_, waker) in due {
            waker.wake();
        }
    }

    /// The earliest instant that somebody sleeps until.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sleepers = self.0.sleepers.borrow();
        sleepers.iter().map(|(_, sleeper)| sleeper.deadline).min()
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        self.0.now.get()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()> {
        Box::pin(Sleep {
            clock: self.clone(),
            deadline,
            key: None,
        })
    }

    /// Begins with 2026-01-01T00:00:00Z and goes with the clock.
    fn unix_time(&self) -> Duration {
        START + (self.now() - self.0.start)
    }
}

impl fmt::Debug for FakeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeClock")
            .field("now", &self.now())
            .field("sleepers", &self.0.sleepers.borrow().len())
            .finish()
    }
}

/// Ends when the clock reaches `deadline`.
struct Sleep {
    clock: FakeClock,
    deadline: Instant,
    key: Option<usize>,
}

impl Sleep {
    /// Takes this sleep out of the list; it is gone already if the clock has passed its deadline.
    fn forget(&mut self) {
        if let Some(key) = self.key.take() {
            // A key whose sleeper was woken may belong to a later sleep by now. Sleepers are woken when
            // their deadline passes, so a deadline ahead tells that the entry is still ours.
            if self.deadline > self.clock.now() {
                let gone = self.clock.0.sleepers.borrow_mut().try_remove(key);
                // After the borrow: the last waker of a task drops the task, which may sleep too.
                drop(gone);
            }
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if self.deadline <= self.clock.now() {
            return Poll::Ready(());
        }
        let key = self.clock.0.sleepers.borrow_mut().insert(Sleeper {
            deadline: self.deadline,
            waker: cx.waker().clone(),
        });
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}
