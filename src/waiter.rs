//! Waits: entries of a slab, ended by the protocol, by time, or by the end of the client.
//!
//! ```text
//!     a call ──► Waiting ── answered, or timed out and settled, closed ──► Done ── the future takes it ──► gone
//!                   ├── timed out, and the answer is still to come ──► Late ── answered ──► Done
//!                   └── the future is dropped ──► Abandoned ── answered ──► gone
//! ```
//!
//! What is different about the wait for the answer to a request is in `asking`.
//!
//! An entry is shared by its future and by the protocol; whoever comes second frees it. So no key is
//! ever used for two waits at a time.

mod asking;

use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::error::{Doing, Error, ErrorKind, Result};
use crate::message::Qos;
use crate::protocol::{Done, Token};

use asking::Settled;
pub(crate) use asking::{Answer, AnswerProgress, Asked};

/// All waits of one client.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    slab: Slab<Waiter>,
    /// Waits that began since the driver's last turn: it knows the time.
    unstamped: Vec<Token>,
    /// No wait ends by time before this; perhaps later.
    next_expiry: Option<Instant>,
}

#[derive(Debug)]
enum Waiter {
    Waiting(Waiting),
    Done(Result<Done>),
    /// Timed out: the future takes the error, and the protocol has yet to answer.
    Late(Error),
    /// The answer to a request.
    Answered(Answer),
    /// The same, and the protocol has yet to say what became of the request.
    Early(Answer),
    Abandoned,
}

/// What a future leaves behind when it is dropped.
#[derive(Debug)]
pub(crate) enum Left {
    Nothing,
    /// A wait that goes on: a caller in line is withdrawn.
    Waiting(Waiting),
    /// An answer that nobody takes.
    Answer(Answer),
}

/// What became of a wait.
#[derive(Debug)]
pub(crate) enum Finished {
    /// It is over, or goes on for another reason; this one is to be woken.
    Noted(Option<Waker>),
    /// Nobody waits any more for this outcome.
    Unwanted(Result<Done>),
    /// The request is to be published again; it is held at this place now.
    Again(u64),
}

/// Waits that no packet answers, but a condition: they end here, so whoever gives up leaves at once.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// Callers of `connected()`.
    pub(crate) connected: Vec<Token>,
    /// Callers of `ready()`.
    pub(crate) ready: Vec<Token>,
    /// Callers of `disconnect()`.
    pub(crate) closed: Vec<Token>,
}

impl Conditions {
    /// Takes a caller out. Returns whether it was there: then nobody will answer it any more.
    pub(crate) fn forget(&mut self, token: Token) -> bool {
        [&mut self.connected, &mut self.ready, &mut self.closed]
            .into_iter()
            .any(|list| match list.iter().position(|other| *other == token) {
                Some(index) => {
                    list.remove(index);
                    true
                }
                None => false,
            })
    }
}

/// A wait that goes on.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) waker: Option<Waker>,
    doing: Doing,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    /// Its place, while it is in line: then nothing was sent.
    pub(crate) parked: Option<Place>,
    /// Of the wait for an answer: boxed, because most waits are others.
    asked: Option<Box<Asked>>,
}

/// Where a caller waits whose message has not been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// For room, among the messages of this QoS.
    Line(Qos, u64),
    /// For the subscription that brings the answers.
    Held(u64),
}

/// What a poll of a wait finds.
#[derive(Debug)]
pub(crate) enum Progress {
    Pending,
    Ready(Result<Done>),
}

impl Waiters {
    /// Begins a wait.
    pub(crate) fn insert(&mut self, doing: Doing, timeout: Option<Duration>) -> Token {
        let waiting = Waiting {
            waker: None,
            doing,
            timeout,
            deadline: None,
            parked: None,
            asked: None,
        };
        let token = self.slab.insert(Waiter::Waiting(waiting));
        if timeout.is_some() {
            self.unstamped.push(token);
        }
        token
    }

    /// How many there are, the abandoned ones that are still to be answered included.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Forgets a wait that nobody else has heard of.
    pub(crate) fn remove(&mut self, token: Token) {
        self.slab.try_remove(token);
        if self.unstamped.last() == Some(&token) {
            self.unstamped.pop();
        }
    }

    /// Sets how long this wait lasts at most, from the driver's next turn on.
    pub(crate) fn set_timeout(&mut self, token: Token, timeout: Duration) {
        if let Some(Waiter::Waiting(waiting)) = self.slab.get_mut(token) {
            waiting.timeout = Some(timeout);
            waiting.deadline = None;
            self.unstamped.push(token);
        }
    }

    /// The caller of this wait is in line.
    pub(crate) fn park(&mut self, token: Token, place: Place) {
        if let Some(Waiter::Waiting(waiting)) = self.slab.get_mut(token) {
            waiting.parked = Some(place);
        }
    }

    /// The protocol is done with a wait.
    pub(crate) fn finish(&mut self, token: Token, outcome: Result<Done>) -> Finished {
        let Some(waiter) = self.slab.get_mut(token) else {
            return Finished::Noted(None);
        };
        match waiter {
            Waiter::Waiting(waiting) => {
                let outcome = match waiting.settle(outcome) {
                    Settled::Over(outcome) => outcome,
                    Settled::Awaited => return Finished::Noted(None),
                    Settled::Again(place) => return Finished::Again(place),
                };
                let waker = waiting.waker.take();
                *waiter = Waiter::Done(outcome);
                Finished::Noted(waker)
            }
            Waiter::Early(_) => {
                // Whatever became of the request, it was answered.
                waiter.make_due();
                Finished::Noted(None)
            }
            Waiter::Late(error) => {
                // The future may still take its error; the key is its alone from now on.
                let error = error.clone();
                *waiter = Waiter::Done(Err(error));
                Finished::Unwanted(outcome)
            }
            Waiter::Done(_) | Waiter::Answered(_) => Finished::Noted(None),
            Waiter::Abandoned => {
                self.slab.remove(token);
                Finished::Unwanted(outcome)
            }
        }
    }

