//! The wait for the answer to a request, which ends when somebody else answers, and before that may end
//! as a publication does.
//!
//! ```text
//!             sent             flushed, or acknowledged       its answer comes
//!     Held ─────────► Handed ──────────────────────────► Out ────────────────► Answered ──► gone
//!      ▲                │ │ its answer comes: Early ──────────────────────────────▲
//!      │                │ └ refused, expired: Done        │
//!      └────────────────┴─────── QoS 0, link lost ────────┘
//! ```
//!
//! At QoS 0 the answer is the only acknowledgement, so a request is kept here until it comes, and is
//! published again when the link was lost. At QoS 1 and 2 the protocol does that until the broker has it.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Place, Waiter, Waiters, Waiting};
use crate::error::{Doing, Error, ErrorKind, Result, Sent};
use crate::message::{Message, Qos};
use crate::protocol::{Done, Receipt, Token};
use crate::reason::Reason;

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What its answer has to bring.
    pub(crate) tag: u64,
    /// Its place among all requests.
    pub(crate) place: u64,
    /// The request itself, for as long as it may have to be sent from here.
    message: Option<Message>,
    /// When the request itself is of no use any more, counted from the call and not from when it leaves.
    expires: Option<Instant>,
    stage: Stage,
    sent: Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for the subscription that brings the answers.
    Held,
    /// The protocol has it, and will say what became of it.
    Handed,
    /// The protocol is done with it.
    Out,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: Message,
    /// What is to be acknowledged when it is taken.
    pub(crate) receipt: Option<Receipt>,
}

/// What a poll of the wait for an answer finds.
#[derive(Debug)]
pub(crate) enum AnswerProgress {
    Pending,
    Ready(Result<Answer>),
}

/// What a word of the protocol means for a wait.
#[derive(Debug)]
pub(super) enum Settled {
    Over(Result<Done>),
    /// The answer is still to come.
    Awaited,
    /// The request is to be published again, and is held at this place.
    Again(u64),
}

/// Who is to be woken because an answer came.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) waker: Option<Waker>,
    /// Where the request was held, to be published again.
    pub(crate) held: Option<u64>,
}

impl Asked {
    /// A request that was not sent.
    pub(crate) fn new(tag: u64, place: u64, message: Message) -> Self {
        Self {
            tag,
            place,
            message: Some(message),
            expires: None,
            stage: Stage::Held,
            sent: Sent::No,
        }
    }

    /// It was made just before this instant.
    pub(super) fn stamp(&mut self, now: Instant) {
        let list = self.message.as_ref().map(Message::property_list);
        let seconds = list.and_then(|list| list.message_expiry_interval());
        if let (Some(seconds), None) = (seconds, self.expires) {
            self.expires = now.checked_add(Duration::from_secs(seconds.into()));
        }
    }
}

impl Waiting {
    /// Whether the protocol is done with it, although it still waits.
    pub(crate) fn is_settled(&self) -> bool {
        let asked = self.asked.as_ref();
        asked.is_some_and(|asked| asked.stage == Stage::Out)
    }

    /// Whether the message of a wait that ends now has left; what was accepted may leave without it.
    pub(super) fn sent(&self, is_settled: bool) -> Sent {
        match (&self.asked, is_settled) {
            (Some(asked), _) if asked.sent != Sent::No => asked.sent,
            (Some(_) | None, true) => Sent::No,
            (Some(_) | None, false) => Sent::Maybe,
        }
    }

    /// The protocol is done with the message.
    pub(super) fn settle(&mut self, outcome: Result<Done>) -> Settled {
        let Some(asked) = &mut self.asked else {
            return Settled::Over(outcome);
        };
        match outcome {
            // For a publication that is no failure (situation 6); a request would wait in vain.
            Ok(Done::Acknowledged(reason, remarks))
                if reason == Reason::NO_MATCHING_SUBSCRIBERS =>
            {
                Settled::Over(Err(Error::refused(
                    reason,
                    None,
                    remarks,
                    Doing::Requesting,
                )))
            }
            Ok(done) => {
                asked.stage = Stage::Out;
                asked.sent = match done {
                    Done::Acknowledged(..) => Sent::Yes,
                    Done::Sent
                    | Done::Granted(..)
                    | Done::Unsubscribed(..)
                    | Done::Pong
                    | Done::Authenticated => Sent::Maybe,
                };
                Settled::Awaited
            }
            Err(error) => match (error.kind(), &asked.message) {
                (ErrorKind::LinkLost, Some(_)) => {
                    if error.sent() != Sent::No {
                        asked.sent = error.sent();
                    }
                    asked.stage = Stage::Held;
                    self.parked = Some(Place::Held(asked.place));
                    Settled::Again(asked.place)
                }
                (_, _) => {
                    // Not sent: what it says about is the subscription for the answers.
                    // It may be this sending that failed, and an earlier one that has left.
                    let sent = match (asked.stage, error.sent()) {
                        (Stage::Held, _) | (Stage::Handed | Stage::Out, Sent::No) => asked.sent,
                        (Stage::Handed | Stage::Out, sent @ (Sent::Maybe | Sent::Yes)) => sent,
                    };
                    let error = error.while_doing(Doing::Requesting);
                    Settled::Over(Err(error.sent_as(sent)))
                }
            },
        }
    }
}

impl Waiter {
    /// The protocol is done with a request that was answered before: the answer counts.
    pub(super) fn make_due(&mut self) {
        *self = match std::mem::replace(self, Self::Abandoned) {
            Self::Early(answer) => Self::Answered(answer),
            other => other,
        };
    }
}

