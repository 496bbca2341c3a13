//! The futures that calls return. Each is `'static` and only waits: the call itself has taken effect.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::{Doing, Error, Result};
use crate::message::Message;
use crate::properties::{PropertyList, Remarks};
use crate::protocol::{Done, Token};
use crate::reason::Reason;
use crate::shared::Shared;
use crate::subscription::Subscription;
use crate::waiter::Progress;

/// A wait that goes on. Dropping it ends the waiting and nothing else, except that a message still in
/// line for room is withdrawn.
pub(crate) struct Ticket {
    shared: Shared,
    token: Token,
    state: TicketState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TicketState {
    Waiting,
    Over,
}

impl Ticket {
    pub(crate) fn new(shared: &Shared, token: Token) -> Self {
        Self {
            shared: shared.clone(),
            token,
            state: TicketState::Waiting,
        }
    }

    fn set_timeout(&self, timeout: Duration) {
        self.shared.with(|state| {
            state.waiters.set_timeout(self.token, timeout);
            state.wake_driver();
        });
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Done>> {
        if self.state == TicketState::Over {
            // Polled again after its end: a future may answer anything but a panic is unkind.
            return Poll::Ready(Err(Error::closed(Doing::Connected)));
        }
        let progress = self.shared.with(|state| {
            let (progress, old) = state.waiters.poll(self.token, cx.waker());
            state.loose.drop_later(old);
            progress
        });
        match progress {
            Progress::Pending => Poll::Pending,
            Progress::Ready(outcome) => {
                self.state = TicketState::Over;
                Poll::Ready(outcome)
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.state == TicketState::Over {
            return;
        }
        self.shared.with(|state| state.abandon(self.token));
    }
}

/// What a call returns: an outcome that is known at once, or a wait.
pub(crate) enum Call {
    Known(Result<Done>),
    Waiting(Ticket),
    Over,
}

impl Call {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Done>> {
        if let Self::Waiting(ticket) = self {
            return ticket.poll(cx);
        }
        match std::mem::replace(self, Self::Over) {
            Self::Known(outcome) => Poll::Ready(outcome),
            Self::Waiting(_) | Self::Over => Poll::Ready(Err(Error::closed(Doing::Connected))),
        }
    }

    fn set_timeout(&self, timeout: Duration) {
        match self {
            Self::Waiting(ticket) => ticket.set_timeout(timeout),
            Self::Known(_) | Self::Over => {}
        }
    }
}

/// What became of a message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    reason: Reason,
    remarks: Remarks,
}

impl Published {
    /// The broker's reason: success, or that nobody subscribes to the topic (MQTT 5).
    ///
    /// Success if the call did not wait for the broker.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What the broker said with its acknowledgement: its reason string, user properties; MQTT 5 only.
    ///
    /// At QoS 2 these are the properties of PUBREC, and behind them those of PUBCOMP; of more than 4 KiB of
    /// PUBREC at most the reason string is kept. None if the call did not wait for the broker.
    pub fn properties(&self) -> PropertyList<'_> {
        self.remarks.list()
    }
}

impl From<Done> for Published {
    fn from(done: Done) -> Self {
        let (reason, remarks) = match done {
            Done::Acknowledged(reason, remarks) => (reason, remarks),
            Done::Sent
            | Done::Granted(_)
            | Done::Unsubscribed(..)
            | Done::Pong
            | Done::Authenticated => (Reason::SUCCESS, Remarks::NONE),
        };
        Self { reason, remarks }
    }
}

/// What became of an unsubscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsubscribed {
    reasons: Vec<Reason>,
    remarks: Remarks,
}

impl Unsubscribed {
    /// The broker's reason for the first filter: success, or that there was no such subscription (MQTT 5).
    ///
    /// Success if the call did not wait for the broker.
    pub fn reason(&self) -> Reason {
        self.reasons.first().copied().unwrap_or(Reason::SUCCESS)
    }

    /// The broker's reasons, in the order of the filters. None if the call did not wait for the broker.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// What the broker said with UNSUBACK: its reason string, user properties; MQTT 5 only. None if the
    /// call did not wait for it.
    pub fn properties(&self) -> PropertyList<'_> {
        self.remarks.list()
    }
}

impl From<Done> for Unsubscribed {
    fn from(done: Done) -> Self {
        let (reasons, remarks) = match done {
            Done::Unsubscribed(reasons, remarks) => (reasons, remarks),
            Done::Sent
            | Done::Acknowledged(..)
            | Done::Granted(_)
            | Done::Pong
            | Done::Authenticated => (Vec::new(), Remarks::NONE),
        };
        Self { reasons, remarks }
    }
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })*
    };
}