    /// Whether the wait is over; else remembers whom to wake. Returns a waker to be dropped.
    pub(crate) fn poll(&mut self, token: Token, waker: &Waker) -> (Progress, Option<Waker>) {
        let Some(waiter) = self.slab.get_mut(token) else {
            return (Progress::Ready(Err(Error::closed(Doing::Connected))), None);
        };
        match waiter {
            Waiter::Waiting(waiting) => match &waiting.waker {
                Some(old) if old.will_wake(waker) => (Progress::Pending, None),
                Some(_) | None => (Progress::Pending, waiting.waker.replace(waker.clone())),
            },
            Waiter::Late(error) => {
                let error = error.clone();
                *waiter = Waiter::Abandoned;
                (Progress::Ready(Err(error)), None)
            }
            Waiter::Done(_) | Waiter::Answered(_) | Waiter::Early(_) | Waiter::Abandoned => {
                match self.slab.remove(token) {
                    Waiter::Done(outcome) => (Progress::Ready(outcome), None),
                    Waiter::Waiting(_)
                    | Waiter::Late(_)
                    | Waiter::Answered(_)
                    | Waiter::Early(_)
                    | Waiter::Abandoned => {
                        (Progress::Ready(Err(Error::closed(Doing::Connected))), None)
                    }
                }
            }
        }
    }

    /// The future is dropped.
    pub(crate) fn abandon(&mut self, token: Token) -> Left {
        let Some(waiter) = self.slab.get_mut(token) else {
            return Left::Nothing;
        };
        match std::mem::replace(waiter, Waiter::Abandoned) {
            Waiter::Waiting(waiting) => Left::Waiting(waiting),
            Waiter::Late(_) => Left::Nothing,
            Waiter::Early(answer) => Left::Answer(answer),
            Waiter::Answered(answer) => {
                self.slab.remove(token);
                Left::Answer(answer)
            }
            Waiter::Done(_) | Waiter::Abandoned => {
                self.slab.remove(token);
                Left::Nothing
            }
        }
    }

    /// Gives the waits that began since the last call their deadlines.
    pub(crate) fn stamp(&mut self, now: Instant) {
        while let Some(token) = self.unstamped.pop() {
            let Some(Waiter::Waiting(waiting)) = self.slab.get_mut(token) else {
                continue;
            };
            if let Some(asked) = &mut waiting.asked {
                asked.stamp(now);
            }
            // Without a deadline if there is no timeout, or one beyond the end of time.
            let Some(deadline) = waiting.timeout.and_then(|timeout| now.checked_add(timeout))
            else {
                continue;
            };
            waiting.deadline = Some(deadline);
            self.next_expiry = Some(self.next_expiry.map_or(deadline, |next| next.min(deadline)));
        }
    }

    /// When [`Waiters::expire`] has something to do; perhaps a little early.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Ends the waits whose time is over. `withdraw` gets a caller, and its place if it was in line, takes
    /// it out of whatever it waited for, and says whether nobody will answer it now; `wake` gets who is to
    /// be woken.
    ///
    /// All are looked at, but seldom: the bound moves on by at least the shortest wait that began since.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        because: Option<&Error>,
        mut withdraw: impl FnMut(Token, Option<Place>) -> bool,
        mut wake: impl FnMut(Option<Waker>),
    ) {
        if self.next_expiry.is_none_or(|next| now < next) {
            return;
        }
        self.next_expiry = None;
        for (token, waiter) in &mut self.slab {
            let Waiter::Waiting(waiting) = waiter else {
                continue;
            };
            let Some(deadline) = waiting.deadline else {
                continue;
            };
            if deadline > now {
                let next = self.next_expiry.map_or(deadline, |next| next.min(deadline));
                self.next_expiry = Some(next);
                continue;
            }
            wake(waiting.waker.take());
            let is_settled = waiting.is_settled() || withdraw(token, waiting.parked);
            let kind = ErrorKind::TimedOut(waiting.timeout.unwrap_or_default());
            let error = Error::new(kind, waiting.doing).because(because);
            let error = error.sent_as(waiting.sent(is_settled));
            *waiter = if is_settled {
                Waiter::Done(Err(error))
            } else {
                Waiter::Late(error)
            };
        }
    }

    /// The client is closed: every wait that goes on ends.
    pub(crate) fn close(&mut self, because: Option<&Error>, mut wake: impl FnMut(Option<Waker>)) {
        self.slab.retain(|_, waiter| {
            match waiter {
                Waiter::Waiting(waiting) => {
                    wake(waiting.waker.take());
                    let error = Error::closed(waiting.doing).because(because);
                    let sent = waiting.sent(true);
                    *waiter = Waiter::Done(Err(error.sent_as(sent)));
                }
                Waiter::Late(error) => *waiter = Waiter::Done(Err(error.clone())),
                Waiter::Early(_) => waiter.make_due(),
                Waiter::Done(_) | Waiter::Answered(_) => {}
                Waiter::Abandoned => return false,
            }
            true
        });
        self.unstamped = Vec::new();
        self.next_expiry = None;
    }
}