impl Waiters {
    /// The wait of this token is for the answer to this request.
    pub(crate) fn ask(&mut self, token: Token, asked: Asked) {
        if let Some(Waiter::Waiting(waiting)) = self.slab.get_mut(token) {
            waiting.parked = Some(Place::Held(asked.place));
            waiting.asked = Some(Box::new(asked));
        }
    }

    /// The request of this wait is handed to the protocol now. Returns it with its tag, and with what is left
    /// of its expiry; what may have to be sent again stays here too.
    ///
    /// # Errors
    /// It has expired.
    pub(crate) fn hand_over(
        &mut self,
        token: Token,
        now: Option<Instant>,
    ) -> Result<Option<(Message, u64)>> {
        let Some(Waiter::Waiting(waiting)) = self.slab.get_mut(token) else {
            return Ok(None);
        };
        let Some(asked) = &mut waiting.asked else {
            return Ok(None);
        };
        let left = match (asked.expires, now) {
            (Some(end), Some(now)) if end <= now => {
                let error = Error::new(ErrorKind::Expired, Doing::Requesting);
                return Err(error.sent_as(asked.sent));
            }
            (Some(end), Some(now)) => Some(end - now),
            (None, _) | (_, None) => None,
        };
        waiting.parked = None;
        asked.stage = Stage::Handed;
        let message = match asked.message.as_ref().map(Message::quality_of_service) {
            Some(Qos::AtMostOnce) => asked.message.clone(),
            Some(Qos::AtLeastOnce | Qos::ExactlyOnce) => asked.message.take(),
            None => None,
        };
        Ok(message.map(|message| match left {
            Some(left) => (message.expiry(left), asked.tag),
            None => (message, asked.tag),
        }))
    }

    /// The link was lost: holds again what only an answer could have acknowledged. Returns the places. What the
    /// protocol has not sent is told to `withdraw`, with its place in line if it was there: nothing may leave
    /// before it is known that the subscription stands.
    pub(crate) fn hold_unanswered(
        &mut self,
        mut withdraw: impl FnMut(Token, Option<Place>),
    ) -> Vec<(u64, Token)> {
        let mut held = Vec::new();
        for (token, waiter) in &mut self.slab {
            let Waiter::Waiting(waiting) = waiter else {
                continue;
            };
            let Some(asked) = &mut waiting.asked else {
                continue;
            };
            if asked.message.is_none() {
                continue;
            }
            match asked.stage {
                Stage::Held => continue,
                Stage::Out => {}
                Stage::Handed => withdraw(token, waiting.parked),
            }
            asked.stage = Stage::Held;
            waiting.parked = Some(Place::Held(asked.place));
            held.push((asked.place, token));
        }
        held
    }

    /// Whether one of the requests up to this place waits that is not held here: it is as it was sent, or
    /// handed over to be.
    pub(crate) fn expects_answer(&self, place: u64) -> bool {
        self.slab.iter().any(|(_, waiter)| match waiter {
            Waiter::Waiting(waiting) => waiting
                .asked
                .as_ref()
                .is_some_and(|asked| asked.place <= place && asked.stage != Stage::Held),
            Waiter::Early(_)
            | Waiter::Answered(_)
            | Waiter::Done(_)
            | Waiter::Late(_)
            | Waiter::Abandoned => false,
        })
    }

    /// An answer came. None if no request waits that has this tag.
    pub(crate) fn answer(
        &mut self,
        token: Token,
        tag: u64,
        answer: impl FnOnce() -> Answer,
    ) -> Option<Claimed> {
        let waiter = self.slab.get_mut(token)?;
        let Waiter::Waiting(waiting) = waiter else {
            return None;
        };
        let asked = waiting.asked.as_ref().filter(|asked| asked.tag == tag)?;
        let (stage, place) = (asked.stage, asked.place);
        if stage == Stage::Held && asked.sent == Sent::No {
            // Nobody can have seen it yet.
            return None;
        }
        let waker = waiting.waker.take();
        *waiter = match stage {
            Stage::Handed => Waiter::Early(answer()),
            Stage::Held | Stage::Out => Waiter::Answered(answer()),
        };
        Some(Claimed {
            waker,
            held: (stage == Stage::Held).then_some(place),
        })
    }

    /// As [`Waiters::poll`], of the wait for an answer.
    pub(crate) fn poll_answer(
        &mut self,
        token: Token,
        waker: &Waker,
    ) -> (AnswerProgress, Option<Waker>) {
        match self.slab.get_mut(token) {
            Some(waiter @ Waiter::Early(_)) => {
                if let Waiter::Early(answer) = std::mem::replace(waiter, Waiter::Abandoned) {
                    return (AnswerProgress::Ready(Ok(answer)), None);
                }
            }
            Some(Waiter::Answered(_)) => {
                if let Waiter::Answered(answer) = self.slab.remove(token) {
                    return (AnswerProgress::Ready(Ok(answer)), None);
                }
            }
            Some(Waiter::Waiting(_) | Waiter::Done(_) | Waiter::Late(_) | Waiter::Abandoned)
            | None => {}
        }
        let (progress, old) = self.poll(token, waker);
        let progress = match progress {
            super::Progress::Pending => AnswerProgress::Pending,
            super::Progress::Ready(outcome) => {
                let error = outcome.err();
                let error = error.unwrap_or_else(|| Error::closed(Doing::Requesting));
                AnswerProgress::Ready(Err(error))
            }
        };
        (progress, old)
    }
}