opaque_debug!(
    Publishing,
    PublishingMessage,
    Subscribing,
    Unsubscribing,
    Waiting
);

/// `$after` is what becomes of the call when the wait is over.
macro_rules! with_timeout {
    ($after:literal) => {
        /// Sets how long this wait lasts at most. Defaults to [`Options::wait_timeout`].
        ///
        #[doc = $after]
        ///
        /// [`Options::wait_timeout`]: crate::Options::wait_timeout
        pub fn timeout(self, timeout: Duration) -> Self {
            self.call.set_timeout(timeout);
            self
        }
    };
}

/// The wait of [`Client::publish`](crate::Client::publish).
///
/// # Cancel safety
/// Dropping it does not un-send an accepted message. A message that is still in line for room is
/// withdrawn and never sent.
#[must_use = "the message is on its way, but an error would go unseen"]
pub struct Publishing {
    pub(crate) call: Call,
}

impl Publishing {
    with_timeout!(
        "When it is over, a message that was accepted is sent all the same; one that is still in line for \
         room is withdrawn."
    );
}

impl Future for Publishing {
    type Output = Result<Published>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call
            .poll(cx)
            .map(|outcome| outcome.map(Published::from))
    }
}

/// The wait of [`Client::publish_message`](crate::Client::publish_message).
///
/// # Cancel safety
/// As [`Publishing`].
#[must_use = "the message is on its way, but an error would go unseen"]
pub struct PublishingMessage {
    pub(crate) call: Call,
    /// The message, if it was not accepted.
    pub(crate) message: Option<Message>,
}

impl PublishingMessage {
    with_timeout!(
        "When it is over, a message that was accepted is sent all the same; one that is still in line for \
         room is withdrawn."
    );
}

impl Future for PublishingMessage {
    type Output = std::result::Result<Published, Unpublished>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.call.poll(cx);
        outcome.map(|outcome| match outcome {
            Ok(done) => Ok(done.into()),
            Err(error) => Err(Unpublished {
                error,
                message: self.message.take(),
            }),
        })
    }
}

/// Why a message was not published, with the message if it was not accepted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unpublished {
    /// Why.
    pub error: Error,
    /// The message, to try again with; none if it had been accepted.
    pub message: Option<Message>,
}

impl fmt::Display for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Unpublished {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Unpublished> for Error {
    fn from(unpublished: Unpublished) -> Self {
        unpublished.error
    }
}

/// The wait of a subscribe; gives the stream.
///
/// # Cancel safety
/// Dropping it gives up the stream: what the broker grants is unsubscribed.
#[must_use = "a subscription that is dropped is unsubscribed"]
pub struct Subscribing {
    pub(crate) call: Call,
    pub(crate) subscription: Option<Subscription>,
}

impl Subscribing {
    with_timeout!("When it is over, the stream is given up and its filters are unsubscribed.");
}

impl Future for Subscribing {
    type Output = Result<Subscription>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match self.call.poll(cx) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => return Poll::Pending,
        };
        let subscription = self.subscription.take();
        Poll::Ready(outcome.and_then(|done| {
            let mut subscription = subscription.ok_or_else(|| Error::closed(Doing::Subscribing))?;
            if let Done::Granted(grants) = done {
                subscription.set_granted(&grants);
            }
            subscription.hand_over();
            Ok(subscription)
        }))
    }
}

/// The wait of [`Client::unsubscribe`](crate::Client::unsubscribe); gives what the broker said, if the
/// call waited for it.
///
/// # Cancel safety
/// Dropping it does not undo the unsubscribe.
#[must_use = "the request is on its way, but an error would go unseen"]
pub struct Unsubscribing {
    pub(crate) call: Call,
}

impl Unsubscribing {
    with_timeout!("When it is over, the filters are unsubscribed all the same.");
}

impl Future for Unsubscribing {
    type Output = Result<Unsubscribed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call
            .poll(cx)
            .map(|outcome| outcome.map(Unsubscribed::from))
    }
}

/// A wait for something that gives nothing but its end: a ping, an authentication, a connection, room, the
/// end of a disconnect.
///
/// # Cancel safety
/// Dropping it undoes nothing.
#[must_use = "the call has taken effect, but how it ends would go unseen"]
pub struct Waiting {
    pub(crate) call: Call,
}

impl Waiting {
    /// Sets how long this wait lasts at most.
    ///
    /// Defaults to [`Options::wait_timeout`] for a ping and an authentication, and to no limit for the
    /// others.
    ///
    /// [`Options::wait_timeout`]: crate::Options::wait_timeout
    pub fn timeout(self, timeout: Duration) -> Self {
        self.call.set_timeout(timeout);
        self
    }
}

impl Future for Waiting {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.poll(cx).map(|outcome| outcome.map(drop))
    }
}
